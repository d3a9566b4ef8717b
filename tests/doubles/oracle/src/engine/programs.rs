//! Sequences and triggers: made and altered.

use super::call::Call;
use super::errors::{no_table, ora, unsupported};
use super::lex::{self, Cursor};
use super::plsql;
use super::sequences::Sequence;
use super::triggers::{Event, Timing, Trigger};
use crate::api::OraError;
use std::sync::Arc;

const TABLE: (u32, &str) = (903, "invalid table name");
const OPTION: (u32, &str) = (922, "missing or invalid option");

/// `CREATE SEQUENCE name …`.
pub fn create_sequence(call: &mut Call<'_>, c: &mut Cursor<'_>) -> Result<(), OraError> {
    let (owner, name) = c.qualified((2277, "invalid sequence name"))?;
    let owner = owner.unwrap_or_else(|| call.st.schema(call.key));
    call.st.may_create(call.key, &owner, "SEQUENCE")?;
    call.st.name_taken(&owner, &name)?;
    let mut sequence = Sequence::starting(1);
    let start = sequence_options(&mut sequence, c)?;
    if sequence.increment < 0 {
        let given = sequence.maximum != Sequence::starting(1).maximum;
        if !given {
            sequence.maximum = -1;
        }
        if sequence.minimum == 1 && !given {
            sequence.minimum = -(10_i128.pow(27) - 1);
        }
    }
    let first = if sequence.increment > 0 {
        sequence.minimum
    } else {
        sequence.maximum
    };
    sequence.restart(start.unwrap_or(first));
    if sequence.minimum >= sequence.maximum {
        return Err(ora(4004, "MINVALUE must be less than MAXVALUE"));
    }
    call.st.sequences.insert((owner, name), sequence);
    Ok(())
}

/// `ALTER SEQUENCE name RESTART START WITH n`, and the other options.
pub fn alter_sequence(call: &mut Call<'_>, c: &mut Cursor<'_>) -> Result<(), OraError> {
    let (owner, name) = c.qualified((2277, "invalid sequence name"))?;
    let owner = owner.unwrap_or_else(|| call.st.schema(call.key));
    if call.st.acting_user(call.key) != owner {
        call.st.require(call.key, "ALTER ANY SEQUENCE")?;
    }
    let key = (owner, name);
    let Some(mut sequence) = call.st.sequences.get(&key).cloned() else {
        return Err(ora(2289, "sequence does not exist"));
    };
    let restart = c.eat("RESTART");
    let start = sequence_options(&mut sequence, c)?;
    match (restart, start) {
        (true, start) => {
            let first = if sequence.increment > 0 {
                sequence.minimum
            } else {
                sequence.maximum
            };
            sequence.restart(start.unwrap_or(first));
        }
        (false, Some(_)) => return Err(ora(2283, "cannot alter starting sequence number")),
        (false, None) => sequence.last_number = sequence.next,
    }
    call.st.sequences.insert(key, sequence);
    Ok(())
}

fn sequence_options(sequence: &mut Sequence, c: &mut Cursor<'_>) -> Result<Option<i128>, OraError> {
    const NUMBER: (u32, &str) = (1722, "invalid number");
    let mut start = None;
    loop {
        if c.eat("START WITH") {
            start = Some(c.number(NUMBER)?);
        } else if c.eat("INCREMENT BY") {
            sequence.increment = c.number(NUMBER)?;
            if sequence.increment == 0 {
                return Err(ora(4002, "INCREMENT must be a non-zero integer"));
            }
        } else if c.eat("MINVALUE") {
            sequence.minimum = c.number(NUMBER)?;
        } else if c.eat("MAXVALUE") {
            sequence.maximum = c.number(NUMBER)?;
        } else if c.eat("CACHE") {
            sequence.cache = c.number(NUMBER)?;
            if sequence.cache < 2 {
                return Err(ora(
                    4010,
                    "the number of values to CACHE must be greater than 1",
                ));
            }
        } else if c.eat("NOCACHE") {
            sequence.cache = 0;
        } else if c.eat("CYCLE") || c.eat("NOCYCLE") {
            sequence.cycle = c.previous_is("CYCLE");
        } else if c.eat("ORDER") || c.eat("NOORDER") {
            sequence.ordered = c.previous_is("ORDER");
        } else if c.eat("NOMINVALUE") {
            sequence.minimum = Sequence::starting(1).minimum;
        } else if c.eat("NOMAXVALUE") {
            sequence.maximum = Sequence::starting(1).maximum;
        } else {
            c.finish()?;
            return Ok(start);
        }
    }
}

/// `CREATE TRIGGER name BEFORE|AFTER events ON table FOR EACH ROW body`.
pub fn create_trigger(
    call: &mut Call<'_>,
    c: &mut Cursor<'_>,
    text: &str,
    replace: bool,
) -> Result<(), OraError> {
    const EVENT: (u32, &str) = (4079, "invalid trigger specification");
    let (owner, name) = c.qualified((4070, "invalid trigger name"))?;
    let owner = owner.unwrap_or_else(|| call.st.schema(call.key));
    call.st.may_create(call.key, &owner, "TRIGGER")?;
    let key = (owner.clone(), name);
    if call.st.triggers.contains_key(&key) && !replace {
        return Err(ora(4081, format!("trigger '{}' already exists", key.1)));
    }
    let timing = if c.eat("BEFORE") {
        Timing::Before
    } else if c.eat("AFTER") {
        Timing::After
    } else {
        return Err(c.error(EVENT));
    };
    let mut events = Vec::new();
    loop {
        events.push(if c.eat("INSERT") {
            Event::Insert
        } else if c.eat("UPDATE") {
            Event::Update
        } else if c.eat("DELETE") {
            Event::Delete
        } else {
            return Err(c.error(EVENT));
        });
        if !c.eat("OR") {
            break;
        }
    }
    c.expect("ON", EVENT)?;
    let (table_owner, table) = c.qualified(TABLE)?;
    let table_owner = table_owner.unwrap_or_else(|| owner.clone());
    let table = call
        .st
        .find_table(&table_owner, &table)
        .ok_or_else(no_table)?;
    if !c.eat("FOR EACH ROW") {
        return Err(unsupported("statement triggers; write FOR EACH ROW"));
    }
    let enabled = !c.eat("DISABLE");
    c.eat("ENABLE");
    // The body is read from its text, so that its offsets are its own.
    let body_text = &text[c.offset()..];
    let lexed = lex::lex(body_text)?;
    let body = Arc::new(plsql::parse(lexed.cursor())?);
    let text = body_text.to_owned();
    call.st.triggers.insert(
        key,
        Trigger {
            table,
            timing,
            events,
            enabled,
            body,
            text,
        },
    );
    Ok(())
}

/// `ALTER TRIGGER name ENABLE|DISABLE`.
pub fn alter_trigger(call: &mut Call<'_>, c: &mut Cursor<'_>) -> Result<(), OraError> {
    let (owner, name) = c.qualified((4070, "invalid trigger name"))?;
    let owner = owner.unwrap_or_else(|| call.st.schema(call.key));
    if call.st.acting_user(call.key) != owner {
        call.st.require(call.key, "ALTER ANY TRIGGER")?;
    }
    let enabled = if c.eat("ENABLE") {
        true
    } else if c.eat("DISABLE") {
        false
    } else {
        return Err(c.error(OPTION));
    };
    c.finish()?;
    let key = (owner, name);
    match call.st.triggers.get_mut(&key) {
        Some(trigger) => {
            trigger.enabled = enabled;
            Ok(())
        }
        None => Err(ora(4080, format!("trigger '{}' does not exist", key.1))),
    }
}

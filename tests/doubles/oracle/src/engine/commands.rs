//! Statements that are no query and no DML: ALTER SYSTEM, transaction control,
//! and the way to the DDL.

use super::call::Call;
use super::errors::{ora, unsupported};
use super::lex::{Cursor, Lexed};
use super::params::Reach;
use super::{ddl, kill, programs, users};
use crate::api::{OraError, Reply};
use sqlparser::tokenizer::Token;
use std::time::{Duration, Instant};

/// How often a log switch asks whether the archiver goes on.
const ARCHIVER_POLL: Duration = Duration::from_millis(20);

/// ORA-02065, for what ALTER SYSTEM does not know.
const OPTION: (u32, &str) = (2065, "illegal option for ALTER SYSTEM");
/// ORA-00900, for what is no statement at all.
const INVALID: (u32, &str) = (900, "invalid SQL statement");

/// Runs a statement recognised by hand.
///
/// # Errors
/// What Oracle says, or ORA-03001 for what the simulator does not do.
pub fn run(call: &mut Call<'_>, lexed: &Lexed) -> Result<Reply, OraError> {
    let mut cursor = lexed.cursor();
    let c = &mut cursor;
    if c.eat("COMMIT") {
        c.eat("WORK");
        c.finish()?;
        call.commit();
        return Ok(Reply::Done);
    }
    if c.eat("ROLLBACK") {
        c.eat("WORK");
        return rollback(call, c);
    }
    if c.eat("SAVEPOINT") {
        let name = c.name((3050, "invalid identifier: savepoint name"))?;
        c.finish()?;
        let key = call.key;
        call.st.savepoint(key, &name);
        return Ok(Reply::Done);
    }
    if c.eat("SET TRANSACTION") || c.eat("SET ROLE") || c.sees("EXPLAIN") || c.sees("LOCK TABLE") {
        return Err(unsupported("this statement"));
    }
    if c.eat("ALTER SYSTEM") {
        call.st.require(call.key, "ALTER SYSTEM")?;
        // Unlike DDL, ALTER SYSTEM leaves the transaction open.
        alter_system(call, c)?;
    } else if c.eat("ALTER SESSION") {
        users::alter_session(call, c)?;
        return Ok(Reply::Done);
    } else {
        call.commit();
        definition(call, c, &lexed.text)?;
    }
    let key = call.key;
    call.st.log_statement(key, &lexed.text);
    Ok(Reply::Done)
}

fn rollback(call: &mut Call<'_>, c: &mut Cursor<'_>) -> Result<Reply, OraError> {
    if c.eat("TO") {
        c.eat("SAVEPOINT");
        let name = c.name((3050, "invalid identifier: savepoint name"))?;
        c.finish()?;
        let key = call.key;
        call.st.rollback_to_savepoint(key, &name)?;
    } else {
        c.finish()?;
        call.rollback();
    }
    Ok(Reply::Done)
}

/// CREATE, ALTER, DROP, GRANT and the like.
fn definition(call: &mut Call<'_>, c: &mut Cursor<'_>, text: &str) -> Result<(), OraError> {
    if c.eat("CREATE") {
        let replace = c.eat("OR REPLACE");
        if c.eat("USER") {
            users::create_user(call, c)
        } else if c.eat("SEQUENCE") {
            programs::create_sequence(call, c)
        } else if c.eat("UNIQUE INDEX") {
            ddl::create_index(call, c, true)
        } else if c.eat("INDEX") {
            ddl::create_index(call, c, false)
        } else if c.eat("TRIGGER") {
            programs::create_trigger(call, c, text, replace)
        } else if c.eat("ROLE") {
            users::create_role(call, c)
        } else {
            Err(unsupported("CREATE of this kind of object"))
        }
    } else if c.eat("ALTER USER") {
        users::alter_user(call, c)
    } else if c.eat("ALTER TRIGGER") {
        programs::alter_trigger(call, c)
    } else if c.eat("ALTER SEQUENCE") {
        programs::alter_sequence(call, c)
    } else if c.eat("ALTER TABLE") {
        ddl::alter_table(call, c)
    } else if c.eat("ALTER DATABASE ADD SUPPLEMENTAL LOG DATA") {
        call.st.require(call.key, "ALTER DATABASE")?;
        if c.peek() == Some(&Token::LParen) {
            call.st.supplemental.columns.extend(c.log_columns()?);
        } else {
            c.finish()?;
            call.st.supplemental.minimal = true;
        }
        Ok(())
    } else if c.eat("GRANT") {
        users::grant(call, c)
    } else if c.eat("REVOKE") {
        users::revoke(call, c)
    } else if c.eat("DROP") {
        ddl::drop_object(call, c)
    } else if c.eat("TRUNCATE TABLE") {
        ddl::truncate(call, c)
    } else if c.sees("ALTER") || c.sees("COMMENT") || c.sees("ANALYZE") || c.sees("AUDIT") {
        Err(unsupported("this statement"))
    } else {
        Err(c.error(INVALID))
    }
}

fn alter_system(call: &mut Call<'_>, c: &mut Cursor<'_>) -> Result<(), OraError> {
    if c.eat("KILL SESSION") {
        let target = c.string((26, "missing or invalid session ID"))?;
        let _ = c.eat("IMMEDIATE");
        c.finish()?;
        return kill::kill(call, &target);
    }
    if c.eat("DISCONNECT SESSION") {
        let target = c.string((26, "missing or invalid session ID"))?;
        if !c.eat("IMMEDIATE") {
            return Err(unsupported("DISCONNECT SESSION … POST_TRANSACTION"));
        }
        c.finish()?;
        return kill::disconnect(call, &target);
    }
    let inst = call.key.inst;
    if c.eat("CHECKPOINT") {
        let _ = c.eat("GLOBAL") || c.eat("LOCAL");
        c.finish()?;
        let scn = call.st.next_scn();
        call.st.observed.checkpoint(inst, scn);
    } else if c.eat("ARCHIVE LOG CURRENT") {
        c.finish()?;
        while call.st.environment.archiver_stuck {
            call.pause(Instant::now() + ARCHIVER_POLL)?;
        }
        // ARCHIVE LOG CURRENT is for every thread, SWITCH LOGFILE for the own one.
        let scn = call.st.next_scn();
        for thread in 1..=call.st.instances.len() as u32 {
            call.st.logs.switch(thread, scn);
        }
    } else if c.eat("SWITCH LOGFILE") {
        c.finish()?;
        let scn = call.st.next_scn();
        call.st.logs.switch(inst, scn);
    } else if c.eat("ENABLE RESTRICTED SESSION") {
        c.finish()?;
        call.st.instances[inst as usize - 1].restricted = true;
    } else if c.eat("DISABLE RESTRICTED SESSION") {
        c.finish()?;
        call.st.instances[inst as usize - 1].restricted = false;
    } else if c.eat("REGISTER") || c.eat("FLUSH SHARED_POOL") || c.eat("FLUSH BUFFER_CACHE") {
        c.finish()?;
    } else if c.eat("SET") {
        set(call, c)?;
    } else if c.eat("RESET") {
        reset(call, c)?;
    } else {
        return Err(c.error(OPTION));
    }
    Ok(())
}

fn set(call: &mut Call<'_>, c: &mut Cursor<'_>) -> Result<(), OraError> {
    let name = c.name(OPTION)?;
    if !c.eat_token(&Token::Eq) {
        return Err(c.error((927, "missing equal sign")));
    }
    let value = match c.bump() {
        Some(Token::SingleQuotedString(text) | Token::Number(text, _)) => text.clone(),
        Some(Token::Word(word)) => word.value.clone(),
        _ => {
            return Err(c.error((
                2097,
                "parameter cannot be modified because specified value is invalid",
            )));
        }
    };
    if c.sees("COMMENT") {
        return Err(unsupported("ALTER SYSTEM SET … COMMENT"));
    }
    let (reach, sid) = reach(call, c)?;
    call.st.parameters.set(&name, &value, reach, &sid)?;
    let line = format!(
        "ALTER SYSTEM SET {}={value} SCOPE={reach:?} SID='{sid}';",
        name.to_lowercase()
    );
    call.st.alert(line);
    Ok(())
}

fn reset(call: &mut Call<'_>, c: &mut Cursor<'_>) -> Result<(), OraError> {
    let name = c.name(OPTION)?;
    let (reach, sid) = reach(call, c)?;
    let inst = call.key.inst;
    call.st.parameters.reset(&name, reach, &sid, inst)?;
    call.st.alert(format!(
        "ALTER SYSTEM RESET {} SCOPE={reach:?} SID='{sid}';",
        name.to_lowercase()
    ));
    Ok(())
}

/// `SCOPE=…` and `SID='…'`: all instances, and memory with spfile by default;
/// memory alone on an instance that was started without one.
fn reach(call: &Call<'_>, c: &mut Cursor<'_>) -> Result<(Reach, String), OraError> {
    let spfile = call.st.instance(call.key.inst).spfile;
    let mut reach = if spfile { Reach::Both } else { Reach::Memory };
    let mut sid = "*".to_owned();
    loop {
        if c.sees("DEFERRED") {
            return Err(unsupported("ALTER SYSTEM SET … DEFERRED"));
        }
        if c.eat("SCOPE") {
            c.eat_token(&Token::Eq);
            reach = if c.eat("MEMORY") {
                Reach::Memory
            } else if c.eat("SPFILE") {
                Reach::Spfile
            } else if c.eat("BOTH") {
                Reach::Both
            } else {
                return Err(c.error((922, "missing or invalid option")));
            };
        } else if c.eat("SID") {
            c.eat_token(&Token::Eq);
            sid = c.string((922, "missing or invalid option"))?.to_uppercase();
        } else {
            c.finish()?;
            if reach != Reach::Memory && !spfile {
                return Err(ora(
                    32001,
                    "write to SPFILE requested but no SPFILE is in use",
                ));
            }
            return Ok((reach, sid));
        }
    }
}

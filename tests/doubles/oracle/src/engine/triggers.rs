//! Row triggers: which fire, and with what `:NEW` and `:OLD`.

use super::datum::{Datum, Row};
use super::errors::{Outcome, stop};
use super::exec::{Exec, Variable, Variables};
use super::interpret;
use super::plsql::Block;
use std::sync::Arc;

/// Triggers that fire triggers deeper than this are ORA-00036.
const DEEPEST: usize = 50;

/// What happens to the row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    Insert,
    Update,
    Delete,
}

impl Event {
    /// Its name in TRIGGERING_EVENT.
    pub fn name(self) -> &'static str {
        match self {
            Self::Insert => "INSERT",
            Self::Update => "UPDATE",
            Self::Delete => "DELETE",
        }
    }
}

/// Before or after the row changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Timing {
    Before,
    After,
}

#[derive(Debug, Clone)]
pub struct Trigger {
    /// The table, by its number.
    pub table: usize,
    pub timing: Timing,
    pub events: Vec<Event>,
    pub enabled: bool,
    pub body: Arc<Block>,
    /// Its text, for TRIGGER_BODY.
    pub text: String,
}

impl Exec<'_> {
    /// Fires the BEFORE triggers, which may change the new row.
    pub fn fire_before(
        &mut self,
        table: usize,
        event: Event,
        old: Option<&Row>,
        new: Option<Vec<Datum>>,
    ) -> Outcome<Option<Vec<Datum>>> {
        let mut new = new;
        for (owner, body) in self.triggers_of(table, Timing::Before, event) {
            let vars = self.run_trigger(
                table,
                &owner,
                &body,
                old.map(|row| row.as_slice()),
                new.as_deref(),
            )?;
            if let Some(new) = &mut new {
                let columns = &self.st.tables[table].columns;
                for (column, value) in columns.iter().zip(new) {
                    if let Some(variable) = vars.get(&format!(":NEW.{}", column.name)) {
                        *value = variable.value.clone();
                    }
                }
            }
        }
        Ok(new)
    }

    /// Fires the triggers of a moment.
    pub fn fire(
        &mut self,
        table: usize,
        timing: Timing,
        event: Event,
        old: Option<&Row>,
        new: Option<&Row>,
    ) -> Outcome<()> {
        for (owner, body) in self.triggers_of(table, timing, event) {
            let old = old.map(|row| row.as_slice());
            self.run_trigger(table, &owner, &body, old, new.map(|row| row.as_slice()))?;
        }
        Ok(())
    }

    fn triggers_of(&self, table: usize, timing: Timing, event: Event) -> Vec<(String, Arc<Block>)> {
        self.st
            .triggers
            .iter()
            .filter(|(_, trigger)| {
                trigger.table == table
                    && trigger.enabled
                    && trigger.timing == timing
                    && trigger.events.contains(&event)
            })
            .map(|((owner, _), trigger)| (owner.clone(), Arc::clone(&trigger.body)))
            .collect()
    }

    /// Runs a trigger's body in its owner's name.
    fn run_trigger(
        &mut self,
        table: usize,
        owner: &str,
        body: &Block,
        old: Option<&[Datum]>,
        new: Option<&[Datum]>,
    ) -> Outcome<Variables> {
        if self.st.trigger_depth >= DEEPEST {
            return stop(
                36,
                format!("maximum number of recursive SQL levels ({DEEPEST}) exceeded"),
            );
        }
        let mut vars = Variables::new();
        for (prefix, row) in [("OLD", old), ("NEW", new)] {
            for (at, column) in self.st.tables[table].columns.iter().enumerate() {
                let value = row.map_or(Datum::Null, |row| row[at].clone());
                let variable = Variable {
                    value,
                    kind: column.kind,
                };
                vars.insert(format!(":{prefix}.{}", column.name), variable);
            }
        }
        let swap = |exec: &mut Self, acting: Option<String>, schema: String| {
            exec.st.sessions.get_mut(&exec.key).map(|session| {
                (
                    std::mem::replace(&mut session.acting, acting),
                    std::mem::replace(&mut session.schema, schema),
                )
            })
        };
        let before = swap(self, Some(owner.to_owned()), owner.to_owned());
        self.st.trigger_depth += 1;
        let result = interpret::run_inner(self.st, self.key, body, &mut vars);
        self.st.trigger_depth -= 1;
        if let Some((acting, schema)) = before {
            swap(self, acting, schema);
        }
        result.map(|()| vars)
    }
}

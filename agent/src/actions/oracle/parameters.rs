//! Initialization parameters, per instance and in the server parameter file.
//!
//! A value is restored per instance by compare-and-set: only if it is still the
//! zero that was set here. If nothing had set the parameter before, it is
//! restored by `RESET`, so that Oracle's default applies again (Oracle Database
//! SQL Language Reference, ALTER SYSTEM).

use crate::action::{ActionError, Context, Undone};
use crate::host::oracle::{OracleError, Session};
use lockstep_api::Code;
use serde::{Deserialize, Serialize};

/// Values in memory, with the instance name for the SID clause.
const IN_MEMORY: &str = "SELECT p.INST_ID, i.INSTANCE_NAME, p.VALUE, p.ISDEFAULT, p.ISMODIFIED \
     FROM GV$PARAMETER p JOIN GV$INSTANCE i ON i.INST_ID = p.INST_ID \
     WHERE p.NAME = :1 ORDER BY p.INST_ID";
/// Values in the server parameter file.
const IN_FILE: &str = "SELECT SID, VALUE FROM V$SPPARAMETER \
     WHERE NAME = :1 AND ISSPECIFIED = 'TRUE' ORDER BY SID";

/// The value that disables a parameter's feature.
const OFF: &str = "0";

/// A parameter's values before a change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Values {
    /// In memory, per instance.
    pub memory: Vec<InMemory>,
    /// In the server parameter file.
    pub file: Vec<InFile>,
}

/// A value in an instance's memory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InMemory {
    pub instance: String,
    pub value: String,
    /// Neither the parameter file nor a statement has set it.
    pub unset: bool,
}

/// A value in the server parameter file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InFile {
    /// `*` or an instance's name.
    pub sid: String,
    pub value: String,
}

impl Values {
    pub fn is_off_in_memory(&self) -> bool {
        self.memory.iter().all(|own| own.value == OFF)
    }

    /// Whether a restart of any instance leaves it off.
    pub fn is_off_in_file(&self) -> bool {
        self.file.iter().any(|own| own.sid == "*") && self.file.iter().all(|own| own.value == OFF)
    }

    fn in_memory(&self, instance: &str) -> Option<&InMemory> {
        self.memory.iter().find(|own| own.instance == instance)
    }

    fn in_file(&self, sid: &str) -> Option<&str> {
        self.file
            .iter()
            .find(|own| own.sid == sid)
            .map(|own| own.value.as_str())
    }
}

/// A parameter that can be switched off by setting it to 0.
#[derive(Debug, Clone, Copy)]
pub struct Parameter {
    /// Name as V$PARAMETER spells it.
    pub name: &'static str,
}

impl Parameter {
    /// Reads the current values.
    ///
    /// # Errors
    /// If the query fails.
    pub async fn values(self, session: &Session) -> Result<Values, OracleError> {
        type Memory = (i64, String, Option<String>, String, String);
        let name = [self.name.into()];
        let memory: Vec<Memory> = session.rows(IN_MEMORY, &name).await?;
        let file: Vec<(String, Option<String>)> = session.rows(IN_FILE, &name).await?;
        Ok(Values {
            memory: memory
                .into_iter()
                .map(|(_, instance, value, default, modified)| InMemory {
                    instance,
                    value: value.unwrap_or_default(),
                    unset: default == "TRUE" && modified == "FALSE",
                })
                .collect(),
            file: file
                .into_iter()
                .map(|(sid, value)| InFile {
                    sid,
                    value: value.unwrap_or_default(),
                })
                .collect(),
        })
    }

    fn set(self, value: &str, scope: &str, sid: &str) -> String {
        let name = self.name.to_uppercase();
        format!("ALTER SYSTEM SET {name}={value} SCOPE={scope} SID='{sid}'")
    }

    fn reset(self, scope: &str, sid: &str) -> String {
        let name = self.name.to_uppercase();
        format!("ALTER SYSTEM RESET {name} SCOPE={scope} SID='{sid}'")
    }

    pub fn off_in_memory(self) -> String {
        self.set(OFF, "MEMORY", "*")
    }

    /// The statements that switch it off in the file. An entry for a single
    /// instance takes precedence over the one for all (`*`), so both are set.
    pub fn off_in_file(self, now: &Values) -> Vec<String> {
        let own = now.file.iter().filter(|own| own.value != OFF);
        let mut sids: Vec<&str> = own.map(|own| own.sid.as_str()).collect();
        if now.in_file("*").is_none() {
            sids.push("*");
        }
        sids.into_iter()
            .map(|sid| self.set(OFF, "SPFILE", sid))
            .collect()
    }

    /// The statements that restore `before` where `now` is the zero set here,
    /// and the values that somebody else has changed. `file` includes the
    /// server parameter file.
    fn restore_statements(
        self,
        before: &Values,
        now: &Values,
        file: bool,
    ) -> (Vec<String>, Vec<String>) {
        let (mut statements, mut drifted) = (Vec::new(), Vec::new());
        let mut foreign = |place: String, found: &str, wanted: &str| {
            drifted.push(format!(
                "{} is {found} {place}, was {wanted} before",
                self.name
            ));
        };
        for was in &before.memory {
            // An instance that is down will start with the file's value.
            let Some(own) = now.in_memory(&was.instance) else {
                continue;
            };
            if own.value == was.value {
            } else if own.value != OFF {
                foreign(format!("on {}", was.instance), &own.value, &was.value);
            } else if was.unset {
                statements.push(self.reset("MEMORY", &was.instance));
            } else {
                statements.push(self.set(&was.value, "MEMORY", &was.instance));
            }
        }
        let sids = before.file.iter().chain(&now.file).map(|own| &own.sid);
        let sids: std::collections::BTreeSet<&String> = sids.filter(|_| file).collect();
        for sid in sids {
            match (before.in_file(sid), now.in_file(sid)) {
                (was, own) if was == own => {}
                (Some(was), Some(OFF)) => statements.push(self.set(was, "SPFILE", sid)),
                (None, Some(OFF)) => statements.push(self.reset("SPFILE", sid)),
                (was, own) => {
                    let text = |value: Option<&str>| value.unwrap_or("not set").to_owned();
                    let place = format!("in the server parameter file for {sid}");
                    foreign(place, &text(own), &text(was));
                }
            }
        }
        (statements, drifted)
    }

    /// Restores values in memory and, with `file`, in the server parameter file.
    ///
    /// # Errors
    /// If a query or statement fails.
    pub async fn restore(
        self,
        cx: &Context,
        session: &Session,
        before: &Values,
        file: bool,
    ) -> Result<Undone, ActionError> {
        let now = self.values(session).await?;
        let (statements, drifted) = self.restore_statements(before, &now, file);
        for statement in &statements {
            match session.execute(statement, &[]).await {
                // `settle` sets the value instead. ORA-32009 is for the instance of
                // another session; what else a RESET in memory is refused for
                // isn't documented in one place.
                Err(e) if e.ora().is_some() && is_reset_in_memory(statement) => {
                    cx.note(format!("{statement}: {e}"));
                }
                done => {
                    done?;
                    cx.effect(statement.clone());
                }
            }
        }
        if !statements.is_empty() {
            self.settle(cx, session, before, &now).await?;
        }
        Ok(match (drifted.is_empty(), statements.is_empty()) {
            (false, _) => Undone::Drifted(drifted.join("; ")),
            (true, true) => Undone::Unchanged,
            (true, false) => Undone::Restored,
        })
    }

    /// A RESET restores Oracle's default. If that isn't the previous value, or
    /// Oracle rejected the RESET, the value is set explicitly.
    async fn settle(
        self,
        cx: &Context,
        session: &Session,
        before: &Values,
        found: &Values,
    ) -> Result<(), ActionError> {
        let now = self.values(session).await?;
        for statement in self.after_reset(before, found, &now) {
            session.execute(&statement, &[]).await?;
            cx.effect(statement);
        }
        Ok(())
    }

    /// The statements for values that were zero in `found`, were to be reset,
    /// and in `now` still differ from `before`. What others have set stays.
    fn after_reset(self, before: &Values, found: &Values, now: &Values) -> Vec<String> {
        let value = |values: &Values, instance: &str| {
            values.in_memory(instance).map(|own| own.value.clone())
        };
        let reset = before.memory.iter().filter(|was| {
            was.unset && value(found, &was.instance).is_some_and(|value| value == OFF)
        });
        reset
            .filter(|was| value(now, &was.instance).is_some_and(|value| value != was.value))
            .map(|was| self.set(&was.value, "MEMORY", &was.instance))
            .collect()
    }
}

fn is_reset_in_memory(statement: &str) -> bool {
    statement.starts_with("ALTER SYSTEM RESET ") && statement.contains(" SCOPE=MEMORY ")
}

/// Restores values in memory and in the file.
///
/// # Errors
/// If a statement fails, or somebody else has changed a value.
pub async fn restore(
    cx: &Context,
    session: &Session,
    parameter: Parameter,
    before: &Values,
) -> Result<(), ActionError> {
    match parameter.restore(cx, session, before, true).await? {
        Undone::Drifted(drifted) => Err(ActionError::new(Code::LS2230, drifted)
            .state_left("what somebody else has set was left as it is")
            .remedy("set it by hand as it should be, then retry or skip")),
        Undone::Restored | Undone::Unchanged => Ok(()),
    }
}

/// The values in memory as text for people.
pub fn shown(parameter: Parameter, values: &Values) -> String {
    let own = values
        .memory
        .iter()
        .map(|own| format!("{} on {}", own.value, own.instance));
    format!(
        "{} is {}",
        parameter.name,
        own.collect::<Vec<_>>().join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const JOBS: Parameter = Parameter {
        name: "job_queue_processes",
    };

    fn values(memory: &[(&str, &str, bool)], file: &[(&str, &str)]) -> Values {
        Values {
            memory: memory
                .iter()
                .map(|(instance, value, unset)| InMemory {
                    instance: (*instance).to_owned(),
                    value: (*value).to_owned(),
                    unset: *unset,
                })
                .collect(),
            file: file
                .iter()
                .map(|(sid, value)| InFile {
                    sid: (*sid).to_owned(),
                    value: (*value).to_owned(),
                })
                .collect(),
        }
    }

    #[test]
    fn each_instance_gets_its_own_value_back() {
        let before = values(
            &[("ORCL1", "20", false), ("ORCL2", "7", true)],
            &[("*", "20")],
        );
        let now = values(
            &[("ORCL1", "0", false), ("ORCL2", "0", false)],
            &[("*", "0")],
        );
        let (statements, drifted) = JOBS.restore_statements(&before, &now, true);
        assert_eq!(
            statements,
            [
                "ALTER SYSTEM SET JOB_QUEUE_PROCESSES=20 SCOPE=MEMORY SID='ORCL1'",
                "ALTER SYSTEM RESET JOB_QUEUE_PROCESSES SCOPE=MEMORY SID='ORCL2'",
                "ALTER SYSTEM SET JOB_QUEUE_PROCESSES=20 SCOPE=SPFILE SID='*'",
            ]
        );
        assert!(drifted.is_empty());
        let (statements, _) = JOBS.restore_statements(&before, &now, false);
        assert_eq!(statements.len(), 2, "the file is left alone");
    }

    #[test]
    fn where_a_reset_does_not_bring_the_value_back_it_is_set() {
        let before = values(
            &[
                ("ORCL1", "1", true),
                ("ORCL2", "1", true),
                ("ORCL3", "1", true),
            ],
            &[],
        );
        let found = values(
            &[
                ("ORCL1", "0", false),
                ("ORCL2", "0", false),
                ("ORCL3", "5", false),
            ],
            &[],
        );
        // The first was reset, the second rejected the reset (ORA-32009), the
        // third was set by somebody else.
        let now = values(
            &[
                ("ORCL1", "1", true),
                ("ORCL2", "0", false),
                ("ORCL3", "5", false),
            ],
            &[],
        );
        assert_eq!(
            JOBS.after_reset(&before, &found, &now),
            ["ALTER SYSTEM SET JOB_QUEUE_PROCESSES=1 SCOPE=MEMORY SID='ORCL2'"]
        );
    }

    #[test]
    fn what_somebody_else_has_set_is_left_alone() {
        let before = values(&[("ORCL1", "20", false)], &[]);
        let now = values(&[("ORCL1", "5", false)], &[]);
        let (statements, drifted) = JOBS.restore_statements(&before, &now, true);
        assert!(statements.is_empty());
        assert_eq!(
            drifted,
            ["job_queue_processes is 5 on ORCL1, was 20 before"]
        );
    }

    #[test]
    fn an_entry_made_here_goes_again() {
        let before = values(&[], &[("ORCL2", "3")]);
        assert_eq!(
            JOBS.off_in_file(&before),
            [
                "ALTER SYSTEM SET JOB_QUEUE_PROCESSES=0 SCOPE=SPFILE SID='ORCL2'",
                "ALTER SYSTEM SET JOB_QUEUE_PROCESSES=0 SCOPE=SPFILE SID='*'",
            ]
        );
        let now = values(&[], &[("*", "0"), ("ORCL2", "0")]);
        assert!(now.is_off_in_file());
        assert_eq!(
            JOBS.restore_statements(&before, &now, true).0,
            [
                "ALTER SYSTEM RESET JOB_QUEUE_PROCESSES SCOPE=SPFILE SID='*'",
                "ALTER SYSTEM SET JOB_QUEUE_PROCESSES=3 SCOPE=SPFILE SID='ORCL2'",
            ]
        );
    }
}

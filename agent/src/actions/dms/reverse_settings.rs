//! The settings of the reverse task: the plan's, with those that a fallback
//! needs where the plan says nothing.
//!
//! DMS's defaults would lose Oracle's data without an error: DROP, TRUNCATE and
//! ALTER TABLE are repeated, LOBs are cut at 32 KB, and a row that Oracle refuses
//! is logged or ignored while the task runs on. So the task is created to repeat
//! no DDL, to replicate LOBs whole, and to stop at the first error, from which it
//! can be resumed without loss. A plan can choose limited LOBs or another policy
//! for errors, by name only; preflight then says what that loses.
//!
//! Source: AWS DMS user guide, "Task settings for change processing DDL
//! handling", "Target metadata task settings" and "Error handling task settings".

use super::lobs::{Lobs, size};
use crate::action::ActionError;
use lockstep_api::Code;
use serde_json::{Map, Value, json};

pub const DDL: &str = "ChangeProcessingDdlHandlingPolicy";
const METADATA: &str = "TargetMetadata";
pub const ERRORS: &str = "ErrorBehavior";

/// The policies for errors, each with the values that DMS knows.
pub const POLICIES: [(&str, &[&str]); 6] = [
    ("DataErrorPolicy", &RECORD),
    ("DataTruncationErrorPolicy", &RECORD),
    ("TableErrorPolicy", &["SUSPEND_TABLE", STOP]),
    ("ApplyErrorDeletePolicy", &RECORD),
    ("ApplyErrorInsertPolicy", &APPLIED),
    ("ApplyErrorUpdatePolicy", &APPLIED),
];

const STOP: &str = "STOP_TASK";
const RECORD: [&str; 4] = ["IGNORE_RECORD", "LOG_ERROR", "SUSPEND_TABLE", STOP];
const APPLIED: [&str; 5] = [
    "IGNORE_RECORD",
    "LOG_ERROR",
    "SUSPEND_TABLE",
    "UPDATE_RECORD",
    STOP,
];

/// Kilobytes of a chunk in full LOB mode, which has to be given. 64 is what the
/// guide recommends.
const LOB_CHUNK_KB: u64 = 64;

/// Group, setting, the one value, and what any other would do.
fn fixed() -> [(&'static str, &'static str, Value, &'static str); 4] {
    [
        (
            "FullLoadSettings",
            "TargetTablePrepMode",
            json!("DO_NOTHING"),
            "would empty Oracle's tables",
        ),
        (
            DDL,
            "HandleSourceTableDropped",
            json!(false),
            "would drop a table in Oracle when it is dropped in PostgreSQL",
        ),
        (
            DDL,
            "HandleSourceTableTruncated",
            json!(false),
            "would empty a table in Oracle when it is truncated in PostgreSQL",
        ),
        (
            DDL,
            "HandleSourceTableAltered",
            json!(false),
            "would alter a table in Oracle when it is altered in PostgreSQL",
        ),
    ]
}

/// The settings, and what the plan's choices lose.
#[derive(Debug)]
pub struct Settings {
    document: Map<String, Value>,
    /// What the plan's choices lose, a sentence each.
    pub remarks: Vec<String>,
}

impl Settings {
    /// # Errors
    /// LS2420 where the plan's settings contradict a fallback.
    pub fn of(given: &Value) -> Result<Self, ActionError> {
        let mut settings = Self {
            document: object(given)?,
            remarks: Vec::new(),
        };
        settings.fix()?;
        settings.lobs()?;
        settings.policies()?;
        Ok(settings)
    }

    pub fn document(&self) -> Value {
        Value::Object(self.document.clone())
    }

    /// `ReplicationTaskSettings`.
    pub fn text(&self) -> String {
        self.document().to_string()
    }

    /// What preflight says of them.
    pub fn summary(&self) -> String {
        let lobs = match Lobs::of(&Value::Object(self.document.clone())) {
            Lobs::Whole => "LOBs whole".to_owned(),
            Lobs::Cut(kb) => format!("LOBs cut at {kb} KB"),
            Lobs::LeftOut => "no LOBs".to_owned(),
        };
        let policies: Vec<String> = POLICIES
            .iter()
            .map(|(name, _)| format!("{name}={}", self.shown(ERRORS, name)))
            .collect();
        format!(
            "its settings: tables not prepared, DDL not repeated, {lobs}, {}",
            policies.join(", ")
        )
    }

    fn shown(&self, group: &str, name: &str) -> String {
        let value = self.document.get(group).and_then(|group| group.get(name));
        match value {
            Some(Value::String(text)) => text.clone(),
            other => other.unwrap_or(&Value::Null).to_string(),
        }
    }

    /// A group of the document, made where there is none.
    fn group(&mut self, name: &str) -> Result<&mut Map<String, Value>, ActionError> {
        let group = self.document.entry(name).or_insert(Value::Null);
        if group.is_null() {
            *group = json!({});
        }
        group
            .as_object_mut()
            .ok_or_else(|| contradiction(format!("{name} is not an object")))
    }

    fn fix(&mut self) -> Result<(), ActionError> {
        for (group, name, wanted, why) in fixed() {
            let found = self.group(group)?.entry(name).or_insert(Value::Null);
            if found.is_null() {
                *found = wanted.clone();
            }
            if *found != wanted {
                let is = self.shown(group, name);
                return Err(contradiction(format!("{name} is {is}, which {why}")));
            }
        }
        Ok(())
    }

    fn lobs(&mut self) -> Result<(), ActionError> {
        let metadata = self.group(METADATA)?;
        for (name, value) in lob_mode(metadata)? {
            let found = metadata.entry(name).or_insert(Value::Null);
            if found.is_null() {
                *found = value;
            }
        }
        let lobs = Lobs::of(&Value::Object(self.document.clone()));
        self.remarks.extend(lobs.remark("it cuts LOBs"));
        Ok(())
    }

    fn policies(&mut self) -> Result<(), ActionError> {
        for (name, known) in POLICIES {
            let found = self.group(ERRORS)?.entry(name).or_insert(Value::Null);
            if found.is_null() {
                *found = json!(STOP);
            }
            let policy = self.shown(ERRORS, name);
            let loses = match policy.as_str() {
                STOP => continue,
                unknown if !known.contains(&unknown) => {
                    return Err(contradiction(format!(
                        "{name} is {unknown}, not one of {}",
                        known.join(", ")
                    )));
                }
                "SUSPEND_TABLE" => {
                    "after an error Oracle receives no more changes of that table, and the task \
                     runs on"
                }
                "UPDATE_RECORD" => {
                    "a conflicting row is overwritten in Oracle, or inserted where it is missing"
                }
                _ => "a change that Oracle refuses is left out, and the task runs on",
            };
            self.remarks.push(format!("{name} is {policy}: {loses}"));
        }
        Ok(())
    }
}

/// What the plan leaves open of the LOB mode: full LOB mode, unless the plan
/// names the size of limited mode.
fn lob_mode(metadata: &Map<String, Value>) -> Result<Vec<(&'static str, Value)>, ActionError> {
    let flag = |name: &str| match metadata.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Bool(is)) => Ok(Some(*is)),
        Some(other) => Err(contradiction(format!(
            "{name} is {other}, neither true nor false"
        ))),
    };
    let (full, limited) = (flag("FullLobMode")?, flag("LimitedSizeLobMode")?);
    let batch = flag("BatchApplyEnabled")?;
    if flag("SupportLobs")? == Some(false) {
        return Ok(Vec::new());
    }
    let most = metadata.get("LobMaxSize").filter(|size| !size.is_null());
    let whole = match (full, limited) {
        (Some(true), Some(true)) => {
            return Err(contradiction(
                "FullLobMode and LimitedSizeLobMode exclude each other".to_owned(),
            ));
        }
        (Some(false), Some(false)) => {
            return Err(contradiction(
                "FullLobMode and LimitedSizeLobMode are both false, so no LOB mode is chosen"
                    .to_owned(),
            ));
        }
        (Some(true), _) | (_, Some(false)) => true,
        (Some(false), _) | (_, Some(true)) => false,
        (None, None) => most.is_none(),
    };
    if whole && batch == Some(true) {
        return Err(contradiction(
            "BatchApplyEnabled replicates LOBs in limited LOB mode only, and LobMaxSize is missing"
                .to_owned(),
        ));
    }
    if !whole && most.and_then(size).filter(|kb| *kb > 0).is_none() {
        return Err(contradiction(
            "limited LOB mode without LobMaxSize (in KB) would cut LOBs at 32 KB, without an error"
                .to_owned(),
        ));
    }
    let mut mode = vec![
        ("SupportLobs", json!(true)),
        ("FullLobMode", json!(whole)),
        ("LimitedSizeLobMode", json!(!whole)),
    ];
    if whole {
        mode.push(("LobChunkSize", json!(LOB_CHUNK_KB)));
    }
    Ok(mode)
}

fn object(given: &Value) -> Result<Map<String, Value>, ActionError> {
    let read = match given {
        Value::String(text) => serde_json::from_str(text)
            .map_err(|e| contradiction("settings are not JSON".to_owned()).source(e))?,
        other => other.clone(),
    };
    match read {
        Value::Null => Ok(Map::new()),
        Value::Object(map) => Ok(map),
        other => Err(contradiction(format!(
            "settings are {other}, not an object"
        ))),
    }
}

fn contradiction(what: String) -> ActionError {
    ActionError::new(Code::LS2420, what)
        .state_left("nothing was changed")
        .remedy("correct dms.reverse.settings in the plan")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document(given: Value) -> Value {
        serde_json::from_str(&Settings::of(&given).unwrap().text()).unwrap()
    }

    #[test]
    fn a_plan_without_settings_gets_those_of_a_fallback() {
        for given in [
            Value::Null,
            json!({"Logging": {"EnableLogging": true}}),
            json!({"FullLoadSettings": {"TargetTablePrepMode": "DO_NOTHING"}, "TargetMetadata": null}),
            json!("{\"ErrorBehavior\": {}}"),
        ] {
            let settings = document(given);
            assert_eq!(
                settings["FullLoadSettings"]["TargetTablePrepMode"],
                "DO_NOTHING"
            );
            for what in ["Dropped", "Truncated", "Altered"] {
                assert_eq!(settings[DDL][format!("HandleSourceTable{what}")], false);
            }
            assert_eq!(
                settings[METADATA],
                json!({"SupportLobs": true, "FullLobMode": true, "LimitedSizeLobMode": false,
                    "LobChunkSize": 64})
            );
            for (policy, _) in POLICIES {
                assert_eq!(settings[ERRORS][policy], STOP, "{policy}");
            }
        }
        assert!(Settings::of(&Value::Null).unwrap().remarks.is_empty());
    }

    #[test]
    fn what_would_lose_data_without_a_word_is_refused() {
        for (given, says) in [
            (
                json!({"FullLoadSettings": {"TargetTablePrepMode": "TRUNCATE_BEFORE_LOAD"}}),
                "TargetTablePrepMode is TRUNCATE_BEFORE_LOAD, which would empty",
            ),
            (
                json!({DDL: {"HandleSourceTableDropped": true}}),
                "HandleSourceTableDropped is true, which would drop",
            ),
            (json!({DDL: {"HandleSourceTableTruncated": true}}), "empty"),
            (json!({DDL: {"HandleSourceTableAltered": "N"}}), "alter"),
            (json!({DDL: 3}), "not an object"),
            (
                json!({METADATA: {"LimitedSizeLobMode": true}}),
                "cut LOBs at 32 KB",
            ),
            (
                json!({METADATA: {"FullLobMode": false}}),
                "cut LOBs at 32 KB",
            ),
            (json!({METADATA: {"LobMaxSize": 0}}), "cut LOBs at 32 KB"),
            (json!({METADATA: {"FullLobMode": "yes"}}), "neither true"),
            (
                json!({METADATA: {"FullLobMode": true, "LimitedSizeLobMode": true}}),
                "exclude each other",
            ),
            (
                json!({METADATA: {"FullLobMode": false, "LimitedSizeLobMode": false}}),
                "no LOB mode",
            ),
            (json!({METADATA: {"BatchApplyEnabled": true}}), "LobMaxSize"),
            (
                json!({ERRORS: {"ApplyErrorDeletePolicy": "IGNORE"}}),
                "not one of",
            ),
            (
                json!({ERRORS: {"TableErrorPolicy": "LOG_ERROR"}}),
                "not one of",
            ),
            (json!([]), "not an object"),
        ] {
            let error = Settings::of(&given).unwrap_err();
            assert_eq!(error.code(), Code::LS2420, "{given}");
            assert!(error.report().contains(says), "{}", error.report());
        }
    }

    #[test]
    fn what_the_plan_chooses_by_name_is_shown() {
        let chosen = json!({METADATA: {"LobMaxSize": "512", "BatchApplyEnabled": true},
            ERRORS: {"ApplyErrorDeletePolicy": "IGNORE_RECORD", "TableErrorPolicy": "SUSPEND_TABLE"}});
        let settings = Settings::of(&chosen).unwrap();
        assert_eq!(settings.remarks.len(), 3, "{:?}", settings.remarks);
        assert!(settings.remarks[0].contains("512 KB"));
        assert!(settings.remarks[1].starts_with("TableErrorPolicy is SUSPEND_TABLE"));
        assert!(settings.remarks[2].contains("is left out"));
        assert!(settings.summary().contains("LOBs cut at 512 KB"));
        assert_eq!(document(chosen)[METADATA]["LimitedSizeLobMode"], true);
        let without = json!({METADATA: {"SupportLobs": false}});
        assert!(Settings::of(&without).unwrap().remarks[0].contains("aren't replicated"));
    }
}

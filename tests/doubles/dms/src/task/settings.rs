//! `ReplicationTaskSettings`: the part of the document that the double obeys.
//!
//! Source: AWS DMS user guide, "Specifying task settings". A setting that would
//! change what is replicated and that the double does not carry out is refused;
//! tuning and logging settings are kept and shown, and change nothing.

use serde_json::{Value, json};

/// The policies for errors and their defaults. The double knows these and
/// [`STOP`], which [`crate::replicate::oracle_apply`] obeys.
const POLICIES: [(&str, &str); 6] = [
    ("DataErrorPolicy", "LOG_ERROR"),
    ("DataTruncationErrorPolicy", "LOG_ERROR"),
    ("TableErrorPolicy", "SUSPEND_TABLE"),
    ("ApplyErrorInsertPolicy", "LOG_ERROR"),
    ("ApplyErrorUpdatePolicy", "LOG_ERROR"),
    ("ApplyErrorDeletePolicy", "IGNORE_RECORD"),
];

const STOP: &str = "STOP_TASK";

/// How much of a LOB a task replicates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lobs {
    /// `FullLobMode`.
    Whole,
    /// `LimitedSizeLobMode`, with `LobMaxSize` in KB.
    Cut(usize),
    /// `SupportLobs` is off.
    LeftOut,
}

/// The settings of a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskSettings {
    /// The whole document, with defaults filled in, as the API shows it.
    pub text: String,
    /// `ControlTablesSettings.ControlSchema`; empty means `public`.
    pub control_schema: String,
    /// `ControlTablesSettings.StatusTableEnabled`.
    pub status_table: bool,
    /// `ControlTablesSettings.SuspendedTablesTableEnabled`.
    pub suspended_table: bool,
    /// `FullLoadSettings.TargetTablePrepMode` is `TRUNCATE_BEFORE_LOAD`.
    pub truncate_before_load: bool,
    /// The policies of `ErrorBehavior` that are `STOP_TASK`.
    pub stops_on: Vec<&'static str>,
    /// The LOB mode of `TargetMetadata`.
    pub lobs: Lobs,
}

impl TaskSettings {
    /// Reads the document; an empty one is all defaults.
    ///
    /// # Errors
    /// A sentence for the caller: no JSON object, or a setting that is refused.
    pub fn parse(text: Option<&str>) -> Result<Self, String> {
        let mut document = defaults();
        if let Some(text) = text.filter(|t| !t.trim().is_empty()) {
            let given: Value = serde_json::from_str(text)
                .map_err(|e| format!("ReplicationTaskSettings is not valid JSON: {e}"))?;
            if !given.is_object() {
                return Err("ReplicationTaskSettings is not a JSON object".into());
            }
            merge(&mut document, given);
        }
        refuse_unsupported(&document)?;
        let text_of = |pointer: &str| {
            document
                .pointer(pointer)
                .and_then(Value::as_str)
                .unwrap_or("")
        };
        let flag = |pointer: &str| {
            document
                .pointer(pointer)
                .and_then(Value::as_bool)
                .unwrap_or(false)
        };
        let control_schema = match text_of("/ControlTablesSettings/ControlSchema") {
            "" => "public",
            schema => schema,
        };
        let truncate_before_load = match text_of("/FullLoadSettings/TargetTablePrepMode") {
            "DO_NOTHING" => false,
            "TRUNCATE_BEFORE_LOAD" => true,
            other => {
                return Err(format!(
                    "TargetTablePrepMode {other:?} is not supported here: DO_NOTHING and TRUNCATE_BEFORE_LOAD are"
                ));
            }
        };
        Ok(Self {
            control_schema: control_schema.into(),
            status_table: flag("/ControlTablesSettings/StatusTableEnabled"),
            suspended_table: flag("/ControlTablesSettings/SuspendedTablesTableEnabled"),
            truncate_before_load,
            stops_on: POLICIES
                .iter()
                .map(|(policy, _)| *policy)
                .filter(|policy| policy_of(&document, policy) == Some(STOP))
                .collect(),
            lobs: lobs(&document),
            text: document.to_string(),
        })
    }
}

fn lobs(document: &Value) -> Lobs {
    let metadata = &document["TargetMetadata"];
    // Numbers are accepted with and without quotes.
    let most = &metadata["LobMaxSize"];
    let kb = most.as_u64().or_else(|| most.as_str()?.parse().ok());
    if metadata["SupportLobs"] == false {
        Lobs::LeftOut
    } else if metadata["FullLobMode"] == true {
        Lobs::Whole
    } else {
        Lobs::Cut(kb.and_then(|kb| usize::try_from(kb).ok()).unwrap_or(32))
    }
}

fn defaults() -> Value {
    json!({
        "TargetMetadata": {"TargetSchema": "", "SupportLobs": true, "FullLobMode": false,
            "LimitedSizeLobMode": true, "LobMaxSize": 32, "LobChunkSize": 64,
            "BatchApplyEnabled": false,
            "TaskRecoveryTableEnabled": true},
        "FullLoadSettings": {"TargetTablePrepMode": "DO_NOTHING", "MaxFullLoadSubTasks": 1},
        "ControlTablesSettings": {"ControlSchema": "", "HistoryTableEnabled": false,
            "StatusTableEnabled": false, "SuspendedTablesTableEnabled": false},
        "ChangeProcessingDdlHandlingPolicy": {"HandleSourceTableDropped": true,
            "HandleSourceTableTruncated": true, "HandleSourceTableAltered": true},
        "ErrorBehavior": {"DataErrorPolicy": "LOG_ERROR",
            "DataTruncationErrorPolicy": "LOG_ERROR", "TableErrorPolicy": "SUSPEND_TABLE",
            "ApplyErrorInsertPolicy": "LOG_ERROR", "ApplyErrorUpdatePolicy": "LOG_ERROR",
            "ApplyErrorDeletePolicy": "IGNORE_RECORD", "RecoverableErrorCount": -1},
        "ValidationSettings": {"EnableValidation": false},
        "Logging": {"EnableLogging": true}
    })
}

/// Settings that would change which rows arrive, or in which order.
fn refuse_unsupported(document: &Value) -> Result<(), String> {
    for (pointer, name) in [
        (
            "/TargetMetadata/BatchApplyEnabled",
            "TargetMetadata.BatchApplyEnabled",
        ),
        (
            "/ValidationSettings/EnableValidation",
            "ValidationSettings.EnableValidation",
        ),
        (
            "/ControlTablesSettings/HistoryTableEnabled",
            "ControlTablesSettings.HistoryTableEnabled",
        ),
    ] {
        if document.pointer(pointer).and_then(Value::as_bool) == Some(true) {
            return Err(format!("{name} = true is not supported here"));
        }
    }
    refuse_lob_modes(document)?;
    for (policy, default) in POLICIES {
        let given = policy_of(document, policy);
        if given.is_some_and(|given| given != default && given != STOP) {
            return Err(format!(
                "ErrorBehavior.{policy} is supported as {default} and {STOP} only"
            ));
        }
    }
    Ok(())
}

/// With SupportLobs exactly one mode is on, and limited LOB mode has a size (user
/// guide, "Target metadata task settings").
fn refuse_lob_modes(document: &Value) -> Result<(), String> {
    let metadata = &document["TargetMetadata"];
    let on = |name: &str| metadata[name] == true;
    if !on("SupportLobs") {
        return Ok(());
    }
    if on("FullLobMode") == on("LimitedSizeLobMode") {
        return Err("exactly one of FullLobMode and LimitedSizeLobMode must be true".into());
    }
    if on("LimitedSizeLobMode") && metadata["LobMaxSize"] == 0 {
        return Err("LimitedSizeLobMode needs LobMaxSize".into());
    }
    if on("FullLobMode") && metadata["LobChunkSize"] == 0 {
        return Err("FullLobMode needs LobChunkSize".into());
    }
    Ok(())
}

fn policy_of<'a>(document: &'a Value, policy: &str) -> Option<&'a str> {
    document
        .pointer(&format!("/ErrorBehavior/{policy}"))
        .and_then(Value::as_str)
}

/// Lays `given` over `base`, object by object.
fn merge(base: &mut Value, given: Value) {
    match (base, given) {
        (Value::Object(base), Value::Object(given)) => {
            for (key, value) in given {
                merge(base.entry(key).or_insert(Value::Null), value);
            }
        }
        (slot, value) => *slot = value,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_filled_in_and_shown() {
        let settings = TaskSettings::parse(None).unwrap();
        assert_eq!(settings.control_schema, "public");
        assert!(settings.text.contains("TaskRecoveryTableEnabled"));
        let settings = TaskSettings::parse(Some(
            r#"{"ControlTablesSettings":{"ControlSchema":"dms","StatusTableEnabled":true}}"#,
        ))
        .unwrap();
        assert_eq!(settings.control_schema, "dms");
        assert!(settings.status_table && !settings.suspended_table);
    }

    #[test]
    fn what_would_change_the_rows_is_refused() {
        for text in [
            "[]",
            "{",
            r#"{"TargetMetadata":{"BatchApplyEnabled":true}}"#,
            r#"{"ErrorBehavior":{"TableErrorPolicy":"LOG_ERROR"}}"#,
            r#"{"TargetMetadata":{"FullLobMode":true}}"#,
            r#"{"TargetMetadata":{"FullLobMode":true,"LimitedSizeLobMode":false,"LobChunkSize":0}}"#,
            r#"{"TargetMetadata":{"LobMaxSize":0}}"#,
            r#"{"FullLoadSettings":{"TargetTablePrepMode":"DROP_AND_CREATE"}}"#,
        ] {
            assert!(TaskSettings::parse(Some(text)).is_err(), "{text}");
        }
    }
}

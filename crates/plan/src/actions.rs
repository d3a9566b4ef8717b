//! The table of actions, built from their parameter types.
//!
//! [`crate::catalogue`] has one type for each action, with its [`ActionSpec`]. The
//! table is closed: an agent implements exactly these actions.

use crate::catalogue as c;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// Effect of an action on its target system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// Changes nothing.
    ReadOnly,
    /// Keeps checking after its task is armed; changes nothing.
    Watch,
    /// Its changes can be undone.
    Undoable,
    /// May change something and has no undo.
    Permanent,
}

/// The declaration of an action, on the type of its parameters.
///
/// The type must reject unknown fields, so that a plan can't contain a parameter
/// that the action would ignore.
pub trait ActionSpec: Serialize + DeserializeOwned + JsonSchema + Send + Sync {
    /// Name in plans, such as `oracle.listener.stop`.
    const NAME: &'static str;
    /// One line that describes it.
    const SUMMARY: &'static str;
    /// Names of its outputs.
    const OUTPUTS: &'static [&'static str] = &[];
    const EFFECT: Effect;

    /// Time limit in seconds that follows from the parameters; none if they
    /// contain no limit.
    fn limit_secs(&self) -> Option<u64> {
        None
    }
}

/// An entry of the table.
#[derive(Debug)]
pub struct Action {
    /// See [`ActionSpec::NAME`].
    pub name: &'static str,
    /// See [`ActionSpec::SUMMARY`].
    pub summary: &'static str,
    /// See [`ActionSpec::OUTPUTS`].
    pub outputs: &'static [&'static str],
    /// See [`ActionSpec::EFFECT`].
    pub effect: Effect,
    schema: fn(&mut SchemaGenerator) -> Schema,
    decode: fn(&Value) -> Result<(), serde_json::Error>,
    limit_secs: fn(&Value) -> Option<u64>,
}

impl Action {
    /// The action with this name.
    pub fn find(name: &str) -> Option<&'static Self> {
        ACTIONS.iter().find(|action| action.name == name)
    }

    /// Whether the action has an undo.
    pub fn undoable(&self) -> bool {
        self.effect == Effect::Undoable
    }

    /// Whether the action is a watch.
    pub fn watch(&self) -> bool {
        self.effect == Effect::Watch
    }

    /// Whether the action changes nothing.
    pub fn read_only(&self) -> bool {
        self.effect == Effect::ReadOnly
    }

    /// Schema of its parameters; definitions go into `generator`.
    pub fn schema(&self, generator: &mut SchemaGenerator) -> Schema {
        (self.schema)(generator)
    }

    /// Checks that `params` decode into this action's type.
    ///
    /// # Errors
    /// The decoding error.
    pub fn decode(&self, params: &Value) -> Result<(), serde_json::Error> {
        (self.decode)(params)
    }

    /// See [`ActionSpec::limit_secs`]. A limit that is an unresolved
    /// reference counts as its default.
    pub fn limit_secs(&self, params: &Value) -> Option<u64> {
        (self.limit_secs)(params)
    }
}

const fn entry<A: ActionSpec>() -> Action {
    Action {
        name: A::NAME,
        summary: A::SUMMARY,
        outputs: A::OUTPUTS,
        effect: A::EFFECT,
        schema: |generator| generator.subschema_for::<A>(),
        decode: |params| serde_json::from_value::<A>(params.clone()).map(drop),
        limit_secs: |params| {
            serde_json::from_value::<A>(with_stand_ins::<A>(params))
                .ok()?
                .limit_secs()
        },
    }
}

/// The parameters as far as they are known before the run: a reference to an
/// output becomes a list of one element where the type expects a list, and is left
/// out where it expects a number or a truth value, which then has its default.
fn with_stand_ins<A: ActionSpec>(params: &Value) -> Value {
    let schema = SchemaGenerator::default().into_root_schema_for::<A>();
    stand_in(params, schema.as_value(), schema.as_value())
}

fn stand_in(params: &Value, schema: &Value, root: &Value) -> Value {
    let Value::Object(fields) = params else {
        return params.clone();
    };
    let known = fields.iter().filter_map(|(key, field)| {
        let property = resolved(&schema["properties"][key], root);
        let open = field.as_str().is_some_and(|text| text.contains("${"));
        let field = match (open, is_type(property, "array")) {
            (false, _) => stand_in(field, property, root),
            (true, false) if accepts_any_text(property) => field.clone(),
            (true, false) => return None,
            (true, true) if accepts_any_text(resolved(&property["items"], root)) => {
                Value::Array(vec![field.clone()])
            }
            (true, true) => Value::Array(Vec::new()),
        };
        Some((key.clone(), field))
    });
    Value::Object(known.collect())
}

/// The definition that a schema refers to, or the schema itself.
fn resolved<'a>(schema: &'a Value, root: &'a Value) -> &'a Value {
    schema["$ref"]
        .as_str()
        .and_then(|reference| reference.strip_prefix('#'))
        .and_then(|pointer| root.pointer(pointer))
        .unwrap_or(schema)
}

/// Whether a reference decodes as a value of this schema.
fn accepts_any_text(schema: &Value) -> bool {
    let restricted = ["enum", "oneOf", "anyOf"]
        .iter()
        .any(|keyword| schema.get(keyword).is_some());
    !restricted && (schema.get("type").is_none() || is_type(schema, "string"))
}

/// Whether values of this schema may have that JSON type.
fn is_type(schema: &Value, name: &str) -> bool {
    match &schema["type"] {
        Value::Array(types) => types.iter().any(|one| one == name),
        one => one == name,
    }
}

/// All actions: hosts, Oracle, PostgreSQL, AWS.
pub static ACTIONS: &[Action] = &[
    entry::<c::StopService>(),
    entry::<c::StartService>(),
    entry::<c::RestartService>(),
    entry::<c::DisableCron>(),
    entry::<c::RestoreCron>(),
    entry::<c::StopProcess>(),
    entry::<c::SwitchConfig>(),
    entry::<c::CheckHttp>(),
    entry::<c::CheckTcp>(),
    entry::<c::CheckCommand>(),
    entry::<c::CheckState>(),
    entry::<c::RunCommand>(),
    entry::<c::OracleReady>(),
    entry::<c::OracleLogs>(),
    entry::<c::StopListeners>(),
    entry::<c::StartListeners>(),
    entry::<c::LockAccounts>(),
    entry::<c::RestoreAccounts>(),
    entry::<c::RestrictLogins>(),
    entry::<c::OpenLogins>(),
    entry::<c::DisableOracleJobs>(),
    entry::<c::RestoreOracleJobs>(),
    entry::<c::DisableQueueMonitor>(),
    entry::<c::RestoreQueueMonitor>(),
    entry::<c::DrainSessions>(),
    entry::<c::KillSessions>(),
    entry::<c::WatchFence>(),
    entry::<c::VerifyFence>(),
    entry::<c::OracleMarker>(),
    entry::<c::OracleFinalize>(),
    entry::<c::DisableOracleTriggers>(),
    entry::<c::RestoreOracleTriggers>(),
    entry::<c::OracleColumns>(),
    entry::<c::OracleRows>(),
    entry::<c::OracleUnchanged>(),
    entry::<c::OracleCanary>(),
    entry::<c::PersistFreeze>(),
    entry::<c::PostgresReady>(),
    entry::<c::CloseRoles>(),
    entry::<c::VerifyRoles>(),
    entry::<c::OpenRoles>(),
    entry::<c::PostgresMarker>(),
    entry::<c::PostgresDrain>(),
    entry::<c::PostgresColumns>(),
    entry::<c::PostgresRows>(),
    entry::<c::EnablePostgresTriggers>(),
    entry::<c::RestorePostgresTriggers>(),
    entry::<c::PostgresSequences>(),
    entry::<c::DisablePostgresJobs>(),
    entry::<c::RestorePostgresJobs>(),
    entry::<c::PostgresAnalyze>(),
    entry::<c::PostgresCanary>(),
    entry::<c::DmsTaskReady>(),
    entry::<c::DrainDmsTask>(),
    entry::<c::StopDmsTask>(),
    entry::<c::ResumeDmsTask>(),
    entry::<c::DmsConnection>(),
    entry::<c::DmsReverseCreate>(),
    entry::<c::DmsReverseStart>(),
    entry::<c::DmsReverseDelete>(),
    entry::<c::CloudwatchAlarms>(),
];

/// Seconds that a task needs in addition to the limits in its parameters, for its
/// session, probe and report.
const SLACK_SECS: u64 = 15;

/// Seconds for an action whose parameters contain no limit, and for the work of an
/// action apart from waiting.
pub(crate) const PLAIN_LIMIT_SECS: u64 = 60;

/// Seconds for all listeners of a host; Clusterware is slow for each.
pub(crate) const LISTENERS_LIMIT_SECS: u64 = 300;

/// Limit of an action that may take `secs` for each of `items`.
pub(crate) fn each<T>(items: &[T], secs: u64) -> u64 {
    secs.saturating_mul(items.len().max(1) as u64)
}

/// Time limit of one agent's task in seconds, including probe and report.
pub fn task_limit_secs(action: &str, params: &Value) -> u64 {
    Action::find(action)
        .and_then(|action| action.limit_secs(params))
        .unwrap_or(PLAIN_LIMIT_SECS)
        .saturating_add(SLACK_SECS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn limit_secs(action: &str, params: &Value) -> Option<u64> {
        Action::find(action).unwrap().limit_secs(params)
    }

    #[test]
    fn names_are_unique_and_findable() {
        for (index, action) in ACTIONS.iter().enumerate() {
            assert!(
                ACTIONS[..index]
                    .iter()
                    .all(|other| other.name != action.name),
                "{} twice",
                action.name
            );
            assert_eq!(Action::find(action.name).unwrap().name, action.name);
        }
        assert!(Action::find("oracle.shutdown").is_none());
    }

    #[test]
    fn parameters_decode_into_the_type_of_their_action() {
        let stop = Action::find("oracle.listener.stop").unwrap();
        assert!(
            stop.decode(&json!({"resource": "orcl", "keep": ["LISTENER_DMS"]}))
                .is_ok()
        );
        assert!(stop.decode(&json!({"resource": 5})).is_err());
        assert!(
            stop.decode(&json!({"resource": "orcl", "units": []}))
                .is_err()
        );
    }

    #[test]
    fn every_action_rejects_parameters_it_does_not_have() {
        for action in ACTIONS {
            let error = action.decode(&json!({"no_such_parameter": 1})).unwrap_err();
            let text = error.to_string();
            assert!(
                text.contains("unknown field `no_such_parameter`"),
                "{}: {text}",
                action.name
            );
        }
    }

    #[test]
    fn a_limit_counts_every_unit() {
        let params = json!({"units": ["a.service", "b.service"], "timeout_secs": 20});
        assert_eq!(
            task_limit_secs("service.stop", &params),
            2 * 20 + SLACK_SECS
        );
        let params = json!({"resource": "orcl", "marker_table": "A.B", "tasks": ["t"],
            "fence": {"resource": "orcl", "window_secs": 5}, "timeout_secs": 900});
        assert_eq!(limit_secs("oracle.finalize", &params), Some(905));
        assert_eq!(limit_secs("config.switch", &json!({})), None);
        assert_eq!(task_limit_secs("config.switch", &json!({})), 75);
    }

    #[test]
    fn a_limit_holds_whatever_else_is_unresolved() {
        let params = json!({"units": "${find.units}", "timeout_secs": 600});
        assert_eq!(limit_secs("service.stop", &params), Some(600));
        let params = json!({"units": ["${find.unit}", "b.service"], "timeout_secs": 600,
            "enablement": "${find.disable}"});
        assert_eq!(limit_secs("service.stop", &params), Some(1200));
        let params = json!({"address": "db:1521", "expect": "${find.state}", "within_secs": 900});
        assert_eq!(limit_secs("check.tcp", &params), Some(900));
    }

    #[test]
    fn an_unresolved_limit_counts_as_its_default() {
        let params = json!({"units": ["a.service"], "timeout_secs": "${find.secs}"});
        let default = c::defaults::unit_secs();
        assert_eq!(limit_secs("service.stop", &params), Some(default));
        let params = json!({"resource": "orcl", "marker_table": "A.B", "tasks": ["t"],
            "fence": {"resource": "orcl", "window_secs": "${find.secs}"}, "timeout_secs": 900});
        assert_eq!(limit_secs("oracle.finalize", &params), Some(905));
    }
}

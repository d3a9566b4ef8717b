//! The catalogue of actions: one parameter type for each action, which declares
//! its name, its parameters and its outputs.
//!
//! A plan is checked against these types, the agent decodes into them, and
//! the JSON Schema and `docs/actions.md` are generated from them. Durations are
//! whole seconds (`…_secs`) unless a name says otherwise. A plan may
//! contain `${step-id.output}` in place of any value; the release carries the
//! outputs, and the agent replaces the references before it decodes the
//! parameters.

mod dms;
mod host;
mod oracle;
mod oracle_rows;
mod postgres;

pub use dms::*;
pub use host::*;
pub use oracle::*;
pub use oracle_rows::*;
pub use postgres::*;

/// Gives shared code access to the parameters that several actions have in
/// common, while each action has a distinct type.
macro_rules! deref_to_parameters {
    ($($action:ident => $parameters:ident),* $(,)?) => {$(
        impl std::ops::Deref for $action {
            type Target = $parameters;

            fn deref(&self) -> &$parameters {
                &self.0
            }
        }
    )*};
}
use deref_to_parameters;

pub(crate) mod defaults {
    pub fn durable() -> bool {
        true
    }
    pub fn compared_by_digest() -> bool {
        true
    }
    pub fn unit_secs() -> u64 {
        60
    }
    pub fn process_secs() -> u64 {
        30
    }
    pub fn http_ok() -> u16 {
        200
    }
    pub fn check_secs() -> u64 {
        60
    }
    pub fn command_secs() -> u64 {
        60
    }
    pub fn transaction_secs() -> u64 {
        300
    }
    pub fn finalize_secs() -> u64 {
        600
    }
    pub fn jobs_secs() -> u64 {
        120
    }
    pub fn stable_secs() -> u64 {
        5
    }
    pub fn sessions_secs() -> u64 {
        120
    }
    pub fn marker_secs() -> u64 {
        300
    }
    pub fn control_schema() -> String {
        "public".to_owned()
    }
    pub fn sequence_margin() -> u64 {
        1000
    }
    pub fn dms_secs() -> u64 {
        300
    }
    pub fn missing_data() -> String {
        "breaching".to_owned()
    }
}

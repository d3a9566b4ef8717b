//! The catalogue of actions: one parameter type for each action, which says
//! its name, its parameters and its outputs.
//!
//! A plan is checked against these types, the agent decodes into them, and
//! the JSON Schema and `docs/actions.md` are made from them. Durations are
//! whole seconds (`…_secs`) unless a name says otherwise. Text of the form
//! `${step-id.output}` may stand wherever a value is expected in a plan; the
//! release brings the outputs, and the agent puts them in before an action
//! gets its parameters.

mod dms;
mod host;
mod oracle;
mod postgres;

pub use dms::*;
pub use host::*;
pub use oracle::*;
pub use postgres::*;

/// Lets the code that several actions share read the parameters that they
/// have in common. Each action still has a type of its own, so that none is
/// taken for another.
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

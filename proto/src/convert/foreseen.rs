//! The outputs that a preflight foresees, as JSON: empty text if there are none.

use super::{Result, json, text};
use lockstep_barrier::ids::StepId;
use lockstep_barrier::resolved_plan::Outputs;
use serde::Serialize;
use std::collections::BTreeMap;

/// Foreseen outputs of one task.
///
/// # Errors
/// [`super::Invalid::Json`].
pub fn foreseen_outputs(json_text: &str) -> Result<Outputs> {
    json("outputs_json", json_text)
}

/// Foreseen outputs by the step that will have them.
///
/// # Errors
/// [`super::Invalid::Json`].
pub fn foreseen_inputs(json_text: &str) -> Result<BTreeMap<StepId, Outputs>> {
    json("inputs_json", json_text)
}

/// Foreseen outputs, of one task or by step, to the wire.
pub fn foreseen<K: Serialize, V: Serialize>(outputs: &BTreeMap<K, V>) -> String {
    if outputs.is_empty() {
        return String::new();
    }
    text(outputs)
}

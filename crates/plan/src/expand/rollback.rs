//! The default way back: phases in reverse order, in each the undo of its
//! undoable steps in reverse order.

use super::phase;
use crate::model::{OnFailure, Party, Phase, Step};
use std::collections::BTreeMap;

/// The way back from `phases`. What lies at or behind the point of no return
/// is not undone.
pub(super) fn reversed(phases: &[Phase], parties: &BTreeMap<String, Party>) -> Vec<Phase> {
    let undone = phases
        .iter()
        .take_while(|phase| !phase.point_of_no_return)
        .collect::<Vec<_>>();
    undone
        .into_iter()
        .rev()
        .filter_map(|forward| {
            let steps: Vec<Step> = forward
                .steps
                .iter()
                .rev()
                .filter(|step| step.undoable)
                .map(Step::undo)
                .collect();
            (!steps.is_empty()).then(|| {
                phase(
                    &format!("undo-{}", forward.name),
                    OnFailure::Hold,
                    parties,
                    steps,
                )
            })
        })
        .collect()
}

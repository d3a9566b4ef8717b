//! The default rollback: phases in reverse order, each with the undos of its
//! undoable steps in reverse order.

use super::phase;
use crate::model::{OnFailure, Party, Phase, Step};
use std::collections::BTreeMap;

/// The rollback of `phases`. Phases from the point of no return on are not
/// undone.
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

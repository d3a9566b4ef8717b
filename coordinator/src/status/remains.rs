//! What an abort of a run would leave changed.

use lockstep_barrier::coordinator::State;
use lockstep_barrier::ids::PhaseRef;

/// The tasks of a phase that have changed, or may have changed, something which is not
/// undone, with what that means. Empty after the run's end.
pub(super) fn of_phase(state: &State, at: PhaseRef, standard: &str) -> String {
    if state.ended.is_some() {
        return String::new();
    }
    let tasks: Vec<String> = state
        .still_changed()
        .filter_map(|key| {
            let task = state.tasks.get(key).filter(|task| task.phase == at)?;
            let (step, agent) = key;
            let open = if task.is_open() { " (still open)" } else { "" };
            Some(format!("{step} on {agent}{open}"))
        })
        .collect();
    let tasks = tasks.join(", ");
    match consequence(standard) {
        Some(consequence) if !tasks.is_empty() => format!("{consequence}: {tasks}"),
        Some(_) | None => tasks,
    }
}

/// What the changes of a standard phase mean for the systems as long as they remain.
fn consequence(standard: &str) -> Option<&'static str> {
    Some(match standard {
        "stop-applications" => "the applications stay stopped",
        "close-oracle" => "Oracle stays closed to the applications",
        "stop-dms" => "the forward task stays stopped",
        "reverse-task" => "the reverse task and what was changed for it remain",
        "open-postgres" => "PostgreSQL stays open to the applications",
        "start-applications" => "the applications stay on PostgreSQL",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::outcome::tests::{at, executed, failure, folded};
    use lockstep_barrier::ids::Track;
    use lockstep_barrier::message::Outcome;

    #[test]
    fn what_an_abort_leaves_is_named_with_its_meaning() {
        let forward = |index| at(Track::Forward, index);
        let mut records = executed(forward(0), "proof", Outcome::Done);
        records.extend(executed(forward(1), "one", Outcome::Done));
        records.extend(executed(forward(2), "two", Outcome::Unchanged));
        records.extend(executed(forward(3), "three", failure()));
        let state = folded(records);
        let left = |index, standard| of_phase(&state, forward(index), standard);
        assert_eq!(left(0, "close-oracle"), "");
        assert_eq!(
            left(1, "close-oracle"),
            "Oracle stays closed to the applications: one on a"
        );
        assert_eq!(left(2, "stop-dms"), "");
        assert_eq!(left(3, "three"), "three on a");
    }
}

//! The write outage, and what of it the actions don't account for.
//!
//! The outage is the clients' own: no order was acknowledged to anybody. The
//! critical path of the actions is, phase by phase, the longest agent's sum of
//! task times; of a phase that lies only partly inside the outage no more
//! counts than that part. What is left is what Lockstep adds: barriers,
//! journals, messages, and the clients' own way back to work.

use super::Verdict;
use super::product::{PhaseStatus, RunStatus};

/// From the last commit before the outage to the first after it, milliseconds
/// since 1970. After a run that left the applications with Oracle it is the
/// longest pause around it; none while they stand still.
pub(super) fn of(run: &RunStatus, verdict: &Verdict) -> Option<(i64, i64)> {
    if verdict.write_outage_ms.is_some() {
        return verdict
            .last_on_oracle_epoch_ms
            .zip(verdict.first_on_postgres_epoch_ms);
    }
    let over = ["completed", "rolled-back", "failed", "aborted"];
    if !over.contains(&run.outcome.as_str()) {
        return None;
    }
    verdict.pause_from_epoch_ms.zip(verdict.pause_to_epoch_ms)
}

/// The outage less the critical path of the actions inside it.
pub(super) fn overhead((from, to): (i64, i64), phases: &[PhaseStatus]) -> u64 {
    let inside = phases.iter().map(|phase| {
        let Some(released) = epoch_ms(phase.released_at.as_deref()) else {
            return 0;
        };
        let completed = epoch_ms(phase.completed_at.as_deref()).unwrap_or(to);
        let part = completed.min(to) - released.max(from);
        critical_path(phase).min(part).max(0)
    });
    u64::try_from(to - from - inside.sum::<i64>()).unwrap_or_default()
}

/// The longest chain of tasks of one agent.
fn critical_path(phase: &PhaseStatus) -> i64 {
    let chain = |agent: &str| {
        let own = phase.tasks.iter().filter(|task| task.agent == agent);
        own.map(|task| task.took_ms).sum::<u64>()
    };
    let longest = phase.tasks.iter().map(|task| chain(&task.agent)).max();
    i64::try_from(longest.unwrap_or_default()).unwrap_or(i64::MAX)
}

fn epoch_ms(text: Option<&str>) -> Option<i64> {
    let at: jiff::Timestamp = text?.parse().ok()?;
    Some(at.as_millisecond())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rehearsal::TaskStatus;

    fn phase(released: i64, completed: i64, tasks: &[(&str, u64)]) -> PhaseStatus {
        let at = |ms| Some(jiff::Timestamp::from_millisecond(ms).unwrap().to_string());
        PhaseStatus {
            released_at: at(released),
            completed_at: at(completed),
            tasks: tasks
                .iter()
                .map(|(agent, ms)| TaskStatus {
                    agent: (*agent).to_owned(),
                    took_ms: *ms,
                    ..TaskStatus::default()
                })
                .collect(),
            ..PhaseStatus::default()
        }
    }

    #[test]
    fn the_longest_agent_of_each_phase_is_taken_off_as_far_as_it_is_inside() {
        let phases = [
            // Over before the outage; begun before it; inside; ended after it.
            phase(0, 900, &[("a", 800)]),
            phase(900, 1_200, &[("a", 290)]),
            phase(1_250, 1_500, &[("a", 100), ("b", 200), ("a", 120)]),
            phase(1_550, 9_000, &[("a", 7_000)]),
            // Never released.
            PhaseStatus::default(),
        ];
        // 1,000 less 200, 220 and 450.
        assert_eq!(overhead((1_000, 2_000), &phases), 130);
        assert_eq!(overhead((1_000, 2_000), &[]), 1_000);
    }

    #[test]
    fn a_pause_counts_where_the_applications_stayed_and_write_again() {
        let verdict = Verdict {
            pause_from_epoch_ms: Some(5),
            pause_to_epoch_ms: Some(9),
            ..Verdict::default()
        };
        let run = |outcome: &str| RunStatus {
            outcome: outcome.into(),
            ..RunStatus::default()
        };
        assert_eq!(of(&run("rolled-back"), &verdict), Some((5, 9)));
        assert_eq!(of(&run("waiting"), &verdict), None);
        let switched = Verdict {
            write_outage_ms: Some(7),
            last_on_oracle_epoch_ms: Some(1),
            first_on_postgres_epoch_ms: Some(8),
            ..verdict
        };
        assert_eq!(of(&run("completed"), &switched), Some((1, 8)));
    }
}

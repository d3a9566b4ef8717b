//! The worst cases of a plan against its outage budget.
//!
//! The run rolls back once the budget, less the rollback's reserve, is used up
//! before the point of no return. Whatever only reads or waits is then cancelled; a
//! step that changes something runs on to its own limit, and only then the rollback
//! begins. So the budget holds as long as that limit and the rollback itself fit into
//! the reserve.

use crate::actions::Action;
use crate::check::longest_ms;
use crate::model::{Phase, Plan, Step};
use serde::Serialize;

/// The worst case of a phase within the outage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PhaseWorst {
    pub name: String,
    /// From its preparation until it is complete or has failed.
    pub worst_ms: u64,
    /// From the decision to roll back until the phase lets the rollback begin: the
    /// limits of the steps of one agent that change something. 0 from the point of no
    /// return on, where nothing is rolled back.
    pub delays_rollback_ms: u64,
}

/// The worst cases of a plan with an outage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct WorstCases {
    pub budget_ms: u64,
    pub rollback_reserve_ms: u64,
    /// The phases from the beginning of the outage to its end.
    pub phases: Vec<PhaseWorst>,
    /// If every one of these phases took its whole time.
    pub forward_ms: u64,
    /// If every phase of the rollback took its whole time.
    pub rollback_ms: u64,
}

impl WorstCases {
    /// When a run before the point of no return is rolled back, from the beginning of
    /// the outage.
    pub fn decides_ms(&self) -> u64 {
        self.budget_ms.saturating_sub(self.rollback_reserve_ms)
    }
}

/// The worst cases; none where the plan has no outage, or where its phases are not
/// those of the plan.
pub fn worst_cases(plan: &Plan) -> Option<WorstCases> {
    let outage = plan.outage.as_ref()?;
    let position = |name: &str| plan.phases.iter().position(|phase| phase.name == name);
    let (start, end) = (position(&outage.starts_with)?, position(&outage.ends_with)?);
    let no_return = plan
        .phases
        .iter()
        .position(|phase| phase.point_of_no_return)
        .unwrap_or(usize::MAX);
    let within = plan.phases.get(start..=end)?;
    let phases: Vec<PhaseWorst> = (start..)
        .zip(within)
        .map(|(index, phase)| PhaseWorst {
            name: phase.name.clone(),
            worst_ms: whole(phase),
            delays_rollback_ms: if index < no_return {
                changing_ms(plan, phase)
            } else {
                0
            },
        })
        .collect();
    Some(WorstCases {
        budget_ms: outage.budget_ms,
        rollback_reserve_ms: outage.rollback_reserve_ms,
        forward_ms: sum(phases.iter().map(|phase| phase.worst_ms)),
        rollback_ms: sum(plan.rollback.iter().map(whole)),
        phases,
    })
}

/// A phase is prepared within `start_by` and its tasks have ended by `finish_by`.
fn whole(phase: &Phase) -> u64 {
    phase.start_by_ms.saturating_add(phase.finish_by_ms)
}

fn changing_ms(plan: &Plan, phase: &Phase) -> u64 {
    let changing: Vec<Step> = phase
        .steps
        .iter()
        .filter(|step| Action::find(&step.action).is_some_and(|a| !a.read_only() && !a.watch()))
        .cloned()
        .collect();
    longest_ms(&plan.parties, &changing).min(phase.finish_by_ms)
}

fn sum(all: impl Iterator<Item = u64>) -> u64 {
    all.fold(0, u64::saturating_add)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::{Overrides, check};

    fn plan(budget: &str, reserve: &str) -> Plan {
        let text = format!(
            "kind: Plan\nname: p\nparties:\n  a: {{labels: {{x: y}}, expected: 1}}\n\
             outage: {{budget: {budget}, rollback_reserve: {reserve}, starts_with: one, ends_with: two}}\n\
             phases:\n\
             \x20 - name: before\n    steps:\n\
             \x20     - {{id: look, party: a, action: check.tcp, params: {{address: 'h:1'}}}}\n\
             \x20 - name: one\n    on_failure: rollback\n    start_by: 10s\n    steps:\n\
             \x20     - {{id: wait, party: a, action: check.tcp, params: {{address: 'h:1'}}, timeout: 5m}}\n\
             \x20     - {{id: change, party: a, action: service.stop, params: {{units: [a.service]}}, timeout: 2m}}\n\
             \x20 - name: two\n    start_by: 10s\n    finish_by: 30s\n    steps:\n\
             \x20     - {{id: see, party: a, action: check.tcp, params: {{address: 'h:1'}}, timeout: 20s}}\n"
        );
        let checked = check("p.yaml", &text, &Overrides::default());
        let problems = checked.problems.to_string();
        checked.plan.unwrap_or_else(|| panic!("{problems}"))
    }

    #[test]
    fn waits_are_cancelled_and_changes_delay_the_rollback() {
        let worst = worst_cases(&plan("30m", "10m")).unwrap();
        assert_eq!(worst.decides_ms(), 20 * 60_000);
        let names: Vec<&str> = worst.phases.iter().map(|p| p.name.as_str()).collect();
        assert_eq!(names, ["one", "two"]);
        let one = &worst.phases[0];
        // 10 s to be prepared, 7 min of both steps, and the barrier.
        assert_eq!(one.worst_ms, 10_000 + 7 * 60_000 + 15_000);
        assert_eq!(one.delays_rollback_ms, 2 * 60_000);
        let two = &worst.phases[1];
        assert_eq!((two.worst_ms, two.delays_rollback_ms), (40_000, 0));
        assert_eq!(worst.forward_ms, one.worst_ms + two.worst_ms);
        assert!(worst.rollback_ms > 0);
    }
}

//! Before a cutover begins, every agent looks at every task of the way
//! forward.
//!
//! Most tasks are probed again when their phase is prepared, but that is in the
//! middle of the outage for all that comes behind the fence. What stands in
//! the way then has mostly stood there all the time: a wrong name, a missing
//! right. Such a plan doesn't begin.
//!
//! Other kinds of plans are not looked at first: a step of theirs may well
//! make what a later one needs.

use crate::handle::{Handle, Refusal, RefusalKind};
use crate::preflights::ANSWERS;
use lockstep_plan::Plan;
use lockstep_plan::model::Kind;
use lockstep_proto::v1;
use std::time::Duration;
use tokio::sync::mpsc;
use tonic::Status;

/// How long all agents together may look; each has a limit for each of its
/// tasks, and they look side by side.
const LIMIT: Duration = Duration::from_secs(300);
/// Obstacles that a refusal names. It travels in a header of bounded size, and
/// the preflight shows all of them.
const NAMED: usize = 10;

/// Bytes of each of them: all that are named fit into the refusal.
const OBSTACLE_LIMIT: usize = 350;

/// Refuses a plan with an obstacle; nothing has been changed anywhere.
///
/// # Errors
/// What stands in the way, by agent and step; or that an agent is silent.
pub async fn look_first(handle: &Handle, document: &v1::PlanDocument) -> Result<(), Status> {
    let cutover = Plan::from_json(&document.plan_json).is_ok_and(|plan| plan.kind == Kind::Cutover);
    if !cutover {
        return Ok(());
    }
    let (answers, mut parts) = mpsc::channel(ANSWERS);
    handle.preflight(document.clone(), answers).await?;
    let mut obstacles = Vec::new();
    let collect = async {
        while let Some(part) = parts.recv().await {
            obstacles.extend(obstacles_of(part?));
        }
        Ok::<(), Status>(())
    };
    match tokio::time::timeout(LIMIT, collect).await {
        Ok(collected) => collected?,
        Err(_) => obstacles.push(format!(
            "not every agent has answered within {} s",
            LIMIT.as_secs()
        )),
    }
    if obstacles.is_empty() {
        return Ok(());
    }
    Err(Refusal::new(RefusalKind::Precondition, refusal(&obstacles)).into())
}

fn obstacles_of(part: v1::PreflightResponse) -> Vec<String> {
    let agent = part.agent;
    let of_tasks = part.tasks.into_iter().flat_map(|task| {
        let place = format!("{agent} {}", task.step_id);
        task.obstacles
            .into_iter()
            .map(move |obstacle| format!("{place}: {obstacle}"))
    });
    part.obstacles.into_iter().chain(of_tasks).collect()
}

fn refusal(obstacles: &[String]) -> String {
    let named = obstacles.iter().take(NAMED).map(|obstacle| {
        let end = obstacle.floor_char_boundary(OBSTACLE_LIMIT);
        let cut = if end < obstacle.len() { "…" } else { "" };
        format!("{}{cut}", &obstacle[..end])
    });
    let named: Vec<String> = named.collect();
    let more = match obstacles.len().saturating_sub(NAMED) {
        0 => String::new(),
        more => format!("; and {more} more"),
    };
    format!(
        "LS4316: obstacles stand in the way of this plan, and nothing was started: {}{more}; \
         lockstep preflight shows all there is to see",
        named.join("; ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_names_agent_and_step_and_stays_short() {
        let task = |step: &str, obstacles: &[&str]| v1::PreflightTask {
            step_id: step.to_owned(),
            obstacles: obstacles.iter().map(|&text| text.to_owned()).collect(),
            ..Default::default()
        };
        let part = v1::PreflightResponse {
            agent: "ora-1".to_owned(),
            tasks: vec![task("listeners", &[]), task("accounts", &["no SHOPP"; 12])],
            obstacles: vec![],
        };
        let obstacles = obstacles_of(part);
        assert_eq!(obstacles.len(), 12);
        let text = refusal(&obstacles);
        assert!(text.contains("ora-1 accounts: no SHOPP; "), "{text}");
        assert!(text.contains("; and 2 more; lockstep preflight"), "{text}");
    }
}

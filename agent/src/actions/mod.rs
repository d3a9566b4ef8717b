//! The actions: one file each, by the area they work in.

use crate::action::{ActionError, AnyAction};
use lockstep_api::Code;

mod check;
mod cloudwatch;
mod config;
mod cron;
mod dms;
mod oracle;
mod postgres;
mod process;
mod service;

/// The action of that name.
pub fn find(name: &str) -> Option<&'static dyn AnyAction> {
    ACTIONS.iter().copied().find(|action| action.name() == name)
}

/// Every action of the plan's table. The parameter type of each gives its
/// name.
const ACTIONS: &[&dyn AnyAction] = &[
    &check::command::Check,
    &check::http::Http,
    &check::state::State,
    &check::tcp::Tcp,
    &cloudwatch::Put,
    &check::command::Run,
    &config::Switch,
    &cron::Disable,
    &cron::Restore,
    &dms::connection_test::Test,
    &dms::reverse_create::Create,
    &dms::reverse_delete::Delete,
    &dms::reverse_start::Start,
    &dms::task_drain::Drain,
    &dms::task_ready::Ready,
    &dms::task_resume::Resume,
    &dms::task_stop::Stop,
    &oracle::accounts::Lock,
    &oracle::accounts::Restore,
    &oracle::canary::Await,
    &oracle::columns::Describe,
    &oracle::freeze::Persist,
    &oracle::fence_verify::FenceVerify,
    &oracle::fence_watch::FenceWatch,
    &oracle::finalize::Finalize,
    &oracle::jobs::Disable,
    &oracle::jobs::Restore,
    &oracle::listener::Start,
    &oracle::listener::Stop,
    &oracle::marker::Write,
    &oracle::logins::Open,
    &oracle::logins::Restrict,
    &oracle::redo_logs::Ready,
    &oracle::queue_monitor::Disable,
    &oracle::queue_monitor::Restore,
    &oracle::ready::Ready,
    &oracle::rows::Digest,
    &oracle::sessions::Drain,
    &oracle::sessions::Kill,
    &oracle::triggers::Disable,
    &oracle::triggers::Restore,
    &oracle::unchanged::Unchanged,
    &postgres::analyze::Analyze,
    &postgres::canary_write::Write,
    &postgres::columns_verify::Verify,
    &postgres::drain_check::Check,
    &postgres::jobs::Disable,
    &postgres::jobs::Restore,
    &postgres::marker_await::Await,
    &postgres::ready::Ready,
    &postgres::roles::Close,
    &postgres::roles::Open,
    &postgres::roles::Verify,
    &postgres::rows_verify::Verify,
    &postgres::sequences_align::Align,
    &postgres::triggers::Enable,
    &postgres::triggers::Restore,
    &process::Stop,
    &service::restart::Restart,
    &service::start::Start,
    &service::stop::Stop,
];

/// Sentences shown of a list: enough to know whom to ask, short enough to read.
const MAX_LISTED: usize = 20;

/// The first sentences of a list, and how many more there are.
fn truncate_list(mut sentences: Vec<String>) -> Vec<String> {
    let more = sentences.len().saturating_sub(MAX_LISTED);
    if more > 0 {
        sentences.truncate(MAX_LISTED);
        sentences.push(format!("and {more} more"));
    }
    sentences
}

/// One error for the failures of several items: a single failure as it is,
/// several under a code of their own that lists each.
fn combine_errors(
    mut failures: Vec<ActionError>,
    code: Code,
    what: &str,
) -> Result<(), ActionError> {
    if failures.len() < 2 {
        return failures.pop().map_or(Ok(()), Err);
    }
    let stories: Vec<String> = failures.iter().map(ActionError::report).collect();
    Err(ActionError::new(code, format!("{} {what}", failures.len()))
        .state_left(truncate_list(stories).join("; "))
        .remedy("fix them and retry; the others are restored"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn the_agent_implements_exactly_the_actions_of_the_plan() {
        let here: BTreeSet<&str> = ACTIONS.iter().map(|action| action.name()).collect();
        assert_eq!(here.len(), ACTIONS.len(), "an action is registered twice");
        let planned = lockstep_plan::actions::ACTIONS.iter();
        assert_eq!(here, planned.map(|action| action.name).collect());
    }

    #[test]
    fn long_lists_are_truncated_and_say_so() {
        let list = |count: usize| (0..count).map(|at| at.to_string()).collect::<Vec<_>>();
        assert_eq!(truncate_list(list(MAX_LISTED)), list(MAX_LISTED));
        let cut = truncate_list(list(MAX_LISTED + 3));
        assert_eq!(cut.len(), MAX_LISTED + 1);
        assert_eq!(cut[MAX_LISTED], "and 3 more");
    }

    #[test]
    fn one_failure_is_returned_as_it_is_and_several_are_all_listed() {
        let failure = |what: &str| ActionError::new(Code::LS2203, what);
        let of = |failures| combine_errors(failures, Code::LS2215, "listeners are not back");
        assert!(of(vec![]).is_ok());
        assert_eq!(of(vec![failure("a")]).unwrap_err().code(), Code::LS2203);
        let both = of(vec![failure("a"), failure("b")]).unwrap_err().report();
        assert!(
            both.starts_with("LS2215: 2 listeners are not back"),
            "{both}"
        );
        assert!(
            both.contains("LS2203: a") && both.contains("LS2203: b"),
            "{both}"
        );
    }
}

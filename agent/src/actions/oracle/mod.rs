//! What is done in and around an Oracle database.
//!
//! Statements are constants or are made of quoted names and of numbers that
//! Oracle itself gave; nothing else from a plan becomes SQL text.

pub mod accounts;
pub mod canary;
pub mod closed;
mod dms_door;
mod fence;
pub mod fence_verify;
pub mod fence_watch;
pub mod finalize;
pub mod jobs;
mod kept;
pub mod listener;
mod listeners;
pub mod logins;
pub mod logs;
mod names;
mod neighbours;
mod other_tables;
mod parameters;
pub mod queue_monitor;
pub mod ready;
pub mod rows;
pub mod sessions;
mod spare;
pub mod triggers;

use crate::action::ActionError;
use crate::policy::Need;
use std::time::Duration;

/// Between two looks at what is waited for: short against any outage budget,
/// long against the queries themselves.
const LOOK: Duration = Duration::from_millis(250);

/// Sentences shown of a list: enough to know whom to ask, short enough to read.
const SHOWN: usize = 20;

/// The first sentences of a list, and how many there are beyond.
fn few(mut sentences: Vec<String>) -> Vec<String> {
    let more = sentences.len().saturating_sub(SHOWN);
    if more > 0 {
        sentences.truncate(SHOWN);
        sentences.push(format!("and {more} more"));
    }
    sentences
}

/// One error for what failed on the way back: the only one as it is, several
/// under a code of their own with each one's story.
fn together(
    mut failures: Vec<ActionError>,
    code: &'static str,
    what: &str,
) -> Result<(), ActionError> {
    if failures.len() < 2 {
        return failures.pop().map_or(Ok(()), Err);
    }
    let stories: Vec<String> = failures.iter().map(ActionError::story).collect();
    Err(ActionError::new(code, format!("{} {what}", failures.len()))
        .left(few(stories).join("; "))
        .next("mend them and retry; the others are back"))
}

fn needs(resource: &str) -> Vec<Need> {
    vec![Need::Oracle(resource.to_owned())]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_lists_are_cut_and_say_so() {
        let list = |count: usize| (0..count).map(|at| at.to_string()).collect::<Vec<_>>();
        assert_eq!(few(list(SHOWN)), list(SHOWN));
        let cut = few(list(SHOWN + 3));
        assert_eq!(cut.len(), SHOWN + 1);
        assert_eq!(cut[SHOWN], "and 3 more");
    }

    #[test]
    fn one_failure_stands_for_itself_and_several_are_all_told() {
        let failure = |what: &str| ActionError::new("LS2203", what);
        let of = |failures| together(failures, "LS2215", "listeners are not back");
        assert!(of(vec![]).is_ok());
        assert_eq!(of(vec![failure("a")]).unwrap_err().code(), "LS2203");
        let both = of(vec![failure("a"), failure("b")]).unwrap_err().story();
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

//! The table of actions: one file each, by the area they work in.

use crate::action::AnyAction;

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
    ACTIONS
        .iter()
        .find(|(known, _)| *known == name)
        .map(|(_, action)| *action)
}

/// Every action this agent knows.
const ACTIONS: &[(&str, &dyn AnyAction)] = &[
    ("check.command", &check::command::Check),
    ("check.http", &check::http::Http),
    ("check.tcp", &check::tcp::Tcp),
    ("cloudwatch.alarms.put", &cloudwatch::Put),
    ("command.run", &check::command::Run),
    ("config.switch", &config::Switch),
    ("cron.disable", &cron::Disable),
    ("cron.restore", &cron::Restore),
    ("dms.connection.test", &dms::connection_test::Test),
    ("dms.reverse.create", &dms::reverse_create::Create),
    ("dms.reverse.delete", &dms::reverse_delete::Delete),
    ("dms.reverse.start", &dms::reverse_start::Start),
    ("dms.task.drain", &dms::task_drain::Drain),
    ("dms.task.ready", &dms::task_ready::Ready),
    ("dms.task.resume", &dms::task_resume::Resume),
    ("dms.task.stop", &dms::task_stop::Stop),
    ("oracle.accounts.lock", &oracle::accounts::Lock),
    ("oracle.accounts.restore", &oracle::accounts::Restore),
    ("oracle.canary.await", &oracle::canary::Await),
    ("oracle.closed.keep", &oracle::closed::Keep),
    ("oracle.fence.verify", &oracle::fence_verify::FenceVerify),
    ("oracle.fence.watch", &oracle::fence_watch::FenceWatch),
    ("oracle.finalize", &oracle::finalize::Finalize),
    ("oracle.jobs.disable", &oracle::jobs::Disable),
    ("oracle.jobs.restore", &oracle::jobs::Restore),
    ("oracle.listener.start", &oracle::listener::Start),
    ("oracle.listener.stop", &oracle::listener::Stop),
    ("oracle.logins.open", &oracle::logins::Open),
    ("oracle.logins.restrict", &oracle::logins::Restrict),
    ("oracle.logs.ready", &oracle::logs::Ready),
    (
        "oracle.queue_monitor.disable",
        &oracle::queue_monitor::Disable,
    ),
    (
        "oracle.queue_monitor.restore",
        &oracle::queue_monitor::Restore,
    ),
    ("oracle.ready", &oracle::ready::Ready),
    ("oracle.rows.digest", &oracle::rows::Digest),
    ("oracle.sessions.drain", &oracle::sessions::Drain),
    ("oracle.sessions.kill", &oracle::sessions::Kill),
    ("oracle.triggers.disable", &oracle::triggers::Disable),
    ("oracle.triggers.restore", &oracle::triggers::Restore),
    ("postgres.analyze", &postgres::analyze::Analyze),
    ("postgres.canary.write", &postgres::canary_write::Write),
    ("postgres.drain.check", &postgres::drain_check::Check),
    ("postgres.jobs.disable", &postgres::jobs::Disable),
    ("postgres.jobs.restore", &postgres::jobs::Restore),
    ("postgres.marker.await", &postgres::marker_await::Await),
    ("postgres.ready", &postgres::ready::Ready),
    ("postgres.roles.close", &postgres::roles::Close),
    ("postgres.roles.open", &postgres::roles::Open),
    ("postgres.roles.verify", &postgres::roles::Verify),
    ("postgres.rows.verify", &postgres::rows_verify::Verify),
    (
        "postgres.sequences.align",
        &postgres::sequences_align::Align,
    ),
    ("postgres.triggers.enable", &postgres::triggers::Enable),
    ("postgres.triggers.restore", &postgres::triggers::Restore),
    ("process.stop", &process::Stop),
    ("service.restart", &service::restart::Restart),
    ("service.start", &service::start::Start),
    ("service.stop", &service::stop::Stop),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_sorted_and_unique() {
        assert!(ACTIONS.windows(2).all(|pair| pair[0].0 < pair[1].0));
    }
}

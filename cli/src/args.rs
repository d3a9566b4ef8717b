//! The command line as a whole; each command's own options are in its file.

use crate::commands::{agents, pki, plan, preflight, run};
use crate::config::Connection;
use crate::output::Format;
use clap::{Parser, Subcommand};

/// Cut over from Oracle to PostgreSQL, every host in step.
///
/// Exit codes: 0 done, 1 failed, 2 refused input, 3 unreachable, 4 timed out,
/// 5 rolled back, 6 waiting for approval.
#[derive(Debug, Parser)]
#[command(name = "lockstep", version, max_term_width = 100)]
pub struct Arguments {
    /// The form of the output.
    #[arg(short, long, global = true, value_enum, default_value_t)]
    pub output: Format,
    /// What is logged on standard error, such as info or debug.
    #[arg(
        long,
        global = true,
        env = "LOCKSTEP_LOG",
        default_value = "error",
        value_name = "FILTER"
    )]
    pub log: String,
    /// Where the coordinator is, and who we are.
    #[command(flatten, next_help_heading = "Connection")]
    pub connection: Connection,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make and withdraw certificates with a private authority.
    #[command(subcommand)]
    Pki(pki::Command),
    /// Look at plans; no coordinator is asked.
    #[command(subcommand)]
    Plan(plan::Command),
    /// Probe a plan's tasks on the real hosts; nothing is changed.
    Preflight(preflight::Preflight),
    /// Look at agents.
    #[command(subcommand)]
    Agents(agents::Command),
    /// Start runs, look at them and decide about them.
    #[command(subcommand)]
    Run(run::Command),
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }
}

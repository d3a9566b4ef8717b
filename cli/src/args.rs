//! The top level of the command line. The options of each command are defined in
//! its own file.

use crate::commands::{agents, explain, pki, plan, preflight, run};
use crate::config::Connection;
use crate::output::Format;
use clap::{Args, Parser, Subcommand};

/// Cut over from Oracle to PostgreSQL, every host in step.
///
/// Exit codes: 0 done, 1 failed, 2 input refused, 3 coordinator unreachable,
/// 4 timed out, 5 rolled back, 6 waiting at a gate or paused.
#[derive(Debug, Parser)]
#[command(name = "lockstep", version, max_term_width = 100)]
pub struct Arguments {
    /// Output format.
    #[arg(
        short,
        long,
        global = true,
        value_enum,
        default_value_t,
        help_heading = "Global options"
    )]
    pub output: Format,
    /// Log filter for standard error, such as info or debug.
    #[arg(
        long,
        global = true,
        help_heading = "Global options",
        env = "LOCKSTEP_LOG",
        default_value = "error",
        value_name = "FILTER"
    )]
    pub log: String,
    #[command(subcommand)]
    pub command: Command,
}

/// A group of commands that connect to the coordinator.
#[derive(Debug, Args)]
pub struct Connected<C: Subcommand> {
    #[command(flatten, next_help_heading = "Connection")]
    pub connection: Connection,
    #[command(subcommand)]
    pub command: C,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Create and revoke certificates with a private authority.
    #[command(subcommand)]
    Pki(pki::Command),
    /// Check and show plans offline.
    #[command(subcommand)]
    Plan(plan::Command),
    /// Probe the tasks of a plan on their hosts, without changing anything.
    Preflight(preflight::Preflight),
    /// List, show and accept agents.
    Agents(Connected<agents::Command>),
    /// Start, watch and control runs.
    Run(Connected<run::Command>),
    /// Explain an error code, or list all codes; works offline.
    Explain(explain::Explain),
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn only_commands_that_connect_take_a_coordinator() {
        let accepts = |command: &[&str], options: &[&str]| {
            let line = ["lockstep"].iter().chain(command).chain(options);
            Arguments::try_parse_from(line).is_ok()
        };
        let cases: [(&[&str], bool); 6] = [
            (&["run", "list"], true),
            (&["agents", "list"], true),
            (&["preflight", "plan.yaml"], true),
            (&["explain"], false),
            (&["plan", "schema"], false),
            (&["pki", "init", "--trust-domain", "example.org"], false),
        ];
        for (command, connects) in cases {
            assert!(accepts(command, &[]), "{command:?}");
            let with_address = accepts(command, &["--coordinator", "https://c:1"]);
            assert_eq!(with_address, connects, "{command:?}");
        }
    }
}

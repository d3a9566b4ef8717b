//! Carries out a whole cutover on the rehearsal range and judges it.
//!
//! Exit code 0 when the run ended as it should (completed, or rolled back
//! where a fault was asked for), no order was lost or doubled, and every step
//! was seen; 1 otherwise.

use clap::Parser;
use lockstep_tests::range::layout::Layout;
use lockstep_tests::range::{Error, Options};
use lockstep_tests::rehearsal::{self, Fault, Kill, Settings};
use std::path::PathBuf;
use std::process::ExitCode;

/// Rehearse a cutover from Oracle to PostgreSQL on this machine.
#[derive(Debug, Parser)]
#[command(name = "rehearse", version)]
struct Arguments {
    /// Leave the range up; the next rehearsal ends it.
    #[arg(long)]
    keep: bool,
    /// Application hosts.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(3..=50))]
    apps: u8,
    /// Orders a second, all application hosts together.
    #[arg(long, default_value_t = 210, value_parser = clap::value_parser!(u32).range(1..=5000))]
    rate: u32,
    /// Orders to be acknowledged before the run starts.
    #[arg(long, default_value_t = 2000)]
    orders: u64,
    /// Another plan than the rehearsal's own.
    #[arg(long, value_parser = readable)]
    plan: Option<PathBuf>,
    /// Make something in the range fail in this phase, to see the rollback.
    #[arg(long, value_name = "PHASE")]
    fault: Option<Fault>,
    /// Kill a daemon while a step is at work, and start it again:
    /// `coordinator:STEP`, or `HOST:STEP` for the agent of a host; with `:TEXT`
    /// once the step has said that.
    #[arg(long, value_name = "WHO:STEP[:TEXT]")]
    kill: Option<Kill>,
    /// A landscape as companies have it: DMS takes tens of seconds to start and stop,
    /// metrics come late, another database uses the listener, and units depend on
    /// each other.
    #[arg(long)]
    realistic: bool,
    /// Where the report goes.
    #[arg(long)]
    report: Option<PathBuf>,
    /// No run: only the range, the applications and the replication.
    #[arg(long)]
    range_only: bool,
}

/// A plan that can't be read is refused before the range is started for it.
fn readable(path: &str) -> Result<PathBuf, String> {
    std::fs::read_to_string(path)
        .map(|_| PathBuf::from(path))
        .map_err(|error| format!("can't be read: {error}"))
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let report = arguments
        .report
        .unwrap_or_else(|| Layout::of_this_checkout().rehearsal.join("report.json"));
    let settings = Settings {
        range: Options {
            apps: arguments.apps,
            rate: arguments.rate,
            product: !arguments.range_only,
            realistic: arguments.realistic,
            links: false,
        },
        orders: arguments.orders,
        plan: arguments.plan,
        fault: arguments.fault,
        kill: arguments.kill,
        report,
        keep: arguments.keep,
    };
    if let Err(error) = rehearsal::end_on_signals() {
        eprintln!("cannot listen for signals: {error}");
        return ExitCode::FAILURE;
    }
    match rehearsal::rehearse(&settings) {
        Ok(report) if report.is_good() => ExitCode::SUCCESS,
        Ok(_) => {
            eprintln!("the report is in {}", settings.report.display());
            ExitCode::FAILURE
        }
        Err(error) => {
            print_chain(&error);
            ExitCode::FAILURE
        }
    }
}

fn print_chain(error: &Error) {
    eprintln!("{error}");
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        eprintln!("  because: {inner}");
        cause = inner.source();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_that_cannot_be_read_is_refused_by_name() {
        let parse = |plan: &str| Arguments::try_parse_from(["rehearse", "--plan", plan]);
        let own = concat!(env!("CARGO_MANIFEST_DIR"), "/range/plans/rehearsal.yaml");
        assert_eq!(parse(own).unwrap().plan, Some(PathBuf::from(own)));
        let refused = parse("missing.yaml").unwrap_err().to_string();
        assert!(refused.contains("missing.yaml"), "{refused}");
        assert!(refused.contains("can't be read"), "{refused}");
        assert!(parse(env!("CARGO_MANIFEST_DIR")).is_err(), "a directory");
    }
}

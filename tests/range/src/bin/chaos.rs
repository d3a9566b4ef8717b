//! Runs cutovers and restarts on the rehearsal range under random kills, stops and
//! cuts, with a scripted operator.
//!
//! Exit code 0 when every run ended, no order was lost, doubled or written to Oracle
//! after the fence, and every rollback restored everything; 1 otherwise. A bad run
//! prints the command that repeats it.

use clap::Parser;
use lockstep_tests::range::Error;
use lockstep_tests::range::layout::Layout;
use lockstep_tests::rehearsal::chaos::{self, Record};
use lockstep_tests::rehearsal::end_on_signals;
use std::process::ExitCode;

/// Run cutovers and restarts under random trouble.
#[derive(Debug, Parser)]
#[command(name = "chaos", version)]
struct Arguments {
    /// How many runs.
    #[arg(long, default_value_t = 10)]
    runs: u64,
    /// Seed of the first run; each further run has the next number. Without it, the
    /// time.
    #[arg(long)]
    seed: Option<u64>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if let Err(error) = end_on_signals() {
        eprintln!("cannot listen for signals: {error}");
        return ExitCode::FAILURE;
    }
    let now = u64::try_from(jiff::Timestamp::now().as_second()).unwrap_or_default();
    let first = arguments.seed.unwrap_or(now);
    match all(first, arguments.runs) {
        Ok(records) => {
            println!("{}", summary(&records));
            if records.iter().all(|record| record.end.wrong.is_empty()) {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            }
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn all(first: u64, runs: u64) -> Result<Vec<Record>, Error> {
    let links = chaos::links()?;
    let path = Layout::of_this_checkout().rehearsal.join("chaos.json");
    let mut records = Vec::new();
    for seed in first..first.saturating_add(runs) {
        println!("run with seed {seed}");
        let record = chaos::run(seed, &links)?;
        println!("{}", line(&record));
        for wrong in &record.end.wrong {
            println!("  WRONG: {wrong}");
            println!("  repeat with: make chaos RUNS=1 SEED={seed}");
        }
        records.push(record);
        let text = serde_json::to_string_pretty(&records).unwrap_or_default();
        if let Some(dir) = path.parent() {
            std::fs::create_dir_all(dir).map_err(Error::file("create", dir))?;
        }
        std::fs::write(&path, text).map_err(Error::file("write", &path))?;
    }
    Ok(records)
}

fn line(record: &Record) -> String {
    let end = &record.end;
    let verbs = if record.verbs.is_empty() {
        "no operator".to_owned()
    } else {
        record.verbs.join(", ")
    };
    format!(
        "seed {} {:?} strikes {} -> {} in {:.1} s; {verbs}; lost {}, duplicated {}, after the \
         fence {}, not restored {}",
        record.schedule.seed,
        record.schedule.subject,
        record.schedule.strikes.len(),
        end.outcome,
        record.took_ms as f64 / 1000.0,
        end.lost,
        end.duplicated,
        end.after_fence,
        end.leftovers.len(),
    )
}

fn summary(records: &[Record]) -> String {
    let count = |is: &dyn Fn(&Record) -> bool| records.iter().filter(|record| is(record)).count();
    let sum = |of: &dyn Fn(&Record) -> u64| records.iter().map(of).sum::<u64>();
    format!(
        "{} runs: {} ended, {} without the operator; lost {}, duplicated {}, after the fence {}; \
         {} wrong",
        records.len(),
        count(&|record| record.end.outcome != "stuck"),
        count(&|record| record.verbs.is_empty()),
        sum(&|record| record.end.lost),
        sum(&|record| record.end.duplicated),
        sum(&|record| record.end.after_fence),
        count(&|record| !record.end.wrong.is_empty()),
    )
}

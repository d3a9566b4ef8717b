//! `lockstep`: the operator's command for plans, runs, agents and certificates.
//!
//! The command has no state of its own. It reads files, sends requests to the
//! coordinator and prints the responses. Its exit code tells how the request ended
//! (see [`args::Arguments`]); a failure is one error on standard error.

mod args;
mod commands;
mod config;
mod coordinator;
mod failure;
mod output;
mod plan_file;
mod view;

use args::Arguments;
use clap::Parser;
use lockstep_telemetry::TelemetryConfig;
use output::Format;
use std::process::ExitCode;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    lockstep_pki::install_provider();
    let logs = TelemetryConfig {
        log: arguments.log.clone(),
        ..TelemetryConfig::default()
    };
    let format = arguments.output;
    let outcome = match lockstep_telemetry::init("lockstep", &logs) {
        Ok(_guard) => Box::pin(commands::execute(arguments)).await,
        Err(error) => Err(failure::Failure::of(
            failure::CONFIGURATION,
            lockstep_api::Exit::Refused,
            &error,
        )),
    };
    match outcome {
        Ok(exit) => exit.into(),
        Err(failure) => {
            match format {
                Format::Table => output::report(&failure.text()),
                Format::Json | Format::Jsonl => output::report(&format!("{}\n", failure.json())),
            }
            failure.exit().into()
        }
    }
}

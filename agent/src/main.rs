//! `lockstep-agent`: see the crate's documentation and `docs/operating.md`.

use clap::Parser;
use lockstep_agent::config::{Config, DAEMON};
use lockstep_agent::driver::Driver;
use lockstep_agent::host::{Host, oracle};
use lockstep_agent::store::Store;
use lockstep_agent::{config_watch, session};
use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

/// Runs on this host the actions that the coordinator orders and that this
/// host's own policy allows.
#[derive(Parser)]
#[command(name = "lockstep-agent", version)]
struct Arguments {
    /// The configuration file.
    #[arg(long, default_value = "/etc/lockstep/agent.toml")]
    config: PathBuf,
}

fn main() -> ExitCode {
    lockstep_pki::install_provider();
    let arguments = Arguments::parse();
    lockstep_daemon::exit(&DAEMON, start(&arguments))
}

fn start(arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    let file = std::path::absolute(&arguments.config)?;
    let config = Config::load(&file)?;
    // SAFETY: the runtime below starts the process's first threads.
    unsafe { oracle::set_environment(&config) };
    // Two threads: one for the loop and the session, one for what blocks. An
    // idle agent must cost its host next to nothing.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let outcome = runtime.block_on(run(config, file));
    runtime.shutdown_timeout(std::time::Duration::from_secs(1));
    outcome
}

async fn run(config: Config, file: PathBuf) -> Result<(), Box<dyn Error>> {
    let _telemetry = lockstep_telemetry::init("lockstep-agent", &(&config.telemetry).into())?;
    let credentials = DAEMON.credentials(&config.tls, &config.name)?;
    let store = Store::open(&config.state_dir)?;
    let address = config.coordinator.clone();
    let (driver, handle) = Driver::start(Arc::new(Host::new(config)), store)?;
    let session = tokio::spawn(session::run(address, credentials, handle.clone()));
    tokio::spawn(config_watch::watch(file, handle.clone())?);
    let shutdown = lockstep_daemon::shutdown_requested()?;
    tokio::spawn(async move {
        shutdown.await;
        handle.stop().await;
    });
    let outcome = driver.run().await;
    session.abort();
    Ok(outcome?)
}

//! `lockstep-agent`: see the crate's documentation and `docs/operating.md`.

use clap::Parser;
use lockstep_agent::config::Config;
use lockstep_agent::driver::Driver;
use lockstep_agent::host::{Host, oracle};
use lockstep_agent::session;
use lockstep_agent::store::Store;
use lockstep_pki::{Role, SectionError};
use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use tokio::signal::unix::{SignalKind, signal};

/// Carries out on this host what the coordinator orders and this host's own
/// policy allows.
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
    match start(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!(
                "lockstep-agent: {}",
                lockstep_telemetry::error_chain(error.as_ref())
            );
            ExitCode::FAILURE
        }
    }
}

fn start(arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    let config = Config::load(&arguments.config)?;
    // SAFETY: the runtime below starts the process's first threads.
    unsafe { oracle::set_environment(&config) };
    // Two threads: one for the loop and the session, one for what blocks. An
    // idle agent must cost its host next to nothing.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let outcome = runtime.block_on(run(config));
    runtime.shutdown_timeout(std::time::Duration::from_secs(1));
    outcome
}

async fn run(config: Config) -> Result<(), Box<dyn Error>> {
    let _telemetry = lockstep_telemetry::init("lockstep-agent", &(&config.telemetry).into())?;
    let credentials = config
        .tls
        .follow(Role::Agent, &config.name)
        .map_err(identity)?;
    let store = Store::open(&config.state_dir)?;
    let address = config.coordinator.clone();
    let (driver, handle) = Driver::start(Arc::new(Host::new(config)), store)?;
    let session = tokio::spawn(session::run(address, credentials, handle.clone()));
    let (mut interrupt, mut terminate) = (
        signal(SignalKind::interrupt())?,
        signal(SignalKind::terminate())?,
    );
    tokio::spawn(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        handle.stop().await;
    });
    let outcome = driver.run().await;
    session.abort();
    Ok(outcome?)
}

/// A certificate of somebody else has a code of its own.
fn identity(error: SectionError) -> Box<dyn Error> {
    match error {
        SectionError::Credentials(error) => error.into(),
        foreign @ SectionError::Foreign { .. } => format!("LS3004: {foreign}").into(),
    }
}

//! `lockstep-coordinator`: see the crate's documentation and
//! `docs/operating.md`.

use clap::Parser;
use lockstep_coordinator::config::Config;
use lockstep_coordinator::driver::Driver;
use lockstep_coordinator::grpc;
use lockstep_coordinator::store::Store;
use lockstep_pki::{Listener, ListenerOptions, Role, SectionError};
use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;

/// Sequences runs across agents.
#[derive(Parser)]
#[command(name = "lockstep-coordinator", version)]
struct Arguments {
    /// The configuration file.
    #[arg(long, default_value = "/etc/lockstep/coordinator.toml")]
    config: PathBuf,
    /// Lead above the term of another coordinator that agents have accepted.
    /// Only after that coordinator is certainly stopped.
    #[arg(long)]
    take_over: bool,
}

#[tokio::main]
async fn main() -> ExitCode {
    lockstep_pki::install_provider();
    let arguments = Arguments::parse();
    match run(&arguments).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let chain = lockstep_telemetry::error_chain(error.as_ref());
            eprintln!("lockstep-coordinator: {chain}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    let config = Config::load(&arguments.config)?;
    let _telemetry = lockstep_telemetry::init("lockstep-coordinator", &(&config.telemetry).into())?;
    let credentials = config
        .tls
        .follow(Role::Coordinator, &config.name)
        .map_err(identity)?;
    let store = Store::open(&config.state_dir)?;
    let (driver, handle) = Driver::start(config.name.clone(), store, arguments.take_over)?;
    let listener = Listener::bind(config.listen, credentials, ListenerOptions::default())
        .map_err(|e| format!("LS4003: {} can't be listened on: {e}", config.listen))?;
    tracing::info!(address = %listener.local_addr()?, "serving");
    let (stop, stopped) = oneshot::channel::<()>();
    let serving = tokio::spawn(grpc::serve(listener, handle.clone(), async {
        let _ = stopped.await;
    }));
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
    drop(stop);
    // This cuts the sessions: agents reconnect to the next coordinator.
    serving.abort();
    Ok(outcome?)
}

/// A certificate with another identity has a code of its own.
fn identity(error: SectionError) -> Box<dyn Error> {
    match error {
        SectionError::Credentials(error) => error.into(),
        foreign @ SectionError::Foreign { .. } => format!("LS4004: {foreign}").into(),
    }
}

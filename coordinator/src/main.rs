//! `lockstep-coordinator`: see the crate's documentation and
//! `docs/operating.md`.

use clap::Parser;
use lockstep_coordinator::config::{Config, DAEMON};
use lockstep_coordinator::driver::Driver;
use lockstep_coordinator::grpc;
use lockstep_coordinator::store::Store;
use lockstep_pki::{Listener, ListenerOptions};
use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;
use tokio::sync::oneshot;

/// Sequences runs across agents.
#[derive(Parser)]
#[command(name = "lockstep-coordinator", version)]
struct Arguments {
    /// The configuration file.
    #[arg(long, default_value = "/etc/lockstep/coordinator.toml")]
    config: PathBuf,
    /// Take over from another coordinator whose orders agents have accepted.
    /// Use it only when that coordinator has certainly stopped.
    #[arg(long)]
    take_over: bool,
}

/// Files of the process other than connections: journal, certificates, log.
const OWN_FILES: u64 = 64;
/// A limit below this is reported: it is near what systemd and shells set by
/// default, which a fleet reaches.
const FEW_FILES: u64 = 4_096;

fn check_file_limit() {
    let limit = lockstep_daemon::raise_file_limit().filter(|limit| *limit < FEW_FILES);
    if let Some(limit) = limit {
        tracing::warn!(
            "LS4005: the coordinator may open {limit} files, which is enough for about {} agents; \
             set LimitNOFILE in its unit",
            limit.saturating_sub(OWN_FILES)
        );
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    lockstep_pki::install_provider();
    let arguments = Arguments::parse();
    lockstep_daemon::exit(&DAEMON, run(&arguments).await)
}

async fn run(arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    let config = Config::load(&arguments.config)?;
    let _telemetry = lockstep_telemetry::init("lockstep-coordinator", &(&config.telemetry).into())?;
    check_file_limit();
    let credentials = DAEMON.credentials(&config.tls, &config.name)?;
    let store = Store::open(&config.state_dir)?;
    let (driver, handle) = Driver::start(config.name.clone(), store, arguments.take_over)?;
    let listener = Listener::bind(config.listen, credentials, ListenerOptions::default())
        .map_err(|e| format!("LS4003: {} can't be listened on: {e}", config.listen))?;
    tracing::info!(address = %listener.local_addr()?, "serving");
    let (stop, stopped) = oneshot::channel::<()>();
    let serving = tokio::spawn(grpc::serve(listener, handle.clone(), async {
        // Sent or dropped: the driver has ended.
        let _ = stopped.await;
    }));
    let shutdown = lockstep_daemon::shutdown_requested()?;
    tokio::spawn(async move {
        shutdown.await;
        handle.stop().await;
    });
    let outcome = driver.run().await;
    drop(stop);
    // Sessions are aborted; agents reconnect to the next coordinator process.
    serving.abort();
    Ok(outcome?)
}

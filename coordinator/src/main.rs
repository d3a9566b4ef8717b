//! `lockstep-coordinator`: see the crate's documentation and
//! `docs/operating.md`.

use clap::Parser;
use lockstep_coordinator::config::Config;
use lockstep_coordinator::driver::Driver;
use lockstep_coordinator::grpc;
use lockstep_coordinator::store::Store;
use lockstep_pki::{CredentialFiles, Credentials, Listener, ListenerOptions};
use lockstep_telemetry::TelemetryConfig;
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
    /// Lead above the term of another coordinator that agents have obeyed.
    /// Only after that one is certainly stopped.
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
    let telemetry = TelemetryConfig {
        otlp_endpoint: Some(config.telemetry.otlp.clone()).filter(|url| !url.is_empty()),
        log: config
            .telemetry
            .log
            .clone()
            .unwrap_or_else(|| "info".to_owned()),
        ..TelemetryConfig::default()
    };
    let _telemetry = lockstep_telemetry::init("lockstep-coordinator", &telemetry)?;
    let credentials = Credentials::follow(CredentialFiles {
        ca: config.tls.ca.clone(),
        cert: config.tls.cert.clone(),
        key: config.tls.key.clone(),
        crl: config.tls.crl.clone(),
    })?;
    check_identity(&config, &credentials)?;
    let store = Store::open(&config.state_dir)?;
    let (driver, handle) = Driver::start(config.name.clone(), store, arguments.take_over)?;
    let listener = Listener::bind(config.listen, credentials, ListenerOptions::default())
        .map_err(|e| format!("LS4003: {} can't be listened on: {e}", config.listen))?;
    tracing::info!(address = %listener.local_addr()?, "serving");
    let (stop, stopped) = oneshot::channel::<()>();
    let serving = tokio::spawn(grpc::serve(listener, handle.clone(), async {
        // Either way it is time to stop.
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
    // Sessions are cut: agents reconnect to whoever serves next.
    serving.abort();
    Ok(outcome?)
}

fn check_identity(config: &Config, credentials: &Credentials) -> Result<(), Box<dyn Error>> {
    let loaded = credentials.current();
    let wanted = format!(
        "spiffe://{}/coordinator/{}",
        config.tls.trust_domain, config.name
    );
    let found = loaded
        .identity()
        .clone()
        .within(loaded.trust_domain().clone())
        .to_string();
    if found == wanted {
        return Ok(());
    }
    Err(format!(
        "LS4004: the certificate {} belongs to {found}, but this coordinator must be {wanted}; \
         issue it with `lockstep pki issue coordinator/{}`",
        config.tls.cert.display(),
        config.name
    )
    .into())
}

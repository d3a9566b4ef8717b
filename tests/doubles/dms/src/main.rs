//! The command `dms-double`.

use clap::Parser;
use dms_double::api::{App, router};
use dms_double::config::Config;
use dms_double::metrics::Metrics;
use dms_double::replicate::replicator::Replicator;
use dms_double::task::registry::Registry;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

/// AWS DMS and CloudWatch for rehearsals, with a replicator that moves rows.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// The configuration file.
    #[arg(long, default_value = "dms.toml")]
    config: PathBuf,
}

fn main() -> ExitCode {
    tracing_subscriber::fmt()
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "info".into()),
        )
        .with_writer(std::io::stderr)
        .init();
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let mut text = error.to_string();
            let mut source = error.source();
            while let Some(cause) = source {
                text = format!("{text}: {cause}");
                source = cause.source();
            }
            eprintln!("dms-double: {text}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<(), Box<dyn std::error::Error>> {
    let config = Config::load(&arguments.config)?;
    rustls::crypto::aws_lc_rs::default_provider()
        .install_default()
        .map_err(|_| "a TLS provider is installed already")?;
    if let Some(directory) = &config.oracle_lib_dir {
        oracle::InitParams::new()
            .oracle_client_lib_dir(directory)?
            .init()?;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(serve(config))?;
    // Engines end with the process; what they had not applied is read again.
    runtime.shutdown_background();
    Ok(())
}

async fn serve(config: Config) -> Result<(), Box<dyn std::error::Error>> {
    let listener = tokio::net::TcpListener::bind(config.listen).await?;
    let registry = Registry::new(&config, Arc::new(Replicator));
    registry.create_configured(&config.tasks)?;
    let metrics = Arc::new(Metrics::default());
    let app = App {
        registry: Arc::clone(&registry),
        metrics: Arc::clone(&metrics),
    };
    tokio::spawn(async move { metrics.publish_tasks(&registry).await });
    tracing::info!(address = %listener.local_addr()?, "DMS and CloudWatch double listens");
    axum::serve(listener, router(app))
        .with_graceful_shutdown(asked_to_end())
        .await?;
    Ok(())
}

async fn asked_to_end() {
    use tokio::signal::unix::{SignalKind, signal};
    let Ok(mut terminate) = signal(SignalKind::terminate()) else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = tokio::signal::ctrl_c() => {}
    }
}

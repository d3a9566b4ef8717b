//! `oracle-simulator --config simulator.toml`: one database in memory with its
//! instances, their bequeath sockets, listeners and control sockets.
//!
//! It prints `oracle-simulator ready` once every frontend is open, and ends with
//! SIGTERM or SIGINT; the database ends with it.

use clap::Parser;
use oracle_simulator::config::{self, Config};
use oracle_simulator::control::{self, Control};
use oracle_simulator::engine::{Engine, ScriptError};
use oracle_simulator::listener::{self, Manager};
use oracle_simulator::{bequeath, listener::Instance};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

/// A simulated Oracle database for rehearsals.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// The configuration file.
    #[arg(long)]
    config: PathBuf,
}

/// Why the simulator did not start.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("the configuration could not be used")]
    Config(#[source] config::Error),
    #[error("the initial script {path} could not be read")]
    ReadScript {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("the initial script {path} failed")]
    Script { path: PathBuf, source: ScriptError },
    #[error("{what} could not be opened")]
    Open {
        what: String,
        source: std::io::Error,
    },
    #[error("a listener could not be started")]
    Listener(#[source] listener::Error),
    #[error("the end of the process could not be arranged")]
    Signals(#[source] std::io::Error),
}

fn main() -> ExitCode {
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .with_writer(std::io::stderr)
        .init();
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprint!("oracle-simulator: {error}");
            let mut source = std::error::Error::source(&error);
            while let Some(cause) = source {
                eprint!(": {cause}");
                source = cause.source();
            }
            eprintln!();
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<(), Error> {
    // Blocked before any thread starts, so that every thread inherits it and
    // the wait below is the only one to see them.
    let signals = block_signals().map_err(Error::Signals)?;
    let config = Config::load(&arguments.config).map_err(Error::Config)?;
    std::fs::create_dir_all(&config.data_dir).map_err(|source| Error::Open {
        what: format!("the data directory {}", config.data_dir.display()),
        source,
    })?;
    let engine = Engine::start(&config);
    if let Some(path) = &config.init_sql {
        let script = std::fs::read_to_string(path).map_err(|source| Error::ReadScript {
            path: path.clone(),
            source,
        })?;
        engine.run_script(&script).map_err(|source| Error::Script {
            path: path.clone(),
            source,
        })?;
    }
    let frontends = open(&config, &engine)?;
    println!("oracle-simulator ready");
    wait_for(&signals).map_err(Error::Signals)?;
    drop(frontends);
    Ok(())
}

/// Everything that is open; dropping it closes the frontends.
struct Frontends {
    _sockets: Vec<bequeath::Bequeath>,
    _controls: Vec<control::Server>,
    _listeners: Arc<Manager>,
}

fn open(config: &Config, engine: &Engine) -> Result<Frontends, Error> {
    let failed = |what: String| move |source| Error::Open { what, source };
    let mut sockets = Vec::new();
    let mut instances = Vec::new();
    for (inst, instance) in (1_u32..).zip(&config.instances) {
        let path = instance.bequeath_socket();
        let what = format!("the bequeath socket {}", path.display());
        sockets.push(bequeath::serve(&path, engine.instance(inst)).map_err(failed(what))?);
        let watched = engine.clone();
        instances.push(Instance {
            config: instance.clone(),
            db: engine.instance(inst),
            restricted: Arc::new(move || watched.restricted(inst)),
        });
    }
    let listeners = Manager::new(&config.database, instances)
        .map_err(failed("the listeners' agent".to_owned()))?;
    listeners.start_all().map_err(Error::Listener)?;
    let listeners = Arc::new(listeners);
    let mut controls = Vec::new();
    for instance in &config.instances {
        let path = instance.control_socket();
        let what = format!("the control socket {}", path.display());
        let control = Control {
            host: instance.host.clone(),
            listeners: Arc::clone(&listeners),
            engine: Arc::new(engine.clone()),
        };
        controls.push(control::serve(&path, control).map_err(failed(what))?);
    }
    Ok(Frontends {
        _sockets: sockets,
        _controls: controls,
        _listeners: listeners,
    })
}

fn block_signals() -> std::io::Result<libc::sigset_t> {
    // SAFETY: `set` is initialised by sigemptyset before anything reads it,
    // and every pointer is valid for its call.
    unsafe {
        let mut set = std::mem::zeroed::<libc::sigset_t>();
        libc::sigemptyset(&raw mut set);
        libc::sigaddset(&raw mut set, libc::SIGTERM);
        libc::sigaddset(&raw mut set, libc::SIGINT);
        match libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()) {
            0 => Ok(set),
            error => Err(std::io::Error::from_raw_os_error(error)),
        }
    }
}

fn wait_for(signals: &libc::sigset_t) -> std::io::Result<()> {
    let mut signal = 0;
    // SAFETY: both pointers are valid for the call.
    match unsafe { libc::sigwait(signals, &raw mut signal) } {
        0 => Ok(()),
        error => Err(std::io::Error::from_raw_os_error(error)),
    }
}

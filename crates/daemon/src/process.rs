//! A daemon's identity, its shutdown on a signal, and its exit status.

use crate::Daemon;
use lockstep_api::Code;
use lockstep_pki::{Credentials, TlsConfig, TlsConfigError};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::error::Error;
use std::future::Future;
use std::io;
use std::process::ExitCode;
use tokio::signal::unix::{SignalKind, signal};

/// Why the configured certificate can't be used.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The PKI's errors carry codes of their own.
    #[error(transparent)]
    Unusable(Box<TlsConfigError>),
    #[error("{code}: {mismatch}")]
    Mismatch {
        code: Code,
        mismatch: Box<TlsConfigError>,
    },
}

impl Daemon {
    /// Loads the certificate of the daemon with this name, and reloads it when its
    /// files change. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// The files are unusable, or the certificate names another identity.
    pub fn credentials(&self, tls: &TlsConfig, name: &str) -> Result<Credentials, IdentityError> {
        tls.follow(self.role, name).map_err(|error| match error {
            mismatch @ TlsConfigError::IdentityMismatch { .. } => IdentityError::Mismatch {
                code: self.codes.certificate_of_another,
                mismatch: Box::new(mismatch),
            },
            unusable @ TlsConfigError::Credentials(_) => {
                IdentityError::Unusable(Box::new(unusable))
            }
        })
    }
}

/// Completes when the process receives SIGINT or SIGTERM. Both handlers are
/// installed when this returns, before the future is first polled. Must be
/// called within a tokio runtime.
///
/// # Errors
/// The handlers can't be installed.
pub fn shutdown_requested() -> io::Result<impl Future<Output = ()> + Send> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}

/// Raises this process's limit of open files as far as it may, and returns it;
/// `None` if there is none.
pub fn raise_file_limit() -> Option<u64> {
    let limits = getrlimit(Resource::Nofile);
    let (current, maximum) = (limits.current?, limits.maximum);
    let raised = Rlimit {
        current: maximum,
        maximum,
    };
    match setrlimit(Resource::Nofile, raised) {
        Ok(()) => maximum,
        Err(_) => Some(current),
    }
}

/// The exit status for the outcome of a daemon. An error is printed to standard error
/// with all of its causes.
pub fn exit(daemon: &Daemon, outcome: Result<(), Box<dyn Error>>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let chain = lockstep_telemetry::error_chain(error.as_ref());
            eprintln!("lockstep-{}: {chain}", daemon.name());
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_of_open_files_is_raised_to_what_is_allowed() {
        let before = getrlimit(Resource::Nofile);
        let low = Rlimit {
            current: before.current.map(|limit| limit.min(512)),
            maximum: before.maximum,
        };
        setrlimit(Resource::Nofile, low).unwrap();
        assert_eq!(raise_file_limit(), before.maximum);
        assert_eq!(getrlimit(Resource::Nofile).current, before.maximum);
    }
}

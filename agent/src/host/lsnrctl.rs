//! `lsnrctl`: plain listeners of an Oracle home, or of the Grid home.
//!
//! Its messages are recognized by their TNS codes, which don't depend on the
//! language; the exit code alone doesn't distinguish a listener that is down
//! from one that doesn't exist.

use super::command::{Ended, run};
use super::listener_tool::Tool;
use crate::config::OracleConfig;
use crate::error::ActionError;
use crate::host::context::{Context, Progress};
use lockstep_api::Code;
use std::time::Duration;

/// A listener answers in milliseconds; one that takes this long hangs.
const LIMIT: Duration = Duration::from_secs(30);

/// `TNS:no listener`: nothing listens at its address.
const NO_LISTENER: &str = "TNS-12541";
/// `Listener using listener name … has already been started`.
const ALREADY_STARTED: &str = "TNS-01106";

async fn call(
    cx: &Context,
    oracle: &OracleConfig,
    verb: &str,
    name: &str,
) -> Result<Ended, ActionError> {
    let tool = Tool::of(oracle, "lsnrctl").with("ORACLE_SID", &oracle.sid);
    run(cx, &tool.program(vec![verb, name], LIMIT)).await
}

/// Status is polled; its pages of output are noise among the progress lines.
fn quiet(cx: &Context) -> Context {
    Context {
        progress: Progress::silent(),
        ..cx.clone()
    }
}

fn failed(verb: &str, name: &str, ended: &Ended) -> ActionError {
    let said = ended
        .lines
        .iter()
        .find(|line| line.contains("TNS-") || line.contains("NL-"))
        .map_or_else(|| ended.last_line(), |line| line.trim());
    ActionError::new(
        Code::LS2211,
        format!("`lsnrctl {verb} {name}` failed with {said}"),
    )
    .state_left("the listener is as it was, as far as lsnrctl tells")
    .remedy("run the command by hand as the owner of the listener's home, with the same ORACLE_HOME and \
           TNS_ADMIN, fix what it reports, then retry")
}

/// Whether the listener is up.
///
/// # Errors
/// Where lsnrctl fails: no such listener, no permission.
pub async fn is_up(cx: &Context, oracle: &OracleConfig, name: &str) -> Result<bool, ActionError> {
    let ended = call(&quiet(cx), oracle, "status", name).await?;
    if ended.code == Some(0) {
        Ok(true)
    } else if ended.text().contains(NO_LISTENER) {
        Ok(false)
    } else {
        Err(failed("status", name, &ended))
    }
}

/// Whether the listener offers a service that is registered statically
/// (status UNKNOWN): a restricted session closes dynamic ones (ORA-12526).
///
/// # Errors
/// Where lsnrctl fails.
pub async fn has_static_service(
    cx: &Context,
    oracle: &OracleConfig,
    name: &str,
) -> Result<bool, ActionError> {
    let ended = call(&quiet(cx), oracle, "status", name).await?;
    if ended.code == Some(0) {
        Ok(ended.text().contains("status UNKNOWN"))
    } else {
        Err(failed("status", name, &ended))
    }
}

/// Stops the listener; established sessions stay open.
///
/// # Errors
/// Where it doesn't stop.
pub async fn stop(cx: &Context, oracle: &OracleConfig, name: &str) -> Result<(), ActionError> {
    let ended = call(cx, oracle, "stop", name).await?;
    if ended.code == Some(0) || ended.text().contains(NO_LISTENER) {
        Ok(())
    } else {
        Err(failed("stop", name, &ended))
    }
}

/// Starts the listener.
///
/// # Errors
/// Where it doesn't start.
pub async fn start(cx: &Context, oracle: &OracleConfig, name: &str) -> Result<(), ActionError> {
    let ended = call(cx, oracle, "start", name).await?;
    if ended.code == Some(0) || ended.text().contains(ALREADY_STARTED) {
        Ok(())
    } else {
        Err(failed("start", name, &ended))
    }
}

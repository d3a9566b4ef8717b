//! ALTER SYSTEM KILL SESSION.

use super::call::Call;
use super::errors::ora;
use super::sessions::{Life, SessionKey};
use crate::api::OraError;
use std::time::{Duration, Instant};

/// How long a kill waits for a session that is in a call before it says
/// ORA-00031. Oracle waits a minute without IMMEDIATE; a sleeping or waiting
/// call ends at once here, so only a long query takes any time.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// Reads `sid,serial#[,@inst_id]`.
fn target(text: &str, own: u32) -> Option<(SessionKey, u32)> {
    let mut parts = text.split(',').map(str::trim);
    let sid = parts.next()?.parse().ok()?;
    let serial = parts.next()?.parse().ok()?;
    let inst = match parts.next() {
        Some(inst) => inst.strip_prefix('@')?.trim().parse().ok()?,
        None => own,
    };
    parts
        .next()
        .is_none()
        .then_some((SessionKey { inst, sid }, serial))
}

/// Kills a session: its transaction rolls back first.
///
/// The row of an inactive session stays in V$SESSION with the status KILLED and
/// the server PSEUDO, until its client uses it and gets ORA-00028 (Database
/// Administrator's Guide, "Terminating an Inactive Session"). Sources disagree
/// on whether IMMEDIATE removes it at once; here it doesn't.
///
/// # Errors
/// ORA-00026 malformed, ORA-00027 the own session, ORA-00029 a background
/// process, ORA-00030 unknown, ORA-00031 marked because it is in a call.
pub fn kill(call: &mut Call<'_>, text: &str) -> Result<(), OraError> {
    let Some((key, serial)) = target(text, call.key.inst) else {
        return Err(ora(26, "missing or invalid session ID"));
    };
    if key == call.key {
        return Err(ora(27, "cannot kill current session"));
    }
    let Some(session) = call
        .st
        .sessions
        .get_mut(&key)
        .filter(|session| session.serial == serial)
    else {
        return Err(ora(30, "User session ID does not exist."));
    };
    if session.is_background() {
        return Err(ora(29, "session is not a user session"));
    }
    session.life = Life::Killed;
    let in_call = session.in_call;
    call.st.alert(format!(
        "KILL SESSION for sid=({}, {serial}): inst={}",
        key.sid, key.inst
    ));
    note(call, key);
    call.core.changed.notify_all();
    if !in_call {
        if !call.st.environment.slow_rollback {
            call.st.rollback_to(key, None);
        }
        return Ok(());
    }
    let until = Instant::now() + PATIENCE;
    while call.st.sessions.contains_key(&key) {
        if Instant::now() >= until {
            return Err(ora(31, "session marked for kill"));
        }
        call.pause(until)?;
    }
    Ok(())
}

/// Ends a session's server process; unlike a kill, nothing is left of it.
///
/// # Errors
/// As [`kill`].
pub fn disconnect(call: &mut Call<'_>, text: &str) -> Result<(), OraError> {
    kill(call, text)?;
    if let Some((key, _)) = target(text, call.key.inst) {
        call.st.rollback_to(key, None);
        call.st.sessions.remove(&key);
    }
    Ok(())
}

fn note(call: &mut Call<'_>, key: SessionKey) {
    let state = &mut *call.st;
    if let Some(session) = state.sessions.get(&key) {
        state.observed.kill(key, session);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_read() {
        let key = |inst, sid| SessionKey { inst, sid };
        assert_eq!(target("12,345", 1), Some((key(1, 12), 345)));
        assert_eq!(target(" 12 , 345 , @2", 1), Some((key(2, 12), 345)));
        assert_eq!(target("12", 1), None);
        assert_eq!(target("12,345,2", 1), None);
        assert_eq!(target("sid,serial", 1), None);
    }
}

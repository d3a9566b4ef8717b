//! Which logins DBA_USERS.LAST_LOGIN doesn't show. It was introduced with Oracle
//! 12.1, never moves for SYS, and may be switched off or thinned out against
//! login storms (fix of bug 33121934, My Oracle Support 33121934.8).
//!
//! The parameters are hidden: only SYS reads them, from X$KSPPI and X$KSPPSV, of
//! the own instance. Where they can't be read, the logins count as not recorded.
//! The users that are logged in are compared as well, whatever the parameters
//! say.

use crate::host::oracle::{OracleError, Session};

/// ORA-00904: invalid identifier. Before Oracle 12.1 there is no such column.
pub const NO_COLUMN: i32 = 904;

/// If TRUE, no login is recorded.
const OFF: &str = "_disable_last_successful_login_time";
/// If TRUE, logins of users whose profile has INACTIVE_ACCOUNT_TIME UNLIMITED
/// aren't recorded.
const OFF_FOR_UNLIMITED: &str = "_disable_last_successful_login_time_unlimited_iat";
/// Seconds for which no further login of the same user is recorded.
const GRANULARITY: &str = "_granularity_last_successful_login_time";

const HIDDEN: &str = "SELECT n.KSPPINM, v.KSPPSTVL FROM X$KSPPI n JOIN X$KSPPSV v \
     ON v.INDX = n.INDX WHERE n.KSPPINM IN ('_disable_last_successful_login_time', \
     '_disable_last_successful_login_time_unlimited_iat', \
     '_granularity_last_successful_login_time')";

/// Users that are logged in although no login of theirs was ever recorded. A job's
/// process (J000) has its owner's name without a login.
const UNRECORDED: &str = "SELECT DISTINCT s.USERNAME FROM GV$SESSION s \
     JOIN DBA_USERS u ON u.USERNAME = s.USERNAME \
     WHERE s.TYPE = 'USER' AND s.USERNAME <> 'SYS' AND u.LAST_LOGIN IS NULL \
     AND (s.PROGRAM IS NULL OR s.PROGRAM NOT LIKE '%(J___)')";

/// One sentence for each kind of login that isn't recorded.
///
/// # Errors
/// If a query fails for another reason than that Oracle refuses it.
pub async fn limits(session: &Session) -> Result<Vec<String>, OracleError> {
    let users = match session.rows::<String>(UNRECORDED, &[]).await {
        Ok(users) => users,
        Err(e) if e.ora() == Some(NO_COLUMN) => {
            let limit = "DBA_USERS has no LAST_LOGIN before Oracle 12.1, so no login that ends \
                         between two checks is seen";
            return Ok(vec![limit.to_owned()]);
        }
        Err(e) => return Err(e),
    };
    let mut limits = match session.rows::<(String, Option<String>)>(HIDDEN, &[]).await {
        Ok(hidden) => hidden
            .iter()
            .filter_map(|(name, value)| limit(name, value.as_deref().unwrap_or("")))
            .collect(),
        Err(e) if e.ora().is_some() => vec![format!(
            "whether LAST_LOGIN records every login can't be read ({e}), so a login that ends \
             between two checks may not be seen"
        )],
        Err(e) => return Err(e),
    };
    if !users.is_empty() {
        limits.push(format!(
            "LAST_LOGIN is empty although they are logged in, so their logins aren't recorded: {}",
            users.join(", ")
        ));
    }
    Ok(limits)
}

/// What isn't recorded with that value of a parameter.
fn limit(name: &str, value: &str) -> Option<String> {
    let set = value.eq_ignore_ascii_case("TRUE");
    let seconds: Option<u64> = value.parse().ok();
    match name {
        OFF if set => Some(format!(
            "{OFF} is TRUE: LAST_LOGIN records no login, so none that ends between two checks is \
             seen"
        )),
        OFF_FOR_UNLIMITED if set => Some(format!(
            "{OFF_FOR_UNLIMITED} is TRUE: LAST_LOGIN doesn't record logins of users whose profile \
             has no INACTIVE_ACCOUNT_TIME"
        )),
        // LAST_LOGIN has whole seconds anyway.
        GRANULARITY if seconds.is_some_and(|seconds| seconds > 1) => Some(format!(
            "{GRANULARITY} is {value}: LAST_LOGIN doesn't record a login within {value} s of \
             another one of the same user"
        )),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_query_names_the_parameters() {
        for name in [OFF, OFF_FOR_UNLIMITED, GRANULARITY] {
            assert!(HIDDEN.contains(&format!("'{name}'")), "{name}");
        }
    }

    #[test]
    fn only_values_that_hide_logins_are_limits() {
        for (name, value) in [
            (OFF, "FALSE"),
            (OFF_FOR_UNLIMITED, "FALSE"),
            (GRANULARITY, "0"),
            (GRANULARITY, ""),
            ("processes", "300"),
        ] {
            assert_eq!(limit(name, value), None, "{name}={value}");
        }
        for (name, value) in [
            (OFF, "TRUE"),
            (OFF_FOR_UNLIMITED, "true"),
            (GRANULARITY, "30"),
        ] {
            assert!(limit(name, value).unwrap().contains(name), "{name}={value}");
        }
    }
}

//! What keeps applications out of PostgreSQL, or from writing, although their roles may
//! log in: left over from the load, or meant to protect it, it would show only after
//! the point of no return.
//!
//! Source: PostgreSQL documentation, CREATE ROLE (`VALID UNTIL`, `CONNECTION LIMIT`) and
//! "Client Connection Defaults" (`default_transaction_read_only`).

use crate::action::ActionError;
use crate::host::postgres::Session;

/// An expiry concerns logins with a password only, so these are remarks.
const LIMITS: &str = "SELECT rolname || ' has expired (VALID UNTIL ' || rolvaliduntil || '), so \
      no login with its password is possible' FROM pg_roles \
      WHERE rolname = ANY($1) AND rolvaliduntil <= now() \
    UNION ALL SELECT rolname || ' has CONNECTION LIMIT 0' FROM pg_roles \
      WHERE rolname = ANY($1) AND rolconnlimit = 0 \
    UNION ALL SELECT 'the database has CONNECTION LIMIT 0' FROM pg_database \
      WHERE datname = current_database() AND datconnlimit = 0 \
    UNION ALL SELECT concat('sessions of ', coalesce(r.rolname, 'every role'), \
      ' are read-only (default_transaction_read_only)') \
      FROM pg_db_role_setting s LEFT JOIN pg_roles r ON r.oid = s.setrole \
      CROSS JOIN unnest(s.setconfig) AS setting \
      WHERE (s.setrole = 0 OR r.rolname = ANY($1)) AND (s.setdatabase = 0 \
        OR s.setdatabase = (SELECT oid FROM pg_database WHERE datname = current_database())) \
      AND split_part(setting, '=', 1) = 'default_transaction_read_only' \
      AND lower(split_part(setting, '=', 2)) IN ('on', 'true', 'yes', '1') ORDER BY 1";

/// A sentence for each.
pub async fn remarks(session: &Session, roles: &[String]) -> Result<Vec<String>, ActionError> {
    let rows = session.rows(LIMITS, &[&roles]).await?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

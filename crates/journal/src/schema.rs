//! Format of the file: a table of entries and a table of properties.

use super::{Error, failed};
use rusqlite::{Connection, OptionalExtension, TransactionBehavior};
use std::path::Path;

/// The format this program writes; `user_version` of the file.
const FORMAT: i64 = 1;

const TABLES: &str = "
    CREATE TABLE fact (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
    CREATE TABLE entry (
        position INTEGER PRIMARY KEY,
        stream   TEXT NOT NULL,
        seq      INTEGER NOT NULL,
        at_ms    INTEGER NOT NULL,
        kind     TEXT NOT NULL,
        body     TEXT NOT NULL,
        hash     BLOB NOT NULL,
        UNIQUE (stream, seq)
    ) STRICT;
";

/// Configures durability and ownership. EXCLUSIVE holds the file lock from the first
/// write until the connection closes, so a second process fails immediately.
pub(super) fn configure(connection: &Connection) -> rusqlite::Result<()> {
    connection.busy_timeout(std::time::Duration::ZERO)?;
    connection.pragma_update(None, "locking_mode", "EXCLUSIVE")?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")
}

/// Creates the tables in a new file, checks version and role of an existing one,
/// and returns the identity of the journal.
pub(super) fn adopt(connection: &mut Connection, path: &Path, role: &str) -> Result<String, Error> {
    let store = |source| failed(path, "opened", source);
    let transaction = connection
        .transaction_with_behavior(TransactionBehavior::Exclusive)
        .map_err(store)?;
    let found: i64 = transaction
        .query_row("PRAGMA user_version", [], |row| row.get(0))
        .map_err(store)?;
    match found {
        0 => {
            transaction.execute_batch(TABLES).map_err(store)?;
            transaction
                .pragma_update(None, "user_version", FORMAT)
                .map_err(store)?;
            for (name, value) in [
                ("role", role.to_owned()),
                ("id", uuid::Uuid::now_v7().to_string()),
            ] {
                transaction
                    .execute(
                        "INSERT INTO fact (name, value) VALUES (?1, ?2)",
                        [name, &value],
                    )
                    .map_err(store)?;
            }
        }
        FORMAT => {}
        newer => {
            return Err(Error::Version {
                path: path.to_owned(),
                found: newer,
                known: FORMAT,
            });
        }
    }
    let fact = |name: &str| -> Result<String, Error> {
        transaction
            .query_row("SELECT value FROM fact WHERE name = ?1", [name], |row| {
                row.get(0)
            })
            .optional()
            .map(Option::unwrap_or_default)
            .map_err(store)
    };
    let (found, id) = (fact("role")?, fact("id")?);
    if found != role {
        return Err(Error::Role {
            path: path.to_owned(),
            found,
            expected: role.to_owned(),
        });
    }
    transaction.commit().map_err(store)?;
    Ok(id)
}

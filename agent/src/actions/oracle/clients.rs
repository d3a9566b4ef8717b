//! The database's current clients, and the databases at the other end of
//! database links.
//!
//! The clients are those connected at the time of the query: a nightly batch
//! job is only seen at night. DBA_DB_LINK_SOURCES records the databases that
//! have opened links to this one (since Oracle 12.1; Oracle Database
//! Reference).

use super::session_class::DbSession;
use crate::host::oracle::{OracleError, Session};
use serde_json::{Value, json};
use std::collections::BTreeMap;

const LINKS: &str =
    "SELECT OWNER, DB_LINK, USERNAME, HOST FROM DBA_DB_LINKS ORDER BY OWNER, DB_LINK";
const SOURCES: &str = "SELECT DB_NAME, HOST_NAME, IP_ADDRESS, USERNAME, \
     TO_CHAR(LAST_LOGON_TIME, 'YYYY-MM-DD HH24:MI:SS') FROM DBA_DB_LINK_SOURCES \
     ORDER BY DB_NAME, USERNAME";

/// `ORA-00942: table or view does not exist`: a release without the view.
const NO_VIEW: i32 = 942;

/// The key by which clients are grouped.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Client {
    machine: String,
    program: String,
    username: String,
    service: String,
}

/// Clients with the number of their sessions.
#[derive(Debug, Default)]
pub struct Clients {
    sessions: BTreeMap<Client, u64>,
}

impl Clients {
    pub fn add(&mut self, seen: &DbSession) {
        let text = |value: &Option<String>| value.clone().unwrap_or_default();
        let client = Client {
            machine: text(&seen.machine),
            program: text(&seen.program),
            username: text(&seen.username),
            service: text(&seen.service),
        };
        *self.sessions.entry(client).or_default() += 1;
    }

    /// One sentence per client. `locked`: the accounts that the plan locks. If
    /// it locks any, a client of another account may reconnect.
    pub fn sentences(&self, locked: &[String]) -> Vec<String> {
        let sentence = |(client, count): (&Client, &u64)| {
            let Client {
                machine,
                program,
                username,
                service,
            } = client;
            let sessions = if *count == 1 { "session" } else { "sessions" };
            let returns = if locked.is_empty() || locked.contains(username) {
                ""
            } else {
                "; the plan doesn't lock this account, so it can log in again on the host itself"
            };
            format!(
                "{count} {sessions} of {username} from {machine} ({program}) through the service \
                 {service}{returns}"
            )
        };
        self.sessions.iter().map(sentence).collect()
    }

    pub fn json(&self) -> Value {
        let one = |(client, count): (&Client, &u64)| {
            json!({
                "machine": client.machine,
                "program": client.program,
                "username": client.username,
                "service": client.service,
                "sessions": count,
            })
        };
        self.sessions.iter().map(one).collect()
    }
}

/// Database links in both directions, one sentence for each.
///
/// # Errors
/// If the query fails.
pub async fn links(session: &Session) -> Result<Vec<String>, OracleError> {
    type Link = (String, String, Option<String>, Option<String>);
    type Source = (
        String,
        Option<String>,
        Option<String>,
        String,
        Option<String>,
    );
    let out: Vec<Link> = session.rows(LINKS, &[]).await?;
    let out = out.into_iter().map(|(owner, link, user, host)| {
        let user = user.map_or_else(String::new, |user| format!(" as {user}"));
        let host = host.unwrap_or_else(|| "another database".to_owned());
        format!("the database link {link} of {owner} leads to {host}{user}")
    });
    let mut sentences: Vec<String> = out.collect();
    match session.rows::<Source>(SOURCES, &[]).await {
        Ok(sources) => sentences.extend(sources.into_iter().map(
            |(database, host, address, user, last)| {
                let at = host.or(address).unwrap_or_else(|| "?".to_owned());
                let last = last.unwrap_or_else(|| "?".to_owned());
                format!(
                    "the database {database} on {at} opens database links to this one as {user}, \
                     last at {last} UTC"
                )
            },
        )),
        Err(e) if e.ora() == Some(NO_VIEW) => sentences.push(
            "this release doesn't tell which databases open links to this one; ask their owners"
                .to_owned(),
        ),
        Err(e) => return Err(e),
    }
    Ok(sentences)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_are_counted_and_those_that_may_come_back_are_pointed_out() {
        let seen = |user: &str| DbSession {
            username: Some(user.to_owned()),
            machine: Some("app-1".to_owned()),
            program: Some("orders".to_owned()),
            service: Some("SHOP".to_owned()),
            ..DbSession::default()
        };
        let mut clients = Clients::default();
        for user in ["SHOP", "SHOP", "CRM"] {
            clients.add(&seen(user));
        }
        assert_eq!(
            clients.sentences(&["SHOP".to_owned()]),
            [
                "1 session of CRM from app-1 (orders) through the service SHOP; the plan doesn't \
                 lock this account, so it can log in again on the host itself",
                "2 sessions of SHOP from app-1 (orders) through the service SHOP",
            ]
        );
        assert!(
            clients
                .sentences(&[])
                .iter()
                .all(|one| !one.contains("lock"))
        );
        assert_eq!(clients.json()[1]["sessions"], 2);
        assert_eq!(clients.json()[1]["service"], "SHOP");
    }
}

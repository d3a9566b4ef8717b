//! Connect strings: which server a client means.
//!
//! Understood are the empty string (bequeath), EZConnect
//! (`[tcp:][//]host[:port]/service[:server]`) and a connect descriptor with
//! TCP addresses. There is no tnsnames.ora here: a bare name is ORA-12154.

use oracle_simulator::api::OraError;
use oracle_simulator::wire::Target;
use std::path::PathBuf;

/// The listener's port where none is named.
const DEFAULT_PORT: u16 = 1521;

/// Where to connect, and what to ask for there.
#[derive(Debug, PartialEq, Eq)]
pub struct Destination {
    /// Addresses, to be tried in order.
    pub targets: Vec<Target>,
    /// Service name; empty for bequeath.
    pub service: String,
}

/// Reads a connect string. `home` and `sid` are ORACLE_HOME and ORACLE_SID,
/// which only bequeath needs.
pub fn parse(
    text: &str,
    home: Option<PathBuf>,
    sid: Option<String>,
) -> Result<Destination, OraError> {
    let text = text.trim();
    if text.is_empty() {
        return bequeath(home, sid);
    }
    if text.starts_with('(') {
        descriptor(text)
    } else {
        easy(text)
    }
    .ok_or_else(|| {
        OraError::new(
            12154,
            "TNS:could not resolve the connect identifier specified",
        )
    })
}

fn bequeath(home: Option<PathBuf>, sid: Option<String>) -> Result<Destination, OraError> {
    let (Some(home), Some(sid)) = (home, sid.filter(|sid| !sid.is_empty())) else {
        return Err(OraError::new(
            12162,
            "TNS:net service name is incorrectly specified",
        ));
    };
    let socket = home.join("dbs").join(format!("bequeath_{sid}.sock"));
    Ok(Destination {
        targets: vec![Target::Unix(socket)],
        service: String::new(),
    })
}

fn easy(text: &str) -> Option<Destination> {
    let text = text.strip_prefix("tcp:").unwrap_or(text);
    let (bare, text) = match text.strip_prefix("//") {
        Some(rest) => (false, rest),
        None => (true, text),
    };
    let (address, service) = text.split_once('/').unwrap_or((text, ""));
    let (host, port) = match address.split_once(':') {
        Some((host, port)) => (host, Some(port.parse().ok()?)),
        None => (address, None),
    };
    // A name with neither port nor service is a tnsnames alias.
    if host.is_empty() || (bare && port.is_none() && service.is_empty()) {
        return None;
    }
    let service = service.split([':', '/', '?']).next().unwrap_or_default();
    let target = Target::Tcp {
        host: host.to_owned(),
        port: port.unwrap_or(DEFAULT_PORT),
    };
    Some(Destination {
        targets: vec![target],
        service: service.to_owned(),
    })
}

fn descriptor(text: &str) -> Option<Destination> {
    let fields = fields(text)?;
    let value = |name: &str| {
        fields
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.clone())
    };
    let mut targets = Vec::new();
    for (key, host) in &fields {
        if key == "HOST" {
            let port = fields
                .iter()
                .filter(|(key, _)| key == "PORT")
                .nth(targets.len())
                .map_or(Some(DEFAULT_PORT), |(_, port)| port.parse().ok())?;
            targets.push(Target::Tcp {
                host: host.clone(),
                port,
            });
        }
    }
    let other_protocol = fields
        .iter()
        .any(|(key, value)| key == "PROTOCOL" && !value.eq_ignore_ascii_case("tcp"));
    if targets.is_empty() || other_protocol {
        return None;
    }
    let service = value("SERVICE_NAME")
        .or_else(|| value("SID"))
        .unwrap_or_default();
    Some(Destination { targets, service })
}

/// The `KEY=value` leaves of a descriptor in order, keys in upper case; `None`
/// where parentheses don't match.
fn fields(text: &str) -> Option<Vec<(String, String)>> {
    let mut depth = 0u32;
    let mut leaves = Vec::new();
    let mut start = 0;
    for (at, letter) in text.char_indices() {
        match letter {
            '(' => {
                depth += 1;
                start = at + 1;
            }
            ')' => {
                depth = depth.checked_sub(1)?;
                if start <= at
                    && let Some((key, value)) = text[start..at].split_once('=')
                {
                    leaves.push((key.trim().to_ascii_uppercase(), value.trim().to_owned()));
                }
                // The bracket that closes a branch ends no leaf.
                start = text.len() + 1;
            }
            _ => {}
        }
    }
    (depth == 0).then_some(leaves)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tcp(host: &str, port: u16) -> Target {
        Target::Tcp {
            host: host.into(),
            port,
        }
    }

    #[track_caller]
    fn check(text: &str, targets: Vec<Target>, service: &str) {
        let expected = Destination {
            targets,
            service: service.into(),
        };
        assert_eq!(parse(text, None, None), Ok(expected), "{text}");
    }

    #[test]
    fn connect_strings_name_a_listener() {
        check("//localhost/ORCL", vec![tcp("localhost", 1521)], "ORCL");
        check(
            "127.0.0.1:15212/ORCL",
            vec![tcp("127.0.0.1", 15212)],
            "ORCL",
        );
        check(
            "tcp://ora-1:1522/orcl:dedicated",
            vec![tcp("ora-1", 1522)],
            "orcl",
        );
        check("ora-1:1522", vec![tcp("ora-1", 1522)], "");
        check(
            "(DESCRIPTION=(ADDRESS=(PROTOCOL=TCP)(HOST=ora-1)(PORT=1522))(CONNECT_DATA=(SERVICE_NAME=ORCL)))",
            vec![tcp("ora-1", 1522)],
            "ORCL",
        );
        check(
            "(description=(address_list=(address=(protocol=tcp)(host=a)(port=1)) (address=(protocol=tcp)(host=b)\n(port = 2)))(connect_data=(sid=ORCL1)))",
            vec![tcp("a", 1), tcp("b", 2)],
            "ORCL1",
        );
    }

    #[test]
    fn the_empty_string_is_the_local_instance() {
        let found = parse("", Some("/u01/home".into()), Some("ORCL1".into())).unwrap();
        assert_eq!(
            found.targets,
            [Target::Unix("/u01/home/dbs/bequeath_ORCL1.sock".into())]
        );
        assert_eq!(
            parse("", Some("/u01/home".into()), None).unwrap_err().code,
            12162
        );
    }

    #[test]
    fn what_cannot_be_resolved_says_so() {
        for text in [
            "ORCL",
            "host:port/x",
            "(DESCRIPTION=(ADDRESS=(PROTOCOL=TCP)",
            "(A=(PROTOCOL=IPC)(HOST=x))",
            "//",
        ] {
            assert_eq!(parse(text, None, None).unwrap_err().code, 12154, "{text}");
        }
    }
}

//! To which addresses a check may connect.
//!
//! Without an entry only to this host's loopback interface: what a check reports of
//! other hosts, such as that a port is open, would make every agent a scanner of its
//! network for whoever may start a plan.

use lockstep_daemon::matches_pattern;
use std::net::IpAddr;

/// Whether one of the patterns matches, or the address is on the loopback interface.
/// Names are compared as the plan writes them, without regard to case; where a name
/// leads is for the host's resolver to say.
pub(super) fn is_allowed(patterns: &[String], address: &str) -> bool {
    let address = address.to_ascii_lowercase();
    let Some((host, port)) = address.rsplit_once(':') else {
        return false;
    };
    if host.is_empty() || port.parse::<u16>().is_err() {
        return false;
    }
    is_loopback(host)
        || patterns
            .iter()
            .any(|pattern| matches_pattern(&pattern.to_ascii_lowercase(), &address))
}

fn is_loopback(host: &str) -> bool {
    let bare = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'));
    let literal = bare.unwrap_or(host).parse::<IpAddr>();
    host == "localhost" || literal.is_ok_and(|address| address.to_canonical().is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_hosts_need_an_entry() {
        let patterns = ["db.example.net:1521", "app-*", "10.1.2.3:*"].map(str::to_owned);
        for (address, allowed) in [
            ("127.0.0.1:8080", true),
            ("127.9.9.9:22", true),
            ("localhost:8080", true),
            ("LOCALHOST:8080", true),
            ("[::1]:8080", true),
            ("[::ffff:127.0.0.1]:80", true),
            ("db.example.net:1521", true),
            ("DB.example.net:1521", true),
            ("db.example.net:22", false),
            ("app-1:8080", true),
            ("10.1.2.3:1", true),
            ("10.1.2.30:1", false),
            ("169.254.169.254:80", false),
            ("0.0.0.0:80", false),
            ("[::]:80", false),
            ("localhost.evil.test:80", false),
            ("127.0.0.1.evil.test:80", false),
            ("127.0.0.1", false),
            ("127.0.0.1:http", false),
            (":80", false),
        ] {
            assert_eq!(is_allowed(&patterns, address), allowed, "{address}");
        }
        assert!(!is_allowed(&[], "db.example.net:1521"));
    }
}

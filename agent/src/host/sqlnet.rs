//! `sqlnet.ora` of the listeners' home: restrictions of client nodes.

use crate::config::OracleConfig;
use std::path::PathBuf;

/// The path from which the listeners read it: `TNS_ADMIN`, or `network/admin` in their home
/// (Oracle Database Net Services Reference, "Parameters for the sqlnet.ora File").
pub fn path(oracle: &OracleConfig) -> PathBuf {
    let directory = match &oracle.tns_admin {
        Some(directory) => directory.clone(),
        None => oracle.listener_home().join("network/admin"),
    };
    directory.join("sqlnet.ora")
}

/// Whether it admits some nodes and rejects others. A file that it includes
/// (IFILE) is not read, and VALID_NODE_CHECKING_REGISTRATION doesn't count:
/// that limits who registers services, not who connects.
pub fn checks_nodes(text: &str) -> bool {
    let settings = text.lines().filter_map(|line| {
        let line = line.split('#').next().unwrap_or_default();
        let (name, value) = line.split_once('=')?;
        Some((name.trim().to_uppercase(), value.trim().to_uppercase()))
    });
    let (mut checks, mut lists) = (false, false);
    for (name, value) in settings {
        match name.as_str() {
            "TCP.VALIDNODE_CHECKING" => {
                checks = ["YES", "ON", "TRUE"].contains(&value.as_str());
            }
            "TCP.INVITED_NODES" | "TCP.EXCLUDED_NODES" => lists = true,
            _ => {}
        }
    }
    checks && lists
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checking_needs_the_switch_and_a_list() {
        let list = "tcp.invited_nodes = (10.20.0.17, localhost)\n";
        assert!(checks_nodes(&format!("TCP.VALIDNODE_CHECKING=yes\n{list}")));
        for text in [
            String::new(),
            list.to_owned(),
            "TCP.VALIDNODE_CHECKING = YES\n".to_owned(),
            format!("#TCP.VALIDNODE_CHECKING = YES\n{list}"),
            format!("TCP.VALIDNODE_CHECKING = NO\n{list}"),
            format!("VALID_NODE_CHECKING_REGISTRATION_LISTENER = ON\n{list}"),
        ] {
            assert!(!checks_nodes(&text), "{text}");
        }
    }
}

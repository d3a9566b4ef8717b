//! `crsctl`: who may do what with a resource of Clusterware.
//!
//! A resource's attribute ACL grants to `owner:`, `pgrp:`, `user:`, `group:` and
//! `other:` the permissions r (see), w (modify its attributes, among them whether it is
//! enabled) and x (start and stop); root and the owner have all of them by default
//! (Oracle Clusterware Administration and Deployment Guide, resource attribute
//! ACL). Which entry counts where several match isn't documented; as for files,
//! the user's own is preferred to those of groups, and these to `other`.

use super::command::{Program, run};
use super::listener_tool::Tool;
use crate::config::OracleConfig;
use crate::error::ActionError;
use crate::host::context::{Context, Progress};
use lockstep_api::Code;
use std::path::Path;
use std::time::Duration;

/// Clusterware answers within seconds; one that takes this long hangs.
const LIMIT: Duration = Duration::from_secs(60);
/// Names may come from a directory service.
const ID_LIMIT: Duration = Duration::from_secs(20);

/// The resource of a listener, as the Clusterware guide names it.
pub fn resource(listener: &str) -> String {
    format!("ora.{}.lsnr", listener.to_uppercase())
}

/// Whether the listeners' home has `crsctl`: only a Grid home does.
pub fn exists(oracle: &OracleConfig) -> bool {
    oracle.listener_home().join("bin/crsctl").exists()
}

/// The access control list of a resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Acl(String);

/// User and groups of this process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    pub user: String,
    pub groups: Vec<String>,
}

impl Acl {
    /// Reads it.
    ///
    /// # Errors
    /// Where crsctl fails, or shows none.
    pub async fn of(
        cx: &Context,
        oracle: &OracleConfig,
        resource: &str,
    ) -> Result<Self, ActionError> {
        let quiet = quiet(cx);
        let tool = Tool::of(oracle, "crsctl");
        let arguments = vec!["status", "resource", resource, "-p"];
        let ended = run(&quiet, &tool.program(arguments, LIMIT)).await?;
        match Self::find(&ended.lines) {
            Some(acl) if ended.code == Some(0) => Ok(acl),
            _ => Err(ActionError::new(
                Code::LS2211,
                format!(
                    "`crsctl status resource {resource} -p` shows no ACL: {}",
                    ended.last_line()
                ),
            )
            .state_left("nothing was done")
            .remedy("run the command by hand as the agent's user")),
        }
    }

    fn find(lines: &[String]) -> Option<Self> {
        let mut lists = lines
            .iter()
            .filter_map(|line| line.trim().strip_prefix("ACL="));
        lists.next().map(|list| Self(list.to_owned()))
    }

    /// Those of the permissions that it doesn't grant.
    pub fn lacks(&self, identity: &Identity, permissions: &[char]) -> Vec<char> {
        let granted = self.granted(identity);
        let lacks = permissions.iter().filter(|one| !granted.contains(**one));
        lacks.copied().collect()
    }

    fn granted(&self, identity: &Identity) -> String {
        if identity.user == "root" {
            return "rwx".to_owned();
        }
        let entries = self.0.split(',').filter_map(|entry| {
            let (kind, rest) = entry.trim().split_once(':')?;
            let (name, permissions) = rest.rsplit_once(':')?;
            Some((kind, name, permissions))
        });
        let all = |is_meant: &dyn Fn(&str, &str) -> bool| {
            let meant = entries
                .clone()
                .filter(|(kind, name, _)| is_meant(kind, name));
            let permissions: Vec<&str> = meant.map(|(.., permissions)| permissions).collect();
            (!permissions.is_empty()).then(|| permissions.concat())
        };
        let own =
            |kind: &str, name: &str| matches!(kind, "owner" | "user") && name == identity.user;
        let group = |kind: &str, name: &str| {
            matches!(kind, "pgrp" | "group") && identity.groups.iter().any(|one| one == name)
        };
        let other = |kind: &str, _: &str| kind == "other";
        all(&own)
            .or_else(|| all(&group))
            .or_else(|| all(&other))
            .unwrap_or_default()
    }
}

impl Identity {
    /// By the names that the operating system gives to this process's ids.
    ///
    /// # Errors
    /// Where `id` fails.
    pub async fn of_agent(cx: &Context) -> Result<Self, ActionError> {
        Ok(Self {
            user: id(cx, "-un").await?,
            groups: id(cx, "-Gn").await?.split(' ').map(str::to_owned).collect(),
        })
    }
}

async fn id(cx: &Context, option: &str) -> Result<String, ActionError> {
    let program = Program {
        path: Path::new("/usr/bin/id"),
        arguments: vec![option],
        environment: vec![],
        limit: ID_LIMIT,
        tagged: false,
    };
    Ok(run(&quiet(cx), &program).await?.last_line().to_owned())
}

fn quiet(cx: &Context) -> Context {
    Context {
        progress: Progress::silent(),
        ..cx.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const USUAL: &str = "owner:grid:rwx,pgrp:oinstall:r-x,other::r--";

    fn lacks(acl: &str, user: &str, groups: &[&str]) -> String {
        let identity = Identity {
            user: user.into(),
            groups: groups.iter().map(|&group| group.to_owned()).collect(),
        };
        Acl(acl.into())
            .lacks(&identity, &['w', 'x'])
            .iter()
            .collect()
    }

    #[test]
    fn the_homes_group_may_stop_but_not_disable() {
        let oracle = ["oinstall", "dba"];
        assert_eq!(lacks(USUAL, "oracle", &oracle), "w");
        assert_eq!(
            lacks(&format!("{USUAL},user:oracle:rwx"), "oracle", &oracle),
            ""
        );
        assert_eq!(
            lacks(&format!("{USUAL},group:dba:rwx"), "oracle", &oracle),
            ""
        );
        assert_eq!(
            lacks(&format!("{USUAL},user:oracle:r--"), "oracle", &oracle),
            "wx"
        );
        assert_eq!(lacks(USUAL, "app", &["app"]), "wx");
        assert_eq!(lacks(USUAL, "grid", &["oinstall"]), "");
        assert_eq!(lacks(USUAL, "root", &["root"]), "");
        assert_eq!(lacks("", "oracle", &oracle), "wx");
    }

    #[test]
    fn the_list_is_found_in_the_profile() {
        let profile = [
            "NAME=ora.LISTENER.lsnr",
            "TYPE=ora.listener.type",
            "ACL=owner:grid:rwx",
        ];
        let profile: Vec<String> = profile.map(str::to_owned).into();
        assert_eq!(Acl::find(&profile), Some(Acl("owner:grid:rwx".into())));
        assert_eq!(Acl::find(&profile[..2]), None);
    }
}

//! DMS's access during the cutover: its listener, and the privileges of its
//! users if logins are restricted.

use super::listeners::Listeners;
use crate::action::{ActionError, Context};
use crate::host::oracle::Session;
use crate::host::{lsnrctl, sqlnet};
use lockstep_plan::catalogue::OracleReady;
use std::collections::BTreeSet;

/// Users and roles with the privilege to log in to a restricted instance;
/// without it a login fails with ORA-01035.
const HOLDERS: &str = "SELECT GRANTEE FROM DBA_SYS_PRIVS WHERE PRIVILEGE = 'RESTRICTED SESSION'";
/// Roles that are enabled at a login.
const ROLES: &str = "SELECT GRANTEE, GRANTED_ROLE FROM DBA_ROLE_PRIVS WHERE DEFAULT_ROLE = 'YES'";

/// Results of the checks.
#[derive(Default)]
pub struct DmsListener {
    /// Obstacles for DMS's connections.
    pub obstacles: Vec<String>,
    pub remarks: Vec<String>,
}

/// Why the listener's service has to be registered statically.
fn needs_static(params: &OracleReady) -> Option<&'static str> {
    if params.restrict_logins {
        Some("with logins restricted DMS would be refused there (ORA-12526)")
    } else if params.canary_table.is_some() {
        // Only a plan with a reverse task names a canary table.
        Some(
            "the reverse task logs in there when all other listeners are down, and an instance \
             may register late, or never where LOCAL_LISTENER doesn't name this listener",
        )
    } else {
        None
    }
}

/// Whether the user has the privilege directly, through PUBLIC, or through
/// roles.
fn holds(user: &str, holders: &[String], roles: &[(String, String)]) -> bool {
    let mut reached = BTreeSet::from([user.to_uppercase(), "PUBLIC".to_owned()]);
    loop {
        let further: Vec<&String> = roles
            .iter()
            .filter(|(grantee, role)| reached.contains(grantee) && !reached.contains(role))
            .map(|(_, role)| role)
            .collect();
        if further.is_empty() {
            return holders.iter().any(|holder| reached.contains(holder));
        }
        reached.extend(further.into_iter().cloned());
    }
}

impl DmsListener {
    /// Checks the listener and the users.
    ///
    /// # Errors
    /// If a query or the listener control tool fails.
    pub async fn look(
        cx: &Context,
        session: &Session,
        params: &OracleReady,
    ) -> Result<Self, ActionError> {
        let mut dms_listener = Self::default();
        match &params.dms_listener {
            Some(name) => dms_listener.listener(cx, params, name).await?,
            None => dms_listener.remarks.push(
                "no listener stays up for DMS: a session of DMS that drops can't come back"
                    .to_owned(),
            ),
        }
        if params.restrict_logins {
            dms_listener
                .privileges(session, &params.exempt.users)
                .await?;
        }
        Ok(dms_listener)
    }

    async fn listener(
        &mut self,
        cx: &Context,
        params: &OracleReady,
        name: &String,
    ) -> Result<(), ActionError> {
        let listeners = Listeners::of(cx, &params.resource).await?;
        if !listeners.except(&[]).contains(name) {
            self.obstacles.push(format!(
                "the listener {name} reserved for DMS is not one of this agent's; name it in \
                 oracle.{}.listeners in agent.toml",
                params.resource
            ));
            return Ok(());
        }
        if !listeners.state(cx, name).await?.up {
            self.obstacles.push(format!(
                "the listener {name} reserved for DMS is down; start it"
            ));
            return Ok(());
        }
        self.registration(cx, &listeners, name, needs_static(params))
            .await?;
        self.nodes(&listeners, name);
        Ok(())
    }

    async fn registration(
        &mut self,
        cx: &Context,
        listeners: &Listeners,
        name: &str,
        needed: Option<&str>,
    ) -> Result<(), ActionError> {
        match lsnrctl::has_static_service(cx, listeners.config(), name).await {
            Ok(true) => {}
            Ok(false) => {
                let what = format!(
                    "{name} offers no service registered statically for the instance {}; name it \
                     in SID_LIST_{name} of its listener.ora (entries for external procedures and \
                     for Data Guard's broker don't count)",
                    listeners.config().sid
                );
                match needed {
                    Some(why) => self.obstacles.push(format!("{what}: {why}")),
                    None => self.remarks.push(what),
                }
            }
            // Under Clusterware the agent only needs to be able to run srvctl;
            // a failure of lsnrctl is therefore no error.
            Err(e) if listeners.clustered() => self.remarks.push(format!(
                "whether {name} offers its service by static registration is not known ({e}); it \
                 must with a reverse task, and where logins are restricted"
            )),
            Err(e) => return Err(e),
        }
        Ok(())
    }

    /// A firewall can't be detected from here, so this is no obstacle.
    fn nodes(&mut self, listeners: &Listeners, name: &str) {
        let path = sqlnet::path(listeners.config());
        let checks = std::fs::read_to_string(&path).is_ok_and(|text| sqlnet::checks_nodes(&text));
        let others = listeners.except(&[name.to_owned()]);
        self.remarks.push(if !checks {
            format!(
                "nothing shows that {name} lets in DMS alone: see that a firewall does it, or a \
                 TNS_ADMIN of that listener's own with TCP.VALIDNODE_CHECKING, or \
                 DBMS_SFW_ACL_ADMIN (VALID_NODE_CHECKING_REGISTRATION limits who registers, not \
                 who connects)"
            )
        } else if !others.is_empty() {
            format!(
                "{} admits certain nodes only, and applies to {} as well as to {name} from their \
                 next start: a rollback would shut out every application that isn't invited",
                path.display(),
                others.join(", ")
            )
        } else {
            return;
        });
    }

    async fn privileges(&mut self, session: &Session, users: &[String]) -> Result<(), ActionError> {
        let holders: Vec<String> = session.rows(HOLDERS, &[]).await?;
        let roles: Vec<(String, String)> = session.rows(ROLES, &[]).await?;
        let without = users.iter().filter(|user| !holds(user, &holders, &roles));
        self.obstacles.extend(without.map(|user| {
            format!(
                "DMS's user {user} lacks the privilege RESTRICTED SESSION and would be refused \
                 with logins restricted (ORA-01035); grant it, or leave restrict_logins off"
            )
        }));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_privilege_comes_by_roles_of_roles_too() {
        let roles = [("DMS", "A"), ("A", "B"), ("B", "A"), ("OTHER", "C")]
            .map(|(grantee, role)| (grantee.to_owned(), role.to_owned()));
        let held_by = |holder: &str| holds("dms", &[holder.to_owned()], &roles);
        assert!(held_by("DMS") && held_by("B") && held_by("PUBLIC"));
        assert!(!held_by("C") && !held_by("OTHER"));
        assert!(!holds("DMS", &[], &roles));
    }
}

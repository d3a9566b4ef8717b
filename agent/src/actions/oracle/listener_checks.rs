//! What has to be known before listeners are stopped: which other databases
//! would lose their logins, and whether Clusterware lets the agent do it.
//!
//! A listener serves every instance that registers with it (LOCAL_LISTENER,
//! REMOTE_LISTENER) and every one that `SID_LIST` in its listener.ora names
//! (Oracle Database Net Services Administrator's Guide, "Registering Information
//! with a Local Listener"); SCAN listeners serve those of the whole cluster.

use super::listeners::Listeners;
use crate::action::{ActionError, Context, Description};
use crate::config::OracleConfig;
use crate::host::crsctl::{self, Acl, Identity};
use crate::host::lsnrctl::{self, Served};
use crate::host::oracle::Session;
use lockstep_api::Code;
use std::collections::BTreeMap;

/// Open instances of this database.
const INSTANCES: &str = "SELECT INSTANCE_NAME FROM GV$INSTANCE";

/// In `also_serves`: any instance.
const ANY: &str = "*";

const REMEDY: &str = "give this database a listener of its own, or name the instance in also_serves \
     (`*`: any)";

/// Other instances that listeners serve.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct OtherInstances {
    /// Not admitted by the plan.
    refused: Vec<String>,
    remarks: Vec<String>,
}

impl OtherInstances {
    /// Asks those of the listeners that are up.
    ///
    /// # Errors
    /// If lsnrctl fails for a listener that isn't under Clusterware.
    pub async fn of(
        cx: &Context,
        listeners: &Listeners,
        up: &[String],
        resource: &str,
        also_serves: &[String],
    ) -> Result<Self, ActionError> {
        let mut all = Self::default();
        if up.is_empty() {
            return Ok(all);
        }
        let own = own_instances(cx, listeners.config(), resource).await;
        for name in up {
            match lsnrctl::services(cx, listeners.config(), name).await {
                Ok(served) => all.judge(name, &served, &own, also_serves),
                // A SCAN listener may run on another node, and Clusterware's
                // listeners may belong to a user whom lsnrctl obeys alone.
                Err(e) if listeners.clustered() => {
                    let what = format!("which instances {name} serves isn't known ({e})");
                    if also_serves.iter().any(|one| one == ANY) {
                        all.remarks.push(what);
                    } else {
                        all.refused.push(what);
                    }
                }
                Err(e) => return Err(e),
            }
        }
        Ok(all)
    }

    fn judge(&mut self, name: &str, served: &[Served], own: &[String], also_serves: &[String]) {
        let among = |names: &[String], instance: &str| {
            names.iter().any(|one| one.eq_ignore_ascii_case(instance))
        };
        let mut others: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for Served { service, instance } in served {
            if !among(own, instance) {
                others.entry(instance).or_default().push(service);
            }
        }
        for (instance, services) in others {
            // Names of Oracle's storage instances begin with a plus sign.
            if instance.starts_with('+') {
                self.remarks.push(format!(
                    "{name} also serves {instance}; databases of this host reach it without a \
                     listener, other clients don't"
                ));
                continue;
            }
            let what = format!(
                "{name} also serves the instance {instance} (service {}), which is no open instance \
                 of this database; its clients can't log in while {name} is down",
                services.join(", ")
            );
            if among(also_serves, instance) || among(also_serves, ANY) {
                self.remarks.push(format!("{what}; the plan admits that"));
            } else {
                self.refused.push(what);
            }
        }
    }

    pub fn describe(self, description: &mut Description) {
        let obstacles = self.refused.iter().map(|what| format!("{what}; {REMEDY}"));
        description.obstacles.extend(obstacles);
        description.remarks.extend(self.remarks);
    }

    /// # Errors
    /// If the plan doesn't admit one of them.
    pub fn verdict(&self) -> Result<(), ActionError> {
        if self.refused.is_empty() {
            return Ok(());
        }
        Err(ActionError::new(Code::LS2216, self.refused.join("; "))
            .state_left("nothing was done")
            .remedy(REMEDY))
    }
}

/// While this instance is down, only its own name is known.
async fn own_instances(cx: &Context, config: &OracleConfig, resource: &str) -> Vec<String> {
    let open = async {
        let session = Session::open(cx, resource).await?;
        Ok::<Vec<String>, ActionError>(session.rows(INSTANCES, &[]).await?)
    };
    let mut all = open.await.unwrap_or_default();
    all.push(config.sid.clone());
    all
}

/// Reports which of the permissions `w` (enable, disable) and `x` (start, stop) the
/// agent lacks in Clusterware.
///
/// # Errors
/// If the agent's own user can't be determined.
pub async fn permissions(
    cx: &Context,
    listeners: &Listeners,
    names: &[String],
    needed: &[char],
    description: &mut Description,
) -> Result<(), ActionError> {
    if !listeners.clustered() || names.is_empty() {
        return Ok(());
    }
    if !crsctl::exists(listeners.config()) {
        description.remarks.push(format!(
            "whether Clusterware lets the agent disable listeners isn't known: {} has no bin/crsctl; \
             name the Grid home as grid_home in agent.toml",
            listeners.config().listener_home().display()
        ));
        return Ok(());
    }
    let identity = Identity::of_agent(cx).await?;
    for name in names {
        let resource = crsctl::resource(name);
        match Acl::of(cx, listeners.config(), &resource).await {
            Ok(acl) => {
                let lacks = acl.lacks(&identity, needed);
                description
                    .obstacles
                    .extend(refusal(&lacks, &identity, &resource));
            }
            Err(e) => description.obstacles.push(e.report()),
        }
    }
    Ok(())
}

fn refusal(lacks: &[char], Identity { user, .. }: &Identity, resource: &str) -> Option<String> {
    let verbs: Vec<&str> = lacks
        .iter()
        .map(|permission| match permission {
            'w' => "disable and enable",
            _ => "stop and start",
        })
        .collect();
    (!verbs.is_empty()).then(|| {
        format!(
            "Clusterware doesn't let {user} {} {resource}, by its ACL; as its owner or root: crsctl \
             setperm resource {resource} -u user:{user}:rwx",
            verbs.join(", or ")
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(all: &[&str]) -> Vec<String> {
        all.iter().map(|&one| one.to_owned()).collect()
    }

    fn judged(served: &[(&str, &str)], also_serves: &[&str]) -> OtherInstances {
        let served: Vec<Served> = served
            .iter()
            .map(|&(service, instance)| Served {
                service: service.into(),
                instance: instance.into(),
            })
            .collect();
        let mut all = OtherInstances::default();
        let own = texts(&["ORCL1", "ORCL2"]);
        all.judge("LISTENER", &served, &own, &texts(also_serves));
        all
    }

    #[test]
    fn instances_of_this_database_are_no_others() {
        let own = [("ORCL", "ORCL1"), ("ORCL", "orcl2"), ("ORCLXDB", "ORCL1")];
        assert_eq!(judged(&own, &[]), OtherInstances::default());
    }

    #[test]
    fn each_other_instance_is_named_once_with_its_services() {
        let served = [
            ("ORCL", "ORCL1"),
            ("CRM", "CRM1"),
            ("CRMXDB", "CRM1"),
            ("HR", "HR"),
        ];
        let all = judged(&served, &["hr"]);
        let [crm] = all.refused.as_slice() else {
            panic!("{all:?}");
        };
        let start = "LISTENER also serves the instance CRM1 (service CRM, CRMXDB), ";
        assert!(crm.starts_with(start), "{crm}");
        assert!(all.remarks[0].contains("the instance HR (service HR)"));
        assert_eq!(all.verdict().unwrap_err().code(), Code::LS2216);
        let any = judged(&served, &["*"]);
        assert_eq!((any.refused.len(), any.remarks.len()), (0, 2));
        any.verdict().unwrap();
    }

    #[test]
    fn storage_instances_are_only_remarked() {
        let all = judged(&[("+ASM", "+ASM1")], &[]);
        assert!(all.refused.is_empty() && all.remarks[0].contains("+ASM1"));
    }

    #[test]
    fn a_refusal_says_what_is_missing_and_how_to_grant_it() {
        let identity = Identity {
            user: "oracle".into(),
            groups: texts(&["oinstall"]),
        };
        assert_eq!(refusal(&[], &identity, "ora.LISTENER.lsnr"), None);
        let text = refusal(&['w'], &identity, "ora.LISTENER.lsnr").unwrap();
        assert!(text.contains("let oracle disable and enable ora.LISTENER.lsnr"));
        assert!(text.ends_with("crsctl setperm resource ora.LISTENER.lsnr -u user:oracle:rwx"));
    }
}

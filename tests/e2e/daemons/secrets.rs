//! What must not leave its host, or its file: contents of configuration
//! files, and whatever the agent's configuration only points at.

use crate::fleet::{Fleet, Moment, Plan};
use std::fs;
use std::path::{Path, PathBuf};

/// Sections of an agent that point at secrets.
const POINTING: &str = r"
[postgres.shop]
host = 'db.fleet.test'
dbname = 'shop'
user = 'lockstep'
password_file = '@DIR@/secrets/password'
ca = '@DIR@/pki/ca.pem'
[aws.cloud]
region = 'eu-central-1'
access_key_id_file = '@DIR@/secrets/key-id'
secret_access_key_file = '@DIR@/secrets/key'
";

const SWITCH: &str = r"
kind: Plan
name: switch
parties:
  apps: { labels: { role: app }, expected: 2 }
phases:
  - name: switch
    on_failure: rollback
    steps:
      - id: file
        party: apps
        action: config.switch
        params:
          path: '@DIR@/${agent.name}/etc/database.toml'
          to: '@DIR@/${agent.name}/etc/postgres.toml'
  - name: start
    on_failure: rollback
    steps:
      - { id: start, party: apps, action: command.run, params: { command: first } }
";

/// Texts that stand in one place each and must be found nowhere else.
const SECRETS: [(&str, &str); 5] = [
    ("secrets/password", "canary-password-5f2a"),
    ("secrets/key-id", "canary-key-id-71c0"),
    ("secrets/key", "canary-key-d9e4"),
    ("app-1/etc/database.toml", "canary-oracle-83b6"),
    ("app-1/etc/postgres.toml", "canary-postgres-0a7d"),
];

fn files(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, found);
        } else {
            found.push(path);
        }
    }
}

#[test]
fn secrets_and_contents_stay_where_they_are() {
    let agents = ["app-1", "app-2"];
    let plan = Plan {
        agents: &agents,
        agent_extra: POINTING,
        otlp: "",
    };
    let mut fleet = Fleet::bare(&plan);
    fs::create_dir(fleet.path("secrets")).unwrap();
    for (file, secret) in SECRETS {
        fs::write(fleet.path(file), format!("value = '{secret}'\n")).unwrap();
    }
    fleet.start_coordinator();
    for agent in agents {
        fleet.start_agent(agent);
    }
    fleet.wait_connected(&agents);

    let plan = fleet.plan("switch", SWITCH);
    fleet.host("app-2").spoil("first");
    let mut said = String::new();
    for arguments in [
        &["preflight", &plan][..],
        &["run", "start", &plan, "--watch"],
        &["run", "show"],
        &["run", "events"],
        &["agents", "list"],
    ] {
        said += &fleet.lockstep(arguments).to_string();
    }
    assert_eq!(fleet.count("app-1", "first", Moment::Begins), 1);
    fleet.stop();

    let mut all = Vec::new();
    files(&fleet.path(""), &mut all);
    assert!(
        all.iter()
            .any(|path| path.ends_with("app-1/state/agent.db"))
    );
    assert!(all.iter().any(|path| path.ends_with("coordinator.log")));
    for (file, secret) in SECRETS {
        assert!(!said.contains(secret), "{secret} was printed");
        let home = fleet.path(file);
        for path in all.iter().filter(|path| **path != home) {
            let bytes = fs::read(path).unwrap();
            let there = bytes
                .windows(secret.len())
                .any(|window| window == secret.as_bytes());
            assert!(!there, "{secret} is in {}", path.display());
        }
    }
}

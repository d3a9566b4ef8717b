//! What must not leave its host, or its file: contents of configuration
//! files, and whatever the agent's configuration only points at.

use crate::fleet::{Fleet, Moment, Plan};
use sha2::{Digest, Sha256};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Sections of an agent that point at secrets.
const POINTING: &str = r"
[postgres.shop]
host = '127.0.0.1'
port = 1
dbname = 'shop'
user = 'lockstep'
password_file = '@DIR@/secrets/password'
ca = '@DIR@/pki/ca.pem'
[aws.cloud]
region = 'eu-central-1'
endpoint_url = 'http://127.0.0.1:1'
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

/// What fails with each of the secrets in hand: nothing listens there.
const LOGINS: &str = r"
kind: Plan
name: logins
parties:
  apps: { labels: { role: app }, expected: 2 }
phases:
  - name: look
    on_failure: hold
    steps:
      - { id: analyze, party: apps, action: postgres.analyze, params: { resource: shop, schemas: [shop] } }
      - { id: task, party: apps, action: dms.task.ready, params: { resource: cloud, task: 'arn:aws:dms:eu-central-1:1:task:T' } }
";

/// Texts that stand in one place each and must be found nowhere else.
const SECRETS: [(&str, &str); 5] = [
    ("secrets/password", "canary-password-5f2a"),
    ("secrets/key-id", "canary-key-id-71c0"),
    ("secrets/key", "canary-key-d9e4"),
    ("app-1/etc/database.toml", "canary-oracle-83b6"),
    ("app-1/etc/postgres.toml", "canary-postgres-0a7d"),
];

fn content(secret: &str) -> String {
    format!("value = '{secret}'\n")
}

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

fn log_all_and_allow_all(config: &Path) {
    let text = fs::read_to_string(config).unwrap();
    let text = text
        .replace("['cron.*',", "['cron.*', 'postgres.*', 'dms.*',")
        .replace("[telemetry]\n", "[telemetry]\nlog = 'trace'\n");
    fs::write(config, text).unwrap();
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
        let path = fleet.path(file);
        fs::write(&path, content(secret)).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    }
    for agent in agents {
        log_all_and_allow_all(&fleet.host(agent).path("agent.toml"));
    }
    fleet.start_coordinator();
    for agent in agents {
        fleet.start_agent(agent);
    }
    fleet.wait_connected(&agents);

    let plan = fleet.plan("switch", SWITCH);
    let logins = fleet.plan("logins", LOGINS);
    fleet.host("app-2").spoil("first");
    let mut said = String::new();
    for arguments in [
        &["preflight", &logins][..],
        &["preflight", &plan],
        &["run", "start", &plan, "--watch"],
        &["run", "show"],
        &["run", "events"],
        &["agents", "list"],
    ] {
        said += &fleet.lockstep(arguments).to_string();
    }
    for tried in ["LS2301", "LS2401"] {
        assert!(said.contains(tried), "no login was tried: {said}");
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
        // A password that can be guessed can be guessed from its digest, too.
        let digest = hex::encode(Sha256::digest(content(secret)));
        assert!(
            !said.contains(&digest),
            "the digest of {secret} was printed"
        );
        let home = fleet.path(file);
        for path in all.iter().filter(|path| **path != home) {
            let bytes = fs::read(path).unwrap();
            let there = bytes
                .windows(secret.len())
                .any(|window| window == secret.as_bytes());
            assert!(!there, "{secret} is in {}", path.display());
            let digest = digest.as_bytes();
            let there = bytes.windows(digest.len()).any(|window| window == digest);
            assert!(!there, "the digest of {secret} is in {}", path.display());
        }
    }
}

//! A coordinator, its agents and an operator, with certificates, directories
//! and an address of their own.
//!
//! A fleet ends every process that it started and removes its directory when
//! it is dropped, whether the test came to its end or panicked.

mod command;
mod host;
mod process;
mod wait;

pub use command::{CommandOutput, Following, phase, task};
pub use host::{Effect, Host, Moment, Snapshot};
use lockstep_pki::{Authority, Identity, IssuedFiles, Role};
use process::Daemon;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;
pub use wait::until;

/// Longer than any test, and short enough to be no secret worth keeping.
const VALIDITY: Duration = Duration::from_secs(3600);

/// Commands that every agent's policy names; what they do: [`Host`].
const COMMANDS: [&str; 3] = ["first", "second", "third"];

/// What a fleet is made of, before it is started.
pub struct Plan<'a> {
    /// Names of the agents; each carries the labels `role=app` and its name
    /// as `host`.
    pub agents: &'a [&'a str],
    /// Sections to add to every agent's configuration; `@DIR@` stands for the
    /// fleet's directory.
    pub agent_extra: &'a str,
    /// Address of a collector of traces; empty: none.
    pub otlp: &'a str,
}

pub struct Fleet {
    // Dropped in this order: processes end before their directory goes.
    coordinator: Option<Daemon>,
    agents: BTreeMap<String, Daemon>,
    address: SocketAddr,
    authority: Authority,
    dir: tempfile::TempDir,
}

impl Fleet {
    /// A fleet with these agents, all of them connected.
    pub fn of(agents: &[&str]) -> Self {
        Self::start(&Plan {
            agents,
            agent_extra: "",
            otlp: "",
        })
    }

    /// A fleet made so, with every agent connected.
    pub fn start(plan: &Plan<'_>) -> Self {
        let mut fleet = Self::bare(plan);
        fleet.start_coordinator();
        for agent in plan.agents {
            fleet.start_agent(agent);
        }
        fleet.wait_connected(plan.agents);
        fleet
    }

    /// Everything on disk, nothing started.
    pub fn bare(plan: &Plan<'_>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let domain = "fleet.test".parse().unwrap();
        let authority = Authority::create(&dir.path().join("pki"), domain).unwrap();
        let fleet = Self {
            coordinator: None,
            agents: BTreeMap::new(),
            address: free_address(),
            authority,
            dir,
        };
        fleet.issue(Role::Operator, "ana");
        fleet.configure_coordinator(plan);
        for agent in plan.agents {
            fleet.configure_agent(agent, plan);
        }
        fleet
    }

    /// Issues a certificate of this fleet's authority.
    pub fn issue(&self, role: Role, name: &str) -> IssuedFiles {
        let identity = Identity::new(role, name).unwrap();
        // Only a foreign client checks the coordinator's address.
        let hosts = match role {
            Role::Coordinator => vec![self.address.ip().to_string()],
            Role::Agent | Role::Operator => Vec::new(),
        };
        let issued = self.authority.issue(&identity, VALIDITY, &hosts).unwrap();
        issued.write(&self.pki()).unwrap()
    }

    fn pki(&self) -> PathBuf {
        self.path("pki")
    }

    fn tls(&self, name: &str) -> String {
        let pki = self.pki().display().to_string();
        format!(
            "[tls]\nca = '{pki}/ca.pem'\ncert = '{pki}/{name}.pem'\nkey = '{pki}/{name}-key.pem'\n\
             trust_domain = 'fleet.test'\n"
        )
    }

    fn configure_coordinator(&self, plan: &Plan<'_>) {
        self.issue(Role::Coordinator, "c1");
        let text = format!(
            "name = 'c1'\nlisten = '{}'\nstate_dir = '{}'\n{}[telemetry]\notlp = '{}'\n",
            self.address,
            self.path("coordinator").display(),
            self.tls("c1"),
            plan.otlp,
        );
        fs::write(self.path("coordinator.toml"), text).unwrap();
    }

    fn configure_agent(&self, name: &str, plan: &Plan<'_>) {
        self.issue(Role::Agent, name);
        let host = self.host(name);
        host.furnish(&COMMANDS);
        let dir = host.path("");
        let mut text = format!(
            "name = '{name}'\ncoordinator = '{}'\nstate_dir = '{dir}state'\n{}\
             [labels]\nrole = 'app'\nhost = '{name}'\n\
             [telemetry]\notlp = '{}'\n{}\
             [policy]\nactions = ['cron.*', 'config.switch', 'command.run', 'check.*']\n\
             paths = ['{dir}etc']\n",
            self.address,
            self.tls(name),
            plan.otlp,
            plan.agent_extra
                .replace("@DIR@", &self.dir.path().display().to_string()),
            dir = dir.display(),
        );
        for command in COMMANDS {
            let script = host.path("bin").join(command).display().to_string();
            text += &format!("[policy.commands.{command}]\nargv = ['/bin/sh', '{script}']\n");
        }
        fs::write(host.path("agent.toml"), text).unwrap();
    }

    /// A path in the fleet's directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Where the coordinator serves.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// A host by its agent's name.
    pub fn host(&self, name: &str) -> Host {
        Host::new(self.dir.path(), name)
    }

    /// Starts the coordinator and waits until it serves.
    pub fn start_coordinator(&mut self) {
        self.start_coordinator_with(&[]);
    }

    /// The same, with these arguments.
    pub fn start_coordinator_with(&mut self, arguments: &[&str]) {
        self.spawn_coordinator(arguments, &[]);
        until("the coordinator to serve", || {
            TcpStream::connect(self.address).ok()
        });
    }

    /// The same with this environment, without waiting.
    pub fn spawn_coordinator(&mut self, arguments: &[&str], environment: &[(&str, &str)]) {
        let config = self.path("coordinator.toml");
        let log = self.path("coordinator.log");
        let given = (arguments, environment);
        let coordinator = Daemon::start("lockstep-coordinator", &config, given, &log);
        self.coordinator = Some(coordinator);
    }

    pub fn start_agent(&mut self, name: &str) {
        self.start_agent_in(name, &[]);
    }

    /// The same with this environment.
    pub fn start_agent_in(&mut self, name: &str, environment: &[(&str, &str)]) {
        let config = self.host(name).path("agent.toml");
        let log = self.path(&format!("{name}.log"));
        let agent = Daemon::start("lockstep-agent", &config, (&[], environment), &log);
        self.agents.insert(name.to_owned(), agent);
    }

    /// Whether this daemon (`coordinator`, or an agent) has ended by itself.
    pub fn has_ended(&mut self, name: &str) -> bool {
        let daemon = match self.agents.get_mut(name) {
            Some(agent) => Some(agent),
            None => self.coordinator.as_mut(),
        };
        daemon.is_some_and(|daemon| daemon.ended().is_some())
    }

    /// `kill -9` of the coordinator.
    pub fn kill_coordinator(&mut self) {
        self.coordinator = None;
    }

    /// Ends the coordinator in good order.
    pub fn stop_coordinator(&mut self) {
        self.coordinator.take().unwrap().stop();
    }

    /// `kill -9` of an agent.
    pub fn kill_agent(&mut self, name: &str) {
        self.agents.remove(name).unwrap();
    }

    /// Kills the coordinator and starts it again.
    pub fn restart_coordinator(&mut self) {
        self.kill_coordinator();
        self.start_coordinator();
    }

    /// Freezes an agent: its session stands, and it says nothing.
    pub fn freeze(&self, name: &str) {
        self.agents[name].signal(libc::SIGSTOP);
    }

    /// Lets a frozen agent go on.
    pub fn thaw(&self, name: &str) {
        self.agents[name].signal(libc::SIGCONT);
    }

    /// Waits until an agent has ended by itself.
    pub fn agent_ended(&mut self, name: &str) -> ExitStatus {
        let agent = self.agents.get_mut(name).unwrap();
        until(&format!("{name} to end"), || agent.ended())
    }

    /// Tells all daemons to end and waits until they have: what they still
    /// have to send (spans) is on its way then.
    pub fn stop(&mut self) {
        for (_, mut agent) in std::mem::take(&mut self.agents) {
            agent.stop();
        }
        self.stop_coordinator();
    }

    /// What a daemon has logged.
    pub fn log(&self, name: &str) -> String {
        fs::read_to_string(self.path(&format!("{name}.log"))).unwrap_or_default()
    }

    /// Waits until all these agents are connected.
    pub fn wait_connected(&self, agents: &[&str]) {
        until(&format!("{agents:?} to be connected"), || {
            let known = self.lockstep(&["agents", "list"]).json;
            agents
                .iter()
                .all(|name| {
                    let mut known = known.as_array().into_iter().flatten();
                    known.any(|agent| agent["name"] == *name && agent["connected"] == true)
                })
                .then_some(())
        });
    }

    /// How an agent stands.
    pub fn agent(&self, name: &str) -> Value {
        self.lockstep(&["agents", "show", name]).json
    }

    /// Writes a plan; `@DIR@` in it stands for the fleet's directory.
    pub fn plan(&self, name: &str, text: &str) -> String {
        let path = self.path(&format!("{name}.yaml"));
        fs::write(
            &path,
            text.replace("@DIR@", &self.dir.path().display().to_string()),
        )
        .unwrap();
        path.display().to_string()
    }

    /// Calls the command as the operator ana.
    pub fn lockstep(&self, arguments: &[&str]) -> CommandOutput {
        self.lockstep_as("ana", arguments)
    }

    /// Calls the command with that certificate.
    pub fn lockstep_as(&self, name: &str, arguments: &[&str]) -> CommandOutput {
        command::lockstep(self.address, &self.pki(), "ca.pem", name, arguments)
    }

    /// The same, trusting the authorities in that file.
    pub fn lockstep_trusting(&self, ca: &str, name: &str, arguments: &[&str]) -> CommandOutput {
        command::lockstep(self.address, &self.pki(), ca, name, arguments)
    }

    /// Starts a run and gives its id.
    pub fn run(&self, plan: &str) -> String {
        let output = self.lockstep(&["run", "start", plan]);
        assert_eq!(output.code, 0, "{output}");
        output.json["id"].as_str().unwrap().to_owned()
    }

    /// Watches a run until it ends or waits for an operator.
    pub fn watch(&self, run: &str) -> CommandOutput {
        self.lockstep(&["run", "watch", run, "--timeout", wait::LIMIT_TEXT])
    }

    /// Watches a run beside the test, until it ends or waits.
    pub fn follow(&self, run: &str) -> Following {
        let arguments = ["run", "watch", run, "--timeout", wait::LIMIT_TEXT];
        command::follow(self.address, &self.pki(), "ana", &arguments)
    }

    /// Asks for something about a run, then watches it.
    pub fn then_watch(&self, arguments: &[&str]) -> CommandOutput {
        let mut all = arguments.to_vec();
        all.extend(["--watch", "--timeout", wait::LIMIT_TEXT]);
        self.lockstep(&all)
    }

    /// How a run stands.
    pub fn show(&self, run: &str) -> Value {
        let output = self.lockstep(&["run", "show", run]);
        assert_eq!(output.code, 0, "{output}");
        output.json
    }

    pub fn events(&self, run: &str) -> Vec<Value> {
        let output = self.lockstep(&["run", "events", run]);
        output.json.as_array().unwrap().clone()
    }

    /// Everything that commands did on all hosts, in the order in which it
    /// happened.
    pub fn effects(&self) -> Vec<Effect> {
        host::effects(self.dir.path())
    }

    /// How often a command has come to that moment on a host.
    pub fn count(&self, agent: &str, command: &str, moment: Moment) -> usize {
        let wanted = Effect::new(agent, command, moment);
        self.effects().iter().filter(|e| **e == wanted).count()
    }

    /// Waits until a command has come to that moment on a host.
    pub fn wait_for(&self, agent: &str, command: &str, moment: Moment) {
        until(&format!("{command} on {agent}: {moment:?}"), || {
            (self.count(agent, command, moment) > 0).then_some(())
        });
    }

    /// What stands in every host's `etc`.
    pub fn snapshot(&self, agents: &[&str]) -> Snapshot {
        agents
            .iter()
            .flat_map(|name| self.host(name).snapshot())
            .collect()
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let mut names: Vec<&str> = self.agents.keys().map(String::as_str).collect();
            names.push("coordinator");
            for name in names {
                eprintln!("--- log of {name}\n{}", self.log(name));
            }
        }
    }
}

/// An address of the loopback network that no other process uses, derived from this
/// process and a count, and a port that is free on it: the coordinator must
/// come back to the same one.
fn free_address() -> SocketAddr {
    static FLEETS: AtomicU8 = AtomicU8::new(2);
    let [.., high, low] = std::process::id().to_be_bytes();
    let address = Ipv4Addr::new(127, high, low, FLEETS.fetch_add(1, Ordering::Relaxed));
    let listener = TcpListener::bind((address, 0)).unwrap();
    listener.local_addr().unwrap()
}

/// One of the shipped binaries.
fn binary(name: &str) -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let dir = test.parent().and_then(Path::parent).unwrap();
    let path = dir.join(name);
    assert!(
        path.exists(),
        "{} is missing: cargo build --workspace makes it",
        path.display()
    );
    path
}

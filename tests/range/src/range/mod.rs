//! The rehearsal range: a whole migration landscape on one machine.
//!
//! Real: the PostgreSQL server, systemd on every host, TLS, the product's
//! binaries, the database drivers. Simulated: Oracle and DMS. Everything the
//! range starts lives in control groups of its own and is ended by them, also
//! after a failure; all files are under one directory, which stays after the
//! end for a look at the logs and is removed by the next start.
//!
//! One range at a time runs on a machine: ports, control groups and the two
//! cores are shared. A lock that dies with its holder sees to it.

pub mod agents;
pub mod applications;
mod cgroup;
pub mod dms;
mod error;
mod host;
pub mod layout;
pub mod oracle;
pub mod postgres;
mod prerequisites;
mod process;
pub mod realism;
mod secrets;
pub mod wait;

use cgroup::Group;
pub use error::{Error, Missing};
pub use host::Host;
use host::Sketch;
use layout::Layout;
pub use process::{Listed, Process, run, tail};
use std::fs::File;
use std::net::Ipv4Addr;
use std::path::Path;

/// Held while a range is up; released by the kernel when its holder ends.
const LOCK: &str = "/run/lockstep-range.lock";

/// How large a range is, and what belongs to it.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Application hosts; at least three, since the second has a timer and
    /// the third a crontab.
    pub apps: u8,
    /// Orders a second, all application hosts together.
    pub rate: u32,
    /// Whether coordinator and agents are started too.
    pub product: bool,
    /// Whether it has what [`realism`] adds.
    pub realistic: bool,
    /// Whether agents reach the coordinator through links of the caller's, on
    /// [`layout::ports::link`].
    pub links: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            apps: 3,
            rate: 210,
            product: true,
            realistic: false,
            links: false,
        }
    }
}

/// A range that is up.
#[derive(Debug)]
pub struct Range {
    pub layout: Layout,
    /// The hosts, Oracle's first.
    pub hosts: Vec<Host>,
    pub oracle: oracle::Oracle,
    pub postgres: postgres::Postgres,
    pub dms: dms::Dms,
    links: bool,
    running: Running,
}

/// Everything that must be ended, whatever happens.
#[derive(Debug)]
struct Running {
    processes: Vec<Process>,
    daemons: Group,
    list: std::path::PathBuf,
    keep: bool,
    _lock: File,
}

impl Range {
    /// Starts a range; what an earlier one left behind is ended and removed.
    ///
    /// # Errors
    /// [`Error::Missing`] before anything is started; later errors leave
    /// nothing running.
    pub fn start(options: Options) -> Result<Self, Error> {
        let layout = Layout::of_this_checkout();
        let missing = || prerequisites::missing(&layout, options);
        let lock = lock().map_err(|error| prerequisites::with_all(error, missing))?;
        Group::top().end()?;
        let missing = missing();
        if !missing.is_empty() {
            return Err(Error::Missing(missing));
        }
        if layout.root.exists() {
            std::fs::remove_dir_all(&layout.root).map_err(Error::file("remove", &layout.root))?;
        }
        std::fs::create_dir_all(&layout.root).map_err(Error::file("create", &layout.root))?;
        let running = Running {
            processes: Vec::new(),
            daemons: Group::create("daemons")?,
            list: layout.rehearsal.join("processes.json"),
            keep: false,
            _lock: lock,
        };
        Self::bring_up(layout, options, running)
    }

    /// `running` ends what it holds when this fails.
    fn bring_up(layout: Layout, options: Options, mut running: Running) -> Result<Self, Error> {
        let sketches = sketches(options.apps);
        let names: Vec<String> = sketches.iter().map(|sketch| sketch.name.clone()).collect();
        let passwords = secrets::Passwords::mint(&layout)?;
        secrets::certify(&layout, &names)?;
        let (postgres, process) =
            postgres::Postgres::start(&layout, &running.daemons, &passwords.postgres)?;
        running.add([process])?;
        let (oracle, process) = oracle::Oracle::start(&layout, &running.daemons, &passwords)?;
        running.add([process])?;
        if options.realistic {
            realism::neighbour(&oracle)?;
        }
        let timing = if options.realistic {
            realism::DMS_TIMING
        } else {
            ""
        };
        let (dms, process) =
            dms::Dms::start(&layout, &running.daemons, &passwords, (&postgres, timing))?;
        running.add([process])?;

        let rate = options.rate.div_ceil(u32::from(options.apps.max(1)));
        let mut hosts = Vec::new();
        for (index, sketch) in (1..).zip(&sketches) {
            Host::lay_out(&layout, sketch, &sketches)?;
            applications::lay_out(&layout, sketch, index, rate, &passwords, &postgres.ca)?;
            if options.realistic {
                realism::lay_out(&layout, sketch)?;
            }
            let (host, processes) = Host::start(&layout, sketch, &running.daemons)?;
            running.add(processes)?;
            hosts.push(host);
        }
        for host in &hosts {
            applications::start(host)?;
            if options.realistic {
                realism::start(&layout, host)?;
            }
        }
        let mut range = Self {
            layout,
            hosts,
            oracle,
            postgres,
            dms,
            links: options.links,
            running,
        };
        range.start_forgotten_client()?;
        if options.product {
            range.start_coordinator()?;
            for host in range.hosts.clone() {
                range.start_agent(&host)?;
            }
        }
        Ok(range)
    }

    /// Starts the coordinator, also again after a kill.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn start_coordinator(&mut self) -> Result<(), Error> {
        let process = agents::start_coordinator(&self.layout, &self.running.daemons)?;
        self.running.add([process])
    }

    /// Starts a host's agent, also again after a kill.
    ///
    /// # Errors
    /// When it can't be started at all.
    pub fn start_agent(&mut self, host: &Host) -> Result<(), Error> {
        let launch = agents::agent(&self.layout, host, &self.postgres, self.links)?;
        let process = Process::start(&launch, &self.running.daemons)?;
        self.running.add([process])
    }

    /// Starts the client that no unit owns.
    ///
    /// # Errors
    /// When it can't be started at all.
    pub fn start_forgotten_client(&mut self) -> Result<(), Error> {
        let Some(host) = self.host(applications::FORGOTTEN_ON) else {
            return Ok(());
        };
        let launch = applications::forgotten(&self.layout, host)?;
        let process = Process::start(&launch, &self.running.daemons)?;
        self.running.add([process])
    }

    /// Ends the client that no unit owns; what it was told is then on disk.
    pub fn stop_forgotten_client(&mut self) {
        let all = &mut self.running.processes;
        let is_it = |p: &Process| p.listed.role == applications::FORGOTTEN;
        if let Some(at) = all.iter().position(is_it) {
            all.remove(at).stop();
        }
    }

    /// Kills a process as a power cut would: `kill("agent", "ora-1")`. Gives
    /// whether there was one.
    pub fn kill(&mut self, role: &str, name: &str) -> bool {
        let found = self
            .running
            .processes
            .iter()
            .position(|p| p.listed.role == role && p.listed.name == name);
        found.is_some_and(|at| {
            let mut process = self.running.processes.remove(at);
            process.kill();
            true
        })
    }

    /// Sends a process a signal, such as SIGSTOP.
    pub fn signal(&self, role: &str, name: &str, signal: i32) {
        let mut processes = self.running.processes.iter();
        let found = processes.find(|p| p.listed.role == role && p.listed.name == name);
        if let Some(process) = found {
            process.signal(signal);
        }
    }

    /// The processes that the range has started.
    #[must_use]
    pub fn processes(&self) -> Vec<Listed> {
        self.running
            .processes
            .iter()
            .map(|process| process.listed.clone())
            .collect()
    }

    /// A host by name.
    #[must_use]
    pub fn host(&self, name: &str) -> Option<&Host> {
        self.hosts.iter().find(|host| host.name == name)
    }

    /// Leaves everything running when this goes.
    pub fn keep(mut self) {
        self.running.keep = true;
    }

    /// Ends everything that was started.
    ///
    /// # Errors
    /// When something survives even SIGKILL.
    pub fn stop(mut self) -> Result<(), Error> {
        self.running.end()
    }
}

impl Running {
    fn add(&mut self, processes: impl IntoIterator<Item = Process>) -> Result<(), Error> {
        self.processes.extend(processes);
        let listed: Vec<&Listed> = self.processes.iter().map(|p| &p.listed).collect();
        let text = serde_json::to_string_pretty(&listed).unwrap_or_default();
        host::write(&self.list, &text)
    }

    fn end(&mut self) -> Result<(), Error> {
        // The last started first: agents before hosts, hosts before databases.
        for process in self.processes.iter_mut().rev() {
            process.stop();
        }
        self.processes.clear();
        Group::top().end()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.keep
            && let Err(error) = self.end()
        {
            eprintln!("the range could not be ended: {error}");
        }
    }
}

/// The names of the hosts of a range with that many application hosts.
#[must_use]
pub fn host_names(apps: u8) -> Vec<String> {
    sketches(apps).into_iter().map(|host| host.name).collect()
}

/// The same with their addresses.
#[must_use]
pub fn host_addresses(apps: u8) -> Vec<(String, Ipv4Addr)> {
    let of = |host: Sketch| (host.name, host.address);
    sketches(apps).into_iter().map(of).collect()
}

/// The hosts: two for Oracle, one for PostgreSQL, the applications'.
fn sketches(apps: u8) -> Vec<Sketch> {
    let fixed = [("ora-1", 1), ("ora-2", 2), ("pg-1", 3)];
    let fixed = fixed
        .into_iter()
        .map(|(name, last)| (name.to_owned(), last));
    let apps = (1..=apps).map(|n| (format!("app-{n}"), 10 + n.min(200)));
    fixed
        .chain(apps)
        .map(|(name, last)| Sketch {
            name,
            address: Ipv4Addr::new(127, 0, 11, last),
        })
        .collect()
}

fn lock() -> Result<File, Error> {
    let path = Path::new(LOCK);
    let file = File::create(path).map_err(Error::file("open", path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(_) => Err(Error::Missing(vec![Missing {
            what: "the machine to itself: another rehearsal is running".into(),
            remedy: "wait for its end, or end it".into(),
        }])),
    }
}

/// A layout of its own for one test of a part of the range, and the lock that
/// keeps whole ranges away meanwhile.
#[cfg(test)]
fn for_test(name: &str) -> (Layout, File) {
    let lock = wait::until(
        "the machine to itself",
        std::time::Duration::from_secs(300),
        || Ok(lock().ok()),
    )
    .unwrap();
    Group::top().end().unwrap();
    let mut layout = Layout::of_this_checkout();
    layout.root = layout.rehearsal.join("part").join(name);
    if layout.root.exists() {
        std::fs::remove_dir_all(&layout.root).unwrap();
    }
    std::fs::create_dir_all(&layout.root).unwrap();
    std::fs::create_dir_all("/run/systemd/system").unwrap();
    (layout, lock)
}

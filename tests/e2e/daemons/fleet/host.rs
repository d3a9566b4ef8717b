//! A host: a directory with what an application host has of interest.
//!
//! `etc/` holds a configuration file, a link to one, and a crontab. `bin/`
//! holds the commands that the policy names, all alike: each says when it
//! begins and ends in one file that the whole fleet shares, and can be told
//! to wait or to fail.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

/// Lines are appended in one write each, so their order is that in which
/// things happened, on all hosts together.
const ORDER: &str = "order";

/// A moment of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    Begins,
    /// It has had its effect.
    Ends,
}

impl Moment {
    fn as_str(self) -> &'static str {
        match self {
            Self::Begins => "begins",
            Self::Ends => "ends",
        }
    }
}

/// Something that a command did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Effect {
    pub agent: String,
    pub command: String,
    /// `begins` or `ends`.
    pub moment: String,
}

impl Effect {
    /// This command at this moment.
    pub fn new(agent: &str, command: &str, moment: Moment) -> Self {
        Self {
            agent: agent.to_owned(),
            command: command.to_owned(),
            moment: moment.as_str().to_owned(),
        }
    }
}

/// What stands at each path: kind, mode, and content or target.
pub type Snapshot = BTreeMap<PathBuf, String>;

pub struct Host {
    fleet: PathBuf,
    name: String,
}

impl Host {
    pub(super) fn new(fleet: &Path, name: &str) -> Self {
        Self {
            fleet: fleet.to_owned(),
            name: name.to_owned(),
        }
    }

    /// A path in its directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.fleet.join(&self.name).join(name)
    }

    /// Content of a file.
    pub fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }

    /// Whether something stands there, be it a link into nowhere.
    pub fn has(&self, name: &str) -> bool {
        fs::symlink_metadata(self.path(name)).is_ok()
    }

    pub fn write(&self, name: &str, content: &str) {
        fs::write(self.path(name), content).unwrap();
    }

    /// The command waits from now on, once it has begun.
    pub fn hold(&self, command: &str) {
        self.write(&format!("hold-{command}"), "");
    }

    /// It waits no longer.
    pub fn let_go(&self, command: &str) {
        fs::remove_file(self.path(&format!("hold-{command}"))).unwrap();
    }

    /// The command fails from now on.
    pub fn spoil(&self, command: &str) {
        self.write(&format!("broken-{command}"), "");
    }

    /// It fails no longer.
    pub fn mend(&self, command: &str) {
        fs::remove_file(self.path(&format!("broken-{command}"))).unwrap();
    }

    pub(super) fn furnish(&self, commands: &[&str]) {
        for dir in ["bin", "etc"] {
            fs::create_dir_all(self.path(dir)).unwrap();
        }
        self.write("etc/oracle.toml", "database = 'oracle'\n");
        self.write("etc/postgres.toml", "database = 'postgres'\n");
        self.write("etc/database.toml", "database = 'oracle'\npool = 7\n");
        let mode = fs::Permissions::from_mode(0o640);
        fs::set_permissions(self.path("etc/database.toml"), mode).unwrap();
        symlink("oracle.toml", self.path("etc/current")).unwrap();
        self.write("etc/report", "* * * * * shop /srv/shop/report\n");
        for command in commands {
            self.write(&format!("bin/{command}"), &self.script(command));
        }
    }

    fn script(&self, command: &str) -> String {
        let (dir, name) = (self.path(""), &self.name);
        let (dir, order) = (dir.display(), self.fleet.join(ORDER));
        let order = order.display();
        format!(
            "cd '{dir}' || exit 1\n\
             echo '{name} {command} begins' >> '{order}'\n\
             while [ -e hold-{command} ]; do sleep 0.05; done\n\
             if [ -e broken-{command} ]; then echo '{command} is broken'; exit 3; fi\n\
             [ -e '{order}' ] && echo '{name} {command} ends' >> '{order}'\n"
        )
    }

    pub(super) fn snapshot(&self) -> Snapshot {
        let entries = fs::read_dir(self.path("etc")).unwrap();
        entries
            .map(|entry| {
                let path = entry.unwrap().path();
                let metadata = fs::symlink_metadata(&path).unwrap();
                let found = if metadata.is_symlink() {
                    format!("link to {}", fs::read_link(&path).unwrap().display())
                } else {
                    let content = fs::read_to_string(&path).unwrap();
                    format!("file {:o}: {content}", metadata.permissions().mode())
                };
                (path, found)
            })
            .collect()
    }
}

/// See [`super::Fleet::effects`].
pub fn effects(fleet: &Path) -> Vec<Effect> {
    let text = match fs::read_to_string(fleet.join(ORDER)) {
        Ok(text) => text,
        Err(e) if e.kind() == ErrorKind::NotFound => String::new(),
        Err(e) => panic!("{e}"),
    };
    text.lines()
        .map(|line| {
            let mut words = line.split(' ').map(str::to_owned);
            let mut word = || words.next().unwrap();
            Effect {
                agent: word(),
                command: word(),
                moment: word(),
            }
        })
        .collect()
}

//! Where everything of the range lies, and which ports it takes.
//!
//! All state is under one directory, so that removing it removes the range.
//! The ports are fixed: plans, client configuration and the documentation
//! name them, and only one range runs on a machine at a time.

use std::path::{Path, PathBuf};

/// TCP ports, all on loopback.
pub mod ports {
    /// ora-1's listener for applications.
    pub const ORA1_LISTENER: u16 = 15211;
    /// ora-1's listener reserved for DMS.
    pub const ORA1_LISTENER_DMS: u16 = 15212;
    /// ora-2's listener for applications.
    pub const ORA2_LISTENER: u16 = 15221;
    /// ora-2's SCAN listener.
    pub const ORA2_SCAN: u16 = 15222;
    pub const POSTGRES: u16 = 15432;
    /// The DMS and CloudWatch double.
    pub const DMS: u16 = 15480;
    pub const COORDINATOR: u16 = 7443;
    /// The sample application's health page, on its own host's address.
    pub const HEALTH: u16 = 18080;

    /// Where the agent of the host with this address reaches the coordinator, when its
    /// link can be cut.
    #[must_use]
    pub fn link(address: std::net::Ipv4Addr) -> u16 {
        17_000 + u16::from(address.octets()[3])
    }

    /// Ports on 127.0.0.1, with what they are for.
    pub const SHARED: [(u16, &str); 7] = [
        (ORA1_LISTENER, "ora-1's listener"),
        (ORA1_LISTENER_DMS, "ora-1's DMS listener"),
        (ORA2_LISTENER, "ora-2's listener"),
        (ORA2_SCAN, "ora-2's SCAN listener"),
        (POSTGRES, "PostgreSQL"),
        (DMS, "the DMS double"),
        (COORDINATOR, "the coordinator"),
    ];
}

/// The directories of one range.
#[derive(Debug, Clone)]
pub struct Layout {
    /// Top of the checkout.
    pub source: PathBuf,
    /// Where cargo put the binaries.
    pub binaries: PathBuf,
    /// `target/rehearsal`.
    pub rehearsal: PathBuf,
    /// All state of the range.
    pub root: PathBuf,
}

impl Layout {
    /// The layout of this checkout. The binaries are those next to the
    /// running one (tests run one level deeper, in `deps`).
    #[must_use]
    pub fn of_this_checkout() -> Self {
        let source = Path::new(env!("CARGO_MANIFEST_DIR"))
            .parent()
            .map_or_else(|| PathBuf::from("/"), Path::to_path_buf);
        let binaries = std::env::current_exe()
            .ok()
            .and_then(|exe| exe.parent().map(Path::to_path_buf))
            .map(|dir| match dir.file_name() {
                Some(name) if name == "deps" => dir.parent().unwrap_or(&dir).to_path_buf(),
                _ => dir,
            })
            .unwrap_or_else(|| source.join("target/debug"));
        let rehearsal = source.join("target/rehearsal");
        let root = rehearsal.join("range");
        Self {
            source,
            binaries,
            rehearsal,
            root,
        }
    }

    /// A program or library of this workspace.
    #[must_use]
    pub fn binary(&self, name: &str) -> PathBuf {
        self.binaries.join(name)
    }

    /// The Python with the database drivers.
    #[must_use]
    pub fn python(&self) -> PathBuf {
        self.source.join(".tools/venv/bin/python")
    }

    /// A file of the sample application.
    #[must_use]
    pub fn app(&self, file: &str) -> PathBuf {
        self.source.join("tests/range/app").join(file)
    }

    /// Everything of one host: its runtime directory, units, `/srv`.
    #[must_use]
    pub fn host(&self, name: &str) -> PathBuf {
        self.root.join("hosts").join(name)
    }

    /// What the host sees as `/srv/shop`.
    #[must_use]
    pub fn shop(&self, host: &str) -> PathBuf {
        self.host(host).join("srv/shop")
    }

    /// The `ORACLE_HOME` of an Oracle host.
    #[must_use]
    pub fn oracle_home(&self, host: &str) -> PathBuf {
        self.root.join("oracle").join(host).join("home")
    }

    /// Certificates of the range's own CA and of its parties.
    #[must_use]
    pub fn pki(&self) -> PathBuf {
        self.root.join("pki")
    }

    /// The log of a process that the range started.
    #[must_use]
    pub fn log(&self, name: &str) -> PathBuf {
        self.root.join("log").join(format!("{name}.log"))
    }

    /// Passwords, one file each, readable by their owner alone.
    #[must_use]
    pub fn secret(&self, name: &str) -> PathBuf {
        self.root.join("secrets").join(name)
    }

    /// The PostgreSQL cluster and its sockets. Where the server's own user
    /// can't come into the checkout, a link to a directory elsewhere.
    #[must_use]
    pub fn postgres(&self) -> PathBuf {
        self.root.join("postgres")
    }
}

//! The database the contract is checked on: the simulator in this process, or
//! a real one that the environment names.

use oracle::{Connection, Connector, InitParams, Privilege};
use oracle_simulator::bequeath::{self, Bequeath};
use oracle_simulator::config::{Config, Instance};
use oracle_simulator::engine::Engine;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// Statements that prepare the database. On a real one they may have been
/// executed before, by another test's process or an earlier run.
const SCHEMA: [&str; 4] = [
    "CREATE USER LOCKSTEP_CONTRACT IDENTIFIED BY secret",
    "GRANT CREATE SESSION, UNLIMITED TABLESPACE TO LOCKSTEP_CONTRACT",
    "CREATE TABLE LOCKSTEP_CONTRACT.ORDERS (ID NUMBER(18) PRIMARY KEY, \
     CUSTOMER VARCHAR2(60) NOT NULL, AMOUNT NUMBER(12,2), PLACED_AT DATE)",
    "CREATE TABLE LOCKSTEP_CONTRACT.TIMED (ID NUMBER(9) PRIMARY KEY, AT TIMESTAMP, \
     TAG RAW(8), CODE CHAR(4))",
];

/// ORA errors that say a statement of [`SCHEMA`] was executed before.
const EXISTS: [i32; 2] = [955, 1920];

/// Where the tests of this process run.
pub enum Database {
    /// Open at the bequeath frontend alone.
    Simulator {
        _bequeath: Bequeath,
        _engine: Engine,
        _home: tempfile::TempDir,
    },
    Real {
        dsn: String,
        password: String,
    },
}

impl Database {
    /// Connect string of its sessions; empty for the local instance.
    pub fn dsn(&self) -> &str {
        match self {
            Self::Simulator { .. } => "",
            Self::Real { dsn, .. } => dsn,
        }
    }

    /// Whether it is the simulator, which answers to `/ as sysdba`.
    pub fn is_simulator(&self) -> bool {
        matches!(self, Self::Simulator { .. })
    }
}

/// Opens the database once per process: ODPI-C loads its library once.
pub fn database() -> &'static Database {
    static DATABASE: OnceLock<Database> = OnceLock::new();
    DATABASE.get_or_init(|| {
        let real = std::env::var("LOCKSTEP_ORACLE_DSN").ok();
        let database = match real {
            Some(dsn) => {
                eprintln!("the contract is checked on the real database {dsn}");
                let password = std::env::var("LOCKSTEP_ORACLE_SYS_PASSWORD").unwrap();
                Database::Real { dsn, password }
            }
            None => {
                eprintln!("the contract is checked on the simulator; not on a real database: LOCKSTEP_ORACLE_DSN is not set");
                simulator()
            }
        };
        let admin = log_in(&database);
        for statement in SCHEMA {
            if let Err(error) = admin.execute(statement, &[]) {
                let before = error.oci_code().is_some_and(|code| EXISTS.contains(&code));
                assert!(before, "{statement}: {error}");
            }
        }
        database
    })
}

/// The directory cargo built libclntsh.so in: the tests depend on the package,
/// so it is next to their own binaries.
fn built_library() -> PathBuf {
    let library = std::env::current_exe()
        .unwrap()
        .with_file_name("libclntsh.so");
    assert!(library.exists(), "{} is missing", library.display());
    library
}

fn configuration(home: &Path) -> Config {
    Config {
        database: "ORCL".into(),
        data_dir: home.join("data"),
        init_sql: None,
        sys_password: None,
        instances: vec![Instance {
            name: "ORCL1".into(),
            host: "ora-1".into(),
            home: home.to_owned(),
            spfile: true,
            listeners: vec![],
        }],
    }
}

fn simulator() -> Database {
    let home = tempfile::tempdir().unwrap();
    let config = configuration(home.path());
    let lib = home.path().join("lib");
    std::fs::create_dir_all(&lib).unwrap();
    std::fs::create_dir_all(&config.data_dir).unwrap();
    std::fs::copy(built_library(), lib.join("libclntsh.so")).unwrap();
    let engine = Engine::start(&config);
    let socket = config.instances[0].bequeath_socket();
    let bequeath = bequeath::serve(&socket, engine.instance(1)).unwrap();
    // SAFETY: the first thing every test does; nothing reads the environment
    // before.
    unsafe {
        std::env::set_var("ORACLE_HOME", home.path());
        std::env::set_var("ORACLE_SID", "ORCL1");
    }
    InitParams::new()
        .oracle_client_lib_dir(lib)
        .unwrap()
        .init()
        .unwrap();
    Database::Simulator {
        _bequeath: bequeath,
        _engine: engine,
        _home: home,
    }
}

fn log_in(database: &Database) -> Connection {
    let mut connector = match database {
        Database::Simulator { .. } => Connector::new("", "", ""),
        Database::Real { dsn, password } => Connector::new("sys", password, dsn),
    };
    connector
        .external_auth(database.is_simulator())
        .privilege(Privilege::Sysdba)
        .connect()
        .unwrap()
}

/// SYS AS SYSDBA: on the simulator by `/`, as the agent logs in.
pub fn sysdba() -> Connection {
    log_in(database())
}

pub fn shop() -> Connection {
    Connection::connect("lockstep_contract", "secret", database().dsn()).unwrap()
}

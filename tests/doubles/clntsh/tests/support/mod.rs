//! A scripted database behind the frontend, and a home with the library in it.
//!
//! Scripts answer exact statement texts, so that tests of the frontend decide what
//! comes back, to the last type and length.

use oracle_simulator::api::{
    Bind, Canceller, Column, Credentials, Database, Frontend, Kind, Login, OraError, Reply,
    Session, StatementKind, Tags, Value,
};
use oracle_simulator::bequeath::{self, Bequeath};
use std::collections::HashMap;
use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex, OnceLock};
use std::thread;
use std::time::Duration;

/// How long a test waits for something that is sure to come.
pub const PATIENCE: Duration = Duration::from_secs(30);

type Script = Arc<dyn Fn(&[Bind]) -> Result<Reply, OraError> + Send + Sync>;

/// A database whose statements are scripts.
#[derive(Default)]
pub struct Scripted {
    scripts: Mutex<HashMap<String, Script>>,
    log: Mutex<Vec<String>>,
    logged: Condvar,
    logins: Mutex<Vec<Login>>,
    killed: Mutex<Vec<u32>>,
    sids: AtomicU32,
}

impl Scripted {
    /// Answers that text with that script from now on.
    pub fn on(
        &self,
        sql: &str,
        script: impl Fn(&[Bind]) -> Result<Reply, OraError> + Send + Sync + 'static,
    ) {
        self.scripts
            .lock()
            .unwrap()
            .insert(sql.to_owned(), Arc::new(script));
    }

    /// Answers that text with rows.
    pub fn on_query(&self, sql: &str, columns: Vec<Column>, rows: Vec<Vec<Value>>) {
        self.on(sql, move |_| {
            Ok(Reply::Rows {
                columns: columns.clone(),
                rows: rows.clone(),
            })
        });
    }

    /// Waits until the log holds an entry.
    pub fn wait_for(&self, entry: &str) {
        let log = self.log.lock().unwrap();
        let (log, late) = self
            .logged
            .wait_timeout_while(log, PATIENCE, |log| !log.iter().any(|line| line == entry))
            .unwrap();
        assert!(!late.timed_out(), "no `{entry}` in {log:?}");
    }

    /// How often the log holds an entry.
    pub fn count(&self, entry: &str) -> usize {
        self.log
            .lock()
            .unwrap()
            .iter()
            .filter(|line| *line == entry)
            .count()
    }

    /// What was said at the login of that session.
    pub fn login(&self, sid: u32) -> Login {
        self.logins.lock().unwrap()[sid as usize - 1].clone()
    }

    pub fn kill(&self, sid: u32) {
        self.killed.lock().unwrap().push(sid);
    }

    fn note(&self, entry: String) {
        self.log.lock().unwrap().push(entry);
        self.logged.notify_all();
    }
}

/// A column that may be NULL.
pub fn column(name: &str, kind: Kind) -> Column {
    Column {
        name: name.into(),
        kind,
        nullable: true,
    }
}

struct Shared(Arc<Scripted>);

impl Database for Shared {
    fn password_of(&self, _user: &str) -> Option<String> {
        None
    }

    fn connect(&self, login: Login) -> Result<Box<dyn Session>, OraError> {
        let welcome = match &login.credentials {
            Credentials::OperatingSystem => login.sysdba,
            Credentials::Password { user, password } => user == "shop" && password == "secret",
            Credentials::Verified { .. } => false,
        };
        if !welcome {
            return Err(OraError::new(
                1017,
                "invalid username/password; logon denied",
            ));
        }
        let mut logins = self.0.logins.lock().unwrap();
        logins.push(login);
        let sid = self.0.sids.fetch_add(1, Ordering::SeqCst) + 1;
        Ok(Box::new(ScriptedSession {
            database: Arc::clone(&self.0),
            sid,
            in_transaction: false,
            told: false,
            interrupt: Arc::default(),
        }))
    }

    fn prepare(&self, _sql: &str) -> (StatementKind, Vec<String>) {
        (StatementKind::Other, Vec::new())
    }
}

#[derive(Default)]
struct Interrupt {
    running: AtomicBool,
    cancelled: Mutex<bool>,
    changed: Condvar,
}

struct Handle(Arc<Interrupt>);

impl Canceller for Handle {
    fn cancel(&self) {
        if self.0.running.load(Ordering::SeqCst) {
            *self.0.cancelled.lock().unwrap() = true;
            self.0.changed.notify_all();
        }
    }
}

struct ScriptedSession {
    database: Arc<Scripted>,
    sid: u32,
    in_transaction: bool,
    told: bool,
    interrupt: Arc<Interrupt>,
}

impl ScriptedSession {
    fn check_alive(&mut self) -> Result<(), OraError> {
        if !self.database.killed.lock().unwrap().contains(&self.sid) {
            return Ok(());
        }
        if std::mem::replace(&mut self.told, true) {
            return Err(OraError::new(1012, "not logged on"));
        }
        Err(OraError::new(28, "your session has been killed"))
    }

    /// Sleeps until it is cancelled.
    fn sleep(&self) -> OraError {
        *self.interrupt.cancelled.lock().unwrap() = false;
        self.interrupt.running.store(true, Ordering::SeqCst);
        self.database.note(format!("{} sleeps", self.sid));
        let cancelled = self.interrupt.cancelled.lock().unwrap();
        let waited = self
            .interrupt
            .changed
            .wait_timeout_while(cancelled, PATIENCE, |cancelled| !*cancelled);
        self.interrupt.running.store(false, Ordering::SeqCst);
        match waited.unwrap() {
            (_, late) if late.timed_out() => OraError::new(600, "nobody cancelled"),
            _ => OraError::new(1013, "user requested cancel of current operation"),
        }
    }
}

impl Session for ScriptedSession {
    fn sid(&self) -> u32 {
        self.sid
    }

    fn serial(&self) -> u32 {
        1
    }

    fn execute(&mut self, sql: &str, binds: &[Bind]) -> Result<Reply, OraError> {
        self.check_alive()?;
        if sql == "begin sleep; end;" {
            return Err(self.sleep());
        }
        let script = self.database.scripts.lock().unwrap().get(sql).cloned();
        let script =
            script.ok_or_else(|| OraError::new(942, "table or view does not exist").at(14))?;
        let reply = script(binds)?;
        self.in_transaction |= matches!(reply, Reply::Affected { .. });
        Ok(reply)
    }

    fn describe(&mut self, _sql: &str) -> Result<Vec<Column>, OraError> {
        Err(OraError::new(900, "invalid SQL statement"))
    }

    fn commit(&mut self) -> Result<(), OraError> {
        self.check_alive()?;
        self.in_transaction = false;
        self.database.note(format!("{} commits", self.sid));
        Ok(())
    }

    fn rollback(&mut self) -> Result<(), OraError> {
        self.check_alive()?;
        self.in_transaction = false;
        self.database.note(format!("{} rolls back", self.sid));
        Ok(())
    }

    fn ping(&mut self) -> Result<(), OraError> {
        self.check_alive()
    }

    fn tag(&mut self, tags: &Tags) {
        self.database.note(format!(
            "{} is {:?} {:?}",
            self.sid, tags.module, tags.action
        ));
    }

    fn in_transaction(&self) -> bool {
        self.in_transaction
    }

    fn canceller(&self) -> Box<dyn Canceller> {
        Box::new(Handle(Arc::clone(&self.interrupt)))
    }

    fn logoff(self: Box<Self>) {
        self.database.note(format!("{} logs off", self.sid));
    }
}

impl Drop for ScriptedSession {
    fn drop(&mut self) {
        self.database.note(format!("{} is gone", self.sid));
    }
}

/// The directory that holds the freshly built libclntsh.so: cargo builds it
/// next to the test binaries, because the tests depend on the package.
pub fn library_dir() -> PathBuf {
    let here = std::env::current_exe().unwrap();
    let dir = here.parent().unwrap().to_owned();
    assert!(
        dir.join("libclntsh.so").exists(),
        "no libclntsh.so in {}",
        dir.display()
    );
    dir
}

/// Makes the `oracle` crate load the double, once per process: ODPI-C takes
/// its parameters once.
pub fn use_library() {
    static ONCE: OnceLock<()> = OnceLock::new();
    ONCE.get_or_init(|| {
        oracle::InitParams::new()
            .oracle_client_lib_dir(library_dir())
            .unwrap()
            .init()
            .unwrap();
    });
}

/// The scripted instance of this process, its home, and a listener's port.
pub struct Instance {
    pub database: Arc<Scripted>,
    /// Where its listener listens.
    pub port: u16,
    _bequeath: Bequeath,
    _home: tempfile::TempDir,
}

/// Starts the instance once and points ORACLE_HOME and ORACLE_SID at it.
pub fn instance() -> &'static Instance {
    static INSTANCE: OnceLock<Instance> = OnceLock::new();
    INSTANCE.get_or_init(|| {
        let home = tempfile::tempdir().unwrap();
        let database = Arc::new(Scripted::default());
        let socket = home.path().join("dbs/bequeath_ORCL1.sock");
        let bequeath = bequeath::serve(&socket, Arc::new(Shared(Arc::clone(&database)))).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared = Arc::clone(&database);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let shared = Shared(Arc::clone(&shared));
                thread::spawn(move || {
                    let admit = |service: &str| match service {
                        "ORCL" => Ok(()),
                        _ => Err(OraError::new(
                            12514,
                            "TNS:listener does not currently know of service requested in connect descriptor",
                        )),
                    };
                    bequeath::serve_stream(stream.unwrap(), &shared, Frontend::Listener("LISTENER".into()), &admit);
                });
            }
        });
        // SAFETY: the first thing every test does; nothing reads the
        // environment before.
        unsafe {
            std::env::set_var("ORACLE_HOME", home.path());
            std::env::set_var("ORACLE_SID", "ORCL1");
        }
        use_library();
        Instance { database, port, _bequeath: bequeath, _home: home }
    })
}

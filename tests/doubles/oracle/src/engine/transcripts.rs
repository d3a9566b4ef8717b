//! Runs the transcripts in `testdata/`: statements and what they answer.
//!
//! `@connect NAME USER/PASSWORD [N]` and `@connect NAME / [N]` (SYS, bequeath)
//! log in to instance N. `NAME> statement` executes; lines that begin with
//! `:B = value` before the answer are binds. The answer follows up to a blank
//! line: rows as `a | b`, `no rows`, `N rows` for DML, `:B = value` for
//! what came out, `done`, or the error. `*` in an answer stands for anything.
//! An answer `let X` keeps the first value; `${X}` puts it in later, and
//! `${NAME.sid}`, `${NAME.serial}` mean a session. `NAME>& statement` executes
//! in the background and `NAME<` fetches its answer; `@waits NAME` waits until
//! its call is blocked or asleep, `@until NAME statement` repeats a query until
//! its answer is as said.

use super::database::Engine;
use crate::api::{Bind, Credentials, Frontend, Kind, Login, OraError, Reply, Session, Value};
use crate::config::{Config, Instance};
use std::collections::HashMap;
use std::fmt::Write as _;
use std::path::Path;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Failure guard for everything that is waited for.
const GUARD: Duration = Duration::from_secs(20);

type Finished = (Box<dyn Session>, Result<Reply, OraError>);

struct Runner {
    engine: Engine,
    sessions: HashMap<String, Box<dyn Session>>,
    running: HashMap<String, JoinHandle<Finished>>,
    kept: HashMap<String, String>,
}

fn engine(dir: &Path) -> Engine {
    let instance = |name: &str, host: &str| Instance {
        name: name.into(),
        host: host.into(),
        home: dir.join(host),
        spfile: true,
        listeners: Vec::new(),
    };
    Engine::start(&Config {
        database: "ORCL".into(),
        data_dir: dir.to_owned(),
        init_sql: None,
        sys_password: None,
        instances: vec![instance("ORCL1", "ora-1"), instance("ORCL2", "ora-2")],
    })
}

fn login(user: &str, password: &str) -> Login {
    let sys = user.is_empty();
    Login {
        credentials: if sys {
            Credentials::OperatingSystem
        } else {
            Credentials::Password {
                user: user.into(),
                password: password.into(),
            }
        },
        sysdba: sys,
        service: if sys { String::new() } else { "ORCL".into() },
        frontend: if sys {
            Frontend::Bequeath
        } else {
            Frontend::Listener("LISTENER".into())
        },
        machine: if sys { "ora-1".into() } else { "app-1".into() },
        program: if sys {
            "lockstep-agent".into()
        } else {
            "orders".into()
        },
        os_user: "shop".into(),
        process: "4711".into(),
        address: String::new(),
    }
}

fn show(value: &Value) -> String {
    match value {
        Value::Null => "NULL".into(),
        Value::Text(text) | Value::Number(text) => text.clone(),
        Value::DateTime(at) => {
            let mut text = format!(
                "{:04}-{:02}-{:02} {:02}:{:02}:{:02}",
                at.year, at.month, at.day, at.hour, at.minute, at.second
            );
            if at.nanos > 0 {
                let _ = write!(text, ".{:09}", at.nanos);
            }
            text
        }
        Value::Raw(bytes) => hex::encode_upper(bytes),
    }
}

fn render(reply: &Result<Reply, OraError>) -> Vec<String> {
    let outs = |values: &[(String, Value)]| -> Vec<String> {
        values
            .iter()
            .map(|(name, value)| format!(":{name} = {}", show(value)))
            .collect()
    };
    match reply {
        Err(error) => error.to_string().lines().map(str::to_owned).collect(),
        Ok(Reply::Done) => vec!["done".into()],
        Ok(Reply::Affected { rows, returned }) => {
            let mut lines = vec![format!("{rows} rows")];
            lines.extend(outs(returned));
            lines
        }
        Ok(Reply::Block { out }) if out.is_empty() => vec!["done".into()],
        Ok(Reply::Block { out }) => {
            let mut lines = outs(out);
            lines.sort();
            lines
        }
        Ok(Reply::Rows { rows, .. }) if rows.is_empty() => vec!["no rows".into()],
        Ok(Reply::Rows { rows, .. }) => rows
            .iter()
            .map(|row| row.iter().map(show).collect::<Vec<_>>().join(" | "))
            .collect(),
    }
}

fn matches(want: &str, got: &str) -> bool {
    let mut rest = got;
    let parts: Vec<&str> = want.split('*').collect();
    for (at, part) in parts.iter().enumerate() {
        let Some(found) = rest.find(part) else {
            return false;
        };
        if at == 0 && found != 0 {
            return false;
        }
        rest = &rest[found + part.len()..];
    }
    rest.is_empty() || parts.last() == Some(&"")
}

impl Runner {
    fn substitute(&self, text: &str) -> String {
        let mut out = text.to_owned();
        for (name, value) in &self.kept {
            out = out.replace(&format!("${{{name}}}"), value);
        }
        for (name, session) in &self.sessions {
            out = out.replace(&format!("${{{name}.sid}}"), &session.sid().to_string());
            out = out.replace(
                &format!("${{{name}.serial}}"),
                &session.serial().to_string(),
            );
        }
        out
    }

    fn connect(&mut self, words: &[&str]) -> Vec<String> {
        let (user, password) = words[1].split_once('/').unwrap();
        let inst = words.get(2).map_or(1, |inst| inst.parse().unwrap());
        self.sessions.remove(words[0]);
        match self.engine.instance(inst).connect(login(user, password)) {
            Ok(session) => {
                self.sessions.insert(words[0].into(), session);
                vec!["connected".into()]
            }
            Err(error) => vec![error.to_string()],
        }
    }

    fn wait_until_waiting(&self, name: &str, ids: &HashMap<String, (u32, u32)>) {
        let (sid, serial) = ids[name];
        let mut sys = self.engine.instance(1).connect(login("", "")).unwrap();
        let deadline = Instant::now() + GUARD;
        let sql = format!(
            "SELECT COUNT(*) FROM GV$SESSION WHERE SID = {sid} AND SERIAL# = {serial} AND STATUS = 'ACTIVE'"
        );
        loop {
            let reply = sys.execute(&sql, &[]);
            if render(&reply) == ["1"] {
                return;
            }
            assert!(Instant::now() < deadline, "{name} never waited");
            std::thread::yield_now();
        }
    }

    fn answer(&mut self, step: &Step, ids: &mut HashMap<String, (u32, u32)>) -> Vec<String> {
        let text = self.substitute(&step.text);
        if let Some(rest) = text.strip_prefix("@connect ") {
            let words: Vec<&str> = rest.split_whitespace().collect();
            let lines = self.connect(&words);
            if let Some(session) = self.sessions.get(words[0]) {
                ids.insert(words[0].into(), (session.sid(), session.serial()));
            }
            return lines;
        }
        if let Some(name) = text.strip_prefix("@waits ") {
            self.wait_until_waiting(name.trim(), ids);
            return Vec::new();
        }
        if let Some(name) = text.strip_prefix("@vanish ") {
            self.sessions.remove(name.trim());
            return Vec::new();
        }
        if let Some(rest) = text.strip_prefix("@cancel ") {
            // The canceller was taken before the call began.
            let (sid, serial) = ids[rest.trim()];
            self.cancel(sid, serial);
            return Vec::new();
        }
        if let Some(rest) = text.strip_prefix("@until ") {
            let (name, sql) = rest.split_once(' ').unwrap();
            let deadline = Instant::now() + GUARD;
            let want: Vec<String> = step.answer.iter().map(|l| self.substitute(l)).collect();
            loop {
                let lines = render(&self.sessions.get_mut(name).unwrap().execute(sql, &[]));
                if agrees(&want, &lines) || Instant::now() > deadline {
                    return lines;
                }
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        if let Some((name, sql)) = text
            .split_once(">& ")
            .filter(|(name, _)| !name.contains(' '))
        {
            let mut session = self.sessions.remove(name).unwrap();
            let sql = sql.to_owned();
            let handle = std::thread::spawn(move || {
                let reply = session.execute(&sql, &[]);
                (session, reply)
            });
            self.running.insert(name.into(), handle);
            return Vec::new();
        }
        if let Some(name) = text.strip_suffix('<') {
            let (session, reply) = self.running.remove(name).unwrap().join().unwrap();
            self.sessions.insert(name.into(), session);
            return render(&reply);
        }
        let (name, sql) = text
            .split_once("> ")
            .unwrap_or_else(|| panic!("not a step: {text}"));
        let session = self
            .sessions
            .get_mut(name)
            .unwrap_or_else(|| panic!("no session {name}"));
        render(&session.execute(sql, &step.binds))
    }

    fn cancel(&self, sid: u32, serial: u32) {
        self.engine.cancel(sid, serial);
    }
}

/// One step of a transcript.
struct Step {
    line: usize,
    text: String,
    binds: Vec<Bind>,
    answer: Vec<String>,
}

fn bind(line: &str) -> Option<Bind> {
    let (name, value) = line.strip_prefix(':')?.split_once(" = ")?;
    let (value, kind) = match value {
        "OUT NUMBER" => (Value::Null, Kind::Number(0, -127)),
        "OUT TEXT" => (Value::Null, Kind::Varchar2(4000)),
        "NULL" => (Value::Null, Kind::Varchar2(4000)),
        text => match text.strip_prefix('\'') {
            Some(text) => (
                Value::Text(text.trim_end_matches('\'').into()),
                Kind::Varchar2(4000),
            ),
            None => (Value::Number(text.into()), Kind::Number(0, -127)),
        },
    };
    Some(Bind {
        name: name.into(),
        value,
        kind,
    })
}

fn steps(text: &str) -> Vec<Step> {
    let mut out: Vec<Step> = Vec::new();
    let mut open = false;
    for (number, line) in text.lines().enumerate() {
        if line.trim().is_empty() {
            open = false;
            continue;
        }
        if !open && line.starts_with('#') {
            continue;
        }
        if !open {
            let step = Step {
                line: number + 1,
                text: line.into(),
                binds: vec![],
                answer: vec![],
            };
            out.push(step);
            open = true;
            continue;
        }
        let step = out.last_mut().unwrap();
        if let Some(more) = line.strip_prefix("    ") {
            step.text.push('\n');
            step.text.push_str(more);
        } else if let Some(bind) = line.strip_prefix("with ").and_then(bind) {
            step.binds.push(bind);
        } else {
            step.answer.push(line.into());
        }
    }
    out
}

fn agrees(want: &[String], got: &[String]) -> bool {
    want.len() == got.len() && want.iter().zip(got).all(|(want, got)| matches(want, got))
}

fn check(name: &str) {
    let dir = tempfile::tempdir().unwrap();
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("testdata")
        .join(name);
    let text = std::fs::read_to_string(path).unwrap();
    let mut runner = Runner {
        engine: engine(dir.path()),
        sessions: HashMap::new(),
        running: HashMap::new(),
        kept: HashMap::new(),
    };
    let mut ids = HashMap::new();
    let mut wrong = String::new();
    for step in steps(&text) {
        let got = runner.answer(&step, &mut ids);
        if let [keep] = step.answer.as_slice()
            && let Some(variable) = keep.strip_prefix("let ")
        {
            runner.kept.insert(variable.into(), got[0].clone());
            continue;
        }
        let want: Vec<String> = step
            .answer
            .iter()
            .map(|line| runner.substitute(line))
            .collect();
        if !agrees(&want, &got) {
            let _ = writeln!(
                wrong,
                "{name}:{}: {}\n  wanted {want:#?}\n  got {got:#?}",
                step.line, step.text
            );
        }
    }
    assert!(wrong.is_empty(), "\n{wrong}");
}

macro_rules! transcripts {
    ($($test:ident: $file:literal),* $(,)?) => {
        $(#[test] fn $test() { check($file); })*
    };
}

transcripts! {
    queries: "queries.txt",
    dml_and_constraints: "dml.txt",
    transactions_and_locks: "transactions.txt",
    history_and_redo: "redo.txt",
    triggers_and_sequences: "triggers.txt",
    blocks: "plsql.txt",
    jobs: "jobs.txt",
    the_seed_procedure: "seed.txt",
    accounts_and_privileges: "privileges.txt",
    what_is_refused: "refused.txt",
}

#[test]
fn a_fault_fails_the_statement_as_often_as_asked() {
    let dir = tempfile::tempdir().unwrap();
    let engine = engine(dir.path());
    engine.inject(super::Fault {
        statement_contains: "checkpoint".into(),
        ora_code: 604,
        times: 1,
        message: None,
    });
    let mut sys = engine.instance(1).connect(login("", "")).unwrap();
    assert_eq!(
        sys.execute("ALTER SYSTEM CHECKPOINT", &[])
            .unwrap_err()
            .code,
        604
    );
    assert_eq!(
        sys.execute("ALTER SYSTEM CHECKPOINT", &[]).unwrap(),
        Reply::Done
    );
    assert_eq!(engine.observe()["checkpoints"].as_array().unwrap().len(), 1);
}

#[test]
fn an_insert_does_not_slow_down_with_the_table() {
    let dir = tempfile::tempdir().unwrap();
    let engine = engine(dir.path());
    let mut sys = engine.instance(1).connect(login("", "")).unwrap();
    sys.execute(
        "CREATE TABLE t (id NUMBER(18) PRIMARY KEY, name VARCHAR2(20))",
        &[],
    )
    .unwrap();
    for id in 0..5_000 {
        let binds = [
            Bind {
                name: "1".into(),
                value: Value::Number(id.to_string()),
                kind: Kind::Number(18, 0),
            },
            Bind {
                name: "2".into(),
                value: Value::Text("x".into()),
                kind: Kind::Varchar2(20),
            },
        ];
        sys.execute("INSERT INTO t VALUES (:1, :2)", &binds)
            .unwrap();
        sys.commit().unwrap();
    }
    let reply = sys.execute("SELECT COUNT(*), MAX(id) FROM t", &[]);
    assert_eq!(render(&reply), ["5000 | 4999"]);
    // Every transaction is in the redo, and asking for what is new looks at nothing else.
    let reply = sys.execute(
        "SELECT COUNT(DISTINCT COMMIT_SCN) FROM V$LOGMNR_CONTENTS",
        &[],
    );
    assert_eq!(render(&reply), ["5000"]);
}

use super::*;
use crate::api::{Login, OraError, Session, StatementKind};
use crate::control::{self, CallError, Control, Observed, Request};
use crate::tns::{Gate, Wanted};
use crate::wire;
use std::net::TcpStream;
use std::path::PathBuf;
use std::time::Duration;

/// A database that nobody logs in to.
struct Nobody;

impl Database for Nobody {
    fn password_of(&self, _: &str) -> Option<String> {
        None
    }
    fn connect(&self, _: Login) -> Result<Box<dyn Session>, OraError> {
        Err(OraError::new(1034, "ORACLE not available"))
    }
    fn prepare(&self, _: &str) -> (StatementKind, Vec<String>) {
        (StatementKind::Other, Vec::new())
    }
}

/// Two ports that are free at the moment.
fn free_ports() -> [u16; 2] {
    let sockets = [(); 2].map(|()| std::net::TcpListener::bind("127.0.0.1:0").unwrap());
    sockets.map(|socket| socket.local_addr().unwrap().port())
}

fn manager(managed_by: ManagedBy) -> (Manager, [u16; 2]) {
    let ports = free_ports();
    let listener = |name: &str, port, is_static: bool| config::Listener {
        name: name.to_owned(),
        port,
        managed_by,
        reserved_for: is_static.then(|| "dms".to_owned()),
        services: Vec::new(),
        is_static,
    };
    let instance = Instance {
        config: config::Instance {
            name: "ORCL1".to_owned(),
            host: "ora-1".to_owned(),
            home: PathBuf::new(),
            spfile: true,
            listeners: vec![
                listener("LISTENER", ports[0], false),
                listener("LISTENER_DMS", ports[1], true),
            ],
        },
        db: Arc::new(Nobody),
        restricted: Arc::new(|| true),
    };
    (Manager::new("ORCL", vec![instance]).unwrap(), ports)
}

fn is_open(port: u16) -> bool {
    TcpStream::connect(("127.0.0.1", port)).is_ok()
}

/// Waits until a port is open; bounded only against a hanging test.
fn await_open(port: u16) {
    for _ in 0..1_000 {
        if is_open(port) {
            return;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    panic!("port {port} stays closed");
}

#[test]
fn tns_a_stopped_listener_has_closed_its_port_and_starts_again() {
    let (manager, ports) = manager(ManagedBy::Lsnrctl);
    manager.start_all().unwrap();
    assert!(ports.iter().all(|port| is_open(*port)));
    let status = manager
        .stop("ora-1", "listener", Requester::Lsnrctl)
        .unwrap();
    assert!(!status.running && !is_open(ports[0]) && is_open(ports[1]));
    let again = manager.stop("ora-1", "LISTENER", Requester::Lsnrctl);
    assert!(matches!(again, Err(Error::NotRunning(_))));
    assert!(
        manager
            .start("ora-1", "LISTENER", Requester::Lsnrctl)
            .unwrap()
            .running
    );
    let again = manager.start("ora-1", "LISTENER", Requester::Lsnrctl);
    assert!(matches!(again, Err(Error::AlreadyRunning(_))));
    assert!(is_open(ports[0]));
    let unknown = manager.stop("ora-2", "LISTENER", Requester::Lsnrctl);
    assert!(matches!(unknown, Err(Error::Unknown { .. })));
    drop(manager);
    assert!(!ports.iter().any(|port| is_open(*port)));
}

#[test]
fn tns_clusterware_brings_back_what_is_not_disabled() {
    let (manager, ports) = manager(ManagedBy::Srvctl);
    manager.start_all().unwrap();
    for by in [Requester::Srvctl, Requester::Lsnrctl] {
        assert!(!manager.stop("ora-1", "LISTENER", by).unwrap().running);
        await_open(ports[0]);
    }
    manager.disable("ora-1", "LISTENER").unwrap();
    manager
        .stop("ora-1", "LISTENER", Requester::Srvctl)
        .unwrap();
    let restart = manager.shared.lock().listeners[0].restart_at;
    assert_eq!(restart, None, "a disabled listener is not scheduled");
    let refused = manager.start("ora-1", "LISTENER", Requester::Srvctl);
    assert!(matches!(refused, Err(Error::Disabled(_))));
    assert!(matches!(
        manager.disable("ora-1", "LISTENER"),
        Err(Error::AlreadyDisabled(_))
    ));
    manager.enable("ora-1", "LISTENER").unwrap();
    await_open(ports[0]);
    assert!(matches!(
        manager.enable("ora-1", "LISTENER"),
        Err(Error::AlreadyEnabled(_))
    ));
}

#[test]
fn tns_plain_listeners_are_none_of_clusterwares_business() {
    let (manager, _) = manager(ManagedBy::Lsnrctl);
    for outcome in [
        manager.start("ora-1", "LISTENER", Requester::Srvctl),
        manager.stop("ora-1", "LISTENER", Requester::Srvctl),
        manager.enable("ora-1", "LISTENER"),
        manager.disable("ora-1", "LISTENER"),
    ] {
        assert!(matches!(outcome, Err(Error::NotClustered(_))));
    }
}

#[test]
fn tns_restricted_session_blocks_what_the_instance_registered() {
    let (manager, _) = manager(ManagedBy::Lsnrctl);
    let state = manager.shared.lock();
    let admit = |at: usize, wanted: Wanted| {
        let endpoint: &dyn Gate = &*state.listeners[at].endpoint;
        endpoint.admit(&wanted).err().map(|refusal| refusal.0)
    };
    let service = |name: &str| Wanted::Service(name.to_owned());
    let sid = |name: &str| Wanted::Sid(name.to_owned());
    for (at, wanted, expected) in [
        (0, service("orcl"), Some(12_526)),
        (0, service("nowhere"), Some(12_514)),
        (1, service("ORCL"), None),
        (1, service("ORCL1"), None),
        (1, sid("orcl1"), None),
        (1, sid("ORCL"), Some(12_505)),
        (1, Wanted::Nothing, Some(12_504)),
    ] {
        assert_eq!(admit(at, wanted.clone()), expected, "{at} {wanted:?}");
    }
    let [first, second] = [0, 1].map(|at| state.listeners[at].status());
    assert_eq!(
        (first.established, first.refused, first.blocked),
        (0, 2, true)
    );
    assert_eq!(
        (second.established, second.refused, second.blocked),
        (3, 2, false)
    );
}

#[test]
fn tns_a_port_serves_the_client_library_too_under_the_same_rules() {
    let (manager, ports) = manager(ManagedBy::Lsnrctl);
    manager.start_all().unwrap();
    let attach = |port, service| {
        let target = wire::Target::Tcp {
            host: "127.0.0.1".to_owned(),
            port,
        };
        let stream = wire::Stream::connect(&target).unwrap();
        match wire::Client::attach(stream, service) {
            Ok(_) => None,
            Err(wire::WireError::Refused(error)) => Some((error.code, error.message)),
            Err(other) => panic!("{other:?}"),
        }
    };
    assert_eq!(attach(ports[1], "orcl"), None);
    let (code, message) = attach(ports[1], "NOWHERE").unwrap();
    assert_eq!(code, 12_514);
    assert!(
        message.contains("NOWHERE") && message.contains("LISTENER_DMS"),
        "{message}"
    );
    assert_eq!(attach(ports[0], "ORCL").unwrap().0, 12_526);
}

struct Engine;

impl Observed for Engine {
    fn observe(&self) -> serde_json::Value {
        serde_json::json!({ "scn": 7 })
    }
    fn commits_after(&self, scn: u64) -> serde_json::Value {
        serde_json::json!({ "SHOP": scn })
    }
    fn commit_at(&self, scn: u64) -> serde_json::Value {
        serde_json::json!(scn * 1000)
    }
    fn clear_faults(&self) {}
    fn set_environment(&self, _with: serde_json::Value) -> Result<(), String> {
        Ok(())
    }
    fn delete_archived(&self, _thread: u32, _sequence: u64) -> Result<(), String> {
        Ok(())
    }
    fn inject(&self, fault: serde_json::Value) -> Result<(), String> {
        fault
            .get("ora_code")
            .map(|_| ())
            .ok_or_else(|| "a fault needs an ora_code".to_owned())
    }
}

#[test]
fn tns_the_control_socket_reaches_listeners_and_engine() {
    let (manager, ports) = manager(ManagedBy::Lsnrctl);
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("dbs/control.sock");
    let control = Control {
        host: "ora-1".to_owned(),
        listeners: Arc::new(manager),
        engine: Arc::new(Engine),
    };
    let server = control::serve(&path, control).unwrap();
    let start = |name: &str| {
        let request = Request::Start {
            name: name.to_owned(),
            by: Requester::Lsnrctl,
        };
        control::call::<Status>(&path, &request)
    };
    assert_eq!(start("LISTENER").unwrap().port, ports[0]);
    assert!(is_open(ports[0]));
    let kind = |outcome: Result<Status, CallError>| match outcome {
        Err(CallError::Refused(failure)) => failure.kind,
        other => panic!("{other:?}"),
    };
    assert_eq!(kind(start("LISTENER")), "already_running");
    assert_eq!(kind(start("NOPE")), "unknown");
    let all: Vec<Status> = control::call(&path, &Request::Listeners).unwrap();
    assert_eq!(
        all.iter().map(|status| status.running).collect::<Vec<_>>(),
        [true, false]
    );
    let seen: serde_json::Value = control::call(&path, &Request::Observe).unwrap();
    assert_eq!(
        (&seen["scn"], &seen["listeners"][0]["name"]),
        (&7.into(), &"LISTENER".into())
    );
    let at: u64 = control::call(&path, &Request::CommitAt { scn: 9 }).unwrap();
    assert_eq!(at, 9000);
    let after: serde_json::Value = control::call(&path, &Request::CommitsAfter { scn: 9 }).unwrap();
    assert_eq!(after["SHOP"], 9);
    let inject = |fault| control::call::<()>(&path, &Request::Inject { fault });
    inject(serde_json::json!({ "ora_code": 1 })).unwrap();
    assert!(matches!(
        inject(serde_json::json!({})),
        Err(CallError::Refused(_))
    ));
    drop(server);
    let gone = control::call::<Vec<Status>>(&path, &Request::Listeners);
    assert!(matches!(gone, Err(CallError::Unreachable { .. })));
}

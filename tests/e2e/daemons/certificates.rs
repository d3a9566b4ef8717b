//! Admission: no peer without a certificate of the fleet's own authority,
//! and each only where its role belongs. The coordinator's log says why.

use crate::fleet::{Fleet, Plan, until};
use lockstep_pki::{Authority, CredentialFiles, Credentials, Identity, Role};
use lockstep_proto::v1::agent_service_client::AgentServiceClient;
use lockstep_proto::v1::{Hello, SessionRequest, session_request::Message};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;
use tonic::transport::Endpoint;
use tonic::{Code, Status};

fn said(fleet: &Fleet, texts: &[&str]) {
    until(&format!("the coordinator to say {texts:?}"), || {
        let log = fleet.log("coordinator");
        log.lines()
            .any(|line| texts.iter().all(|text| line.contains(text)))
            .then_some(())
    });
}

#[test]
fn without_a_certificate_every_peer_is_rejected() {
    let fleet = Fleet::of(&["app-1"]);
    lockstep_pki::install_provider();
    let mut roots = rustls::RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_file(fleet.path("pki/ca.pem")).unwrap())
        .unwrap();
    let mut config = rustls::ClientConfig::builder()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let name = ServerName::from(fleet.address().ip());
    let session = rustls::ClientConnection::new(Arc::new(config), name).unwrap();
    let tcp = TcpStream::connect(fleet.address()).unwrap();
    tcp.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let mut stream = rustls::StreamOwned::new(session, tcp);
    // A client of TLS 1.3 learns of the refusal when it reads.
    let _ = stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    let error = stream.read(&mut [0; 64]).unwrap_err();
    assert!(error.to_string().contains("CertificateRequired"), "{error}");
    said(
        &fleet,
        &["connection refused", "it presented no certificate"],
    );
}

#[test]
fn plaintext_is_refused() {
    let fleet = Fleet::of(&["app-1"]);
    let mut tcp = TcpStream::connect(fleet.address()).unwrap();
    tcp.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    said(
        &fleet,
        &["connection refused", "there is no plaintext mode"],
    );
}

#[test]
fn a_stranger_of_another_authority_is_refused() {
    let fleet = Fleet::of(&["app-1"]);
    let dir = fleet.path("strangers");
    let strangers = Authority::create(&dir, "fleet.test".parse().unwrap()).unwrap();
    let identity = Identity::new(Role::Operator, "eve").unwrap();
    let issued = strangers
        .issue(&identity, Duration::from_secs(600), &[])
        .unwrap();
    issued.write(&fleet.path("pki")).unwrap();
    // The command itself says that certificate and authority don't match.
    let output = fleet.lockstep_as("eve", &["agents", "list"]);
    output.is_refused(&["LS5004", "eve.pem"]);
    // One that trusts both authorities is refused by the coordinator.
    let ours = fs::read_to_string(fleet.path("pki/ca.pem")).unwrap();
    fs::write(fleet.path("pki/both.pem"), ours + strangers.ca_pem()).unwrap();
    let output = fleet.lockstep_trusting("both.pem", "eve", &["agents", "list"]);
    assert_eq!(output.code, 3, "{output}");
    assert!(output.error.contains("LS5002"), "{output}");
    said(&fleet, &["connection refused", "kind=\"bad_signature\""]);
}

#[test]
fn only_operators_ask_what_operators_may_ask() {
    let fleet = Fleet::of(&["app-1"]);
    fleet.issue(Role::Agent, "app-9");
    for (name, who) in [("app-9", "agent/app-9"), ("c1", "coordinator/c1")] {
        for arguments in [
            &["agents", "list"][..],
            &["run", "abort", "latest", "--reason", "x"],
            &["agents", "accept", "app-1", "--reason", "x"],
        ] {
            fleet
                .lockstep_as(name, arguments)
                .is_refused(&["LS4206", who, "may not call"]);
        }
        said(
            &fleet,
            &["LS4206", who, "/lockstep.v1.OperatorService/ListAgents"],
        );
    }
}

/// Opens a session with this certificate and introduces an agent.
fn session(fleet: &Fleet, certificate: &str, agent: &str) -> Status {
    lockstep_pki::install_provider();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let pki = fleet.path("pki");
        let credentials = Credentials::load(CredentialFiles {
            ca: pki.join("ca.pem"),
            cert: pki.join(format!("{certificate}.pem")),
            key: pki.join(format!("{certificate}-key.pem")),
            crl: None,
        })
        .unwrap();
        let endpoint = Endpoint::from_shared(format!("https://{}", fleet.address())).unwrap();
        let channel = lockstep_pki::connect(&endpoint, &credentials)
            .await
            .unwrap();
        let hello = Hello {
            agent: agent.to_owned(),
            journal_id: "a-journal".to_owned(),
            session_number: 1,
            ..Hello::default()
        };
        let request = SessionRequest {
            message: Some(Message::Hello(hello)),
            ..SessionRequest::default()
        };
        AgentServiceClient::new(channel)
            .session(tokio_stream::iter([request]))
            .await
            .unwrap_err()
    })
}

#[test]
fn a_certificate_admits_its_own_role_and_name_only() {
    let fleet = Fleet::of(&["app-1", "app-2"]);
    let before = fleet.lockstep(&["agents", "list"]).json;
    let refused = session(&fleet, "ana", "app-3");
    assert_eq!(refused.code(), Code::PermissionDenied);
    said(&fleet, &["LS4206", "operator/ana", "AgentService/Session"]);

    let refused = session(&fleet, "app-1", "app-2");
    assert_eq!(refused.code(), Code::PermissionDenied);
    assert!(refused.message().contains("LS4208"), "{refused}");
    said(&fleet, &["LS4208", "app-1", "app-2"]);

    let names = |agents: &serde_json::Value| -> Vec<String> {
        let agents = agents.as_array().unwrap().iter();
        agents
            .map(|agent| format!("{} {}", agent["name"], agent["journal_id"]))
            .collect()
    };
    let after = fleet.lockstep(&["agents", "list"]).json;
    assert_eq!(names(&after), names(&before));
}

#[test]
fn a_daemon_with_somebody_elses_certificate_says_so_and_ends() {
    let mut fleet = Fleet::bare(&Plan {
        agents: &["app-1"],
        agent_extra: "",
        otlp: "",
    });
    for (from, to) in [("ana.pem", "app-1.pem"), ("ana-key.pem", "app-1-key.pem")] {
        fs::copy(fleet.path("pki").join(from), fleet.path("pki").join(to)).unwrap();
    }
    fleet.start_agent("app-1");
    let status = fleet.agent_ended("app-1");
    assert_eq!(status.code(), Some(1));
    let log = fleet.log("app-1");
    for text in [
        "LS3004",
        "operator/ana",
        "agent/app-1",
        "lockstep pki issue agent/app-1",
    ] {
        assert!(log.contains(text), "{text:?}: {log}");
    }
}

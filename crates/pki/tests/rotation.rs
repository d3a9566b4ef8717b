//! Rotation and revocation: new connections use the new files, and connections with a
//! revoked certificate are closed.

#![expect(clippy::unwrap_used, reason = "a test fails at the first error")]

mod forge;

use forge::Domain;
use lockstep_pki::{
    Authority, AuthorityError, Connector, Credentials, CredentialsError, Peer, Refusal, connect,
};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tonic::body::Body;
use tonic::transport::Endpoint;
use tower::ServiceExt;

impl Domain {
    /// Replaces the party's files by a new certificate and key; returns its fingerprint.
    fn renew(&self, identity: &str) -> String {
        let issued = self
            .authority
            .issue(&identity.parse().unwrap(), Duration::from_secs(3600), &[])
            .unwrap();
        let files = self.files(issued.identity.name());
        fs::write(files.cert, &issued.cert_pem).unwrap();
        fs::write(files.key, &issued.key_pem).unwrap();
        issued.fingerprint
    }
}

#[tokio::test]
async fn new_connections_use_new_files() {
    let domain = Domain::new();
    let mut listener = domain.listener();
    let address = format!("https://{}", listener.local_addr().unwrap());
    let agent = domain.credentials("a");
    let before = agent.current().fingerprint().to_owned();

    for renew in [false, true] {
        let expected = if renew {
            domain.renew("agent/a")
        } else {
            before.clone()
        };
        assert_eq!(agent.reload().unwrap(), renew);
        let dial = Connector::new(&agent).oneshot(address.parse().unwrap());
        let (accepted, dialled) = tokio::join!(listener.accept(), dial);
        dialled.unwrap();
        assert_eq!(*accepted.unwrap().peer().fingerprint, expected);
    }
}

#[tokio::test(start_paused = true)]
async fn changed_files_are_reloaded_without_a_signal() {
    let domain = Domain::new();
    let credentials = Credentials::follow(domain.files("a")).unwrap();
    let mut changes = credentials.subscribe();
    let expected = domain.renew("agent/a");
    changes.changed().await.unwrap();
    assert_eq!(changes.borrow().fingerprint(), expected);
}

#[tokio::test]
async fn an_incomplete_renewal_is_ignored_until_it_is_complete() {
    let domain = Domain::new();
    let credentials = domain.credentials("a");
    let before = credentials.current().fingerprint().to_owned();
    let old_key = fs::read(domain.path("a-key.pem")).unwrap();
    let expected = domain.renew("agent/a");
    let new_key = fs::read(domain.path("a-key.pem")).unwrap();

    fs::write(domain.path("a-key.pem"), old_key).unwrap();
    let error = credentials.reload().unwrap_err();
    assert!(
        matches!(error, CredentialsError::KeyMismatch { .. }),
        "{error:?}"
    );
    assert_eq!(credentials.current().fingerprint(), before);

    fs::write(domain.path("a-key.pem"), new_key).unwrap();
    assert!(credentials.reload().unwrap());
    assert_eq!(credentials.current().fingerprint(), expected);
    assert!(!credentials.reload().unwrap());
}

#[tokio::test]
async fn a_revoked_certificate_loses_its_connection_and_cannot_reconnect() {
    let domain = Domain::new();
    let coordinator = domain.credentials("main");
    let agent = domain.credentials("a");
    let mut listener = lockstep_pki::Listener::bind(
        "127.0.0.1:0".parse().unwrap(),
        coordinator.clone(),
        lockstep_pki::ListenerOptions::default(),
    )
    .unwrap();
    let address = format!("https://{}", listener.local_addr().unwrap());
    let dial = || Connector::new(&agent).oneshot(address.parse().unwrap());
    let (accepted, dialled) = tokio::join!(listener.accept(), dial());
    let (mut accepted, _dialled) = (accepted.unwrap(), dialled.unwrap());

    let waiting = tokio::spawn(async move { accepted.read_u8().await });
    assert!(domain.authority.revoke(&domain.path("a.pem")).unwrap());
    assert!(!domain.authority.revoke(&domain.path("a.pem")).unwrap());
    assert!(coordinator.reload().unwrap());
    let ended = waiting.await.unwrap().unwrap_err();
    assert_eq!(ended.kind(), std::io::ErrorKind::PermissionDenied);

    let (again, _) = tokio::join!(listener.accept(), dial());
    assert_eq!(again.unwrap_err().reason, Refusal::Revoked);
}

/// What the party's own verification says of its certificate, which is what its peers
/// would say.
fn verdict(domain: &Domain, name: &str) -> Option<Refusal> {
    match Credentials::load(domain.files(name)) {
        Ok(_) => None,
        Err(CredentialsError::Refused { source, .. }) => Some(source),
        Err(other) => unreachable!("{other:?}"),
    }
}

/// A list appended to the file, before or behind the older one, must count.
#[tokio::test]
async fn a_certificate_on_any_list_of_its_issuer_is_revoked() {
    let domain = Domain::new();
    domain.issue("agent/b");
    let list = || fs::read_to_string(domain.path("crl.pem")).unwrap();
    let old = list();
    let mut listener = domain.listener();
    let address = format!("https://{}", listener.local_addr().unwrap());
    domain.authority.revoke(&domain.path("a.pem")).unwrap();
    let middle = list();
    domain.authority.revoke(&domain.path("main.pem")).unwrap();
    let new = list();
    for text in [
        format!("{old}{new}"),
        format!("{new}{old}"),
        format!("{old}{middle}{new}{middle}"),
    ] {
        fs::write(domain.path("crl.pem"), &text).unwrap();
        assert_eq!(verdict(&domain, "a"), Some(Refusal::Revoked));
        assert_eq!(verdict(&domain, "b"), None);
        // The listener still has the list on which nobody is revoked.
        let agent = domain.credentials("b");
        let dial = Connector::new(&agent).oneshot(address.parse().unwrap());
        let (_, dialled) = tokio::join!(listener.accept(), dial);
        let refusal = Refusal::among(&dialled.map(drop).unwrap_err());
        assert_eq!(refusal, Some(Refusal::Revoked), "of the coordinator");
    }
}

/// While one authority replaces another, whose name is that of the trust domain, too.
#[test]
fn two_authorities_of_one_name_can_each_revoke() {
    let (domain, next) = (Domain::new(), Domain::new());
    next.issue("agent/c");
    for file in ["c.pem", "c-key.pem"] {
        fs::copy(next.path(file), domain.path(file)).unwrap();
    }
    let both = |file: &str, reverse: bool| {
        let texts = [&domain, &next].map(|one| fs::read_to_string(one.path(file)).unwrap());
        match reverse {
            false => texts.concat(),
            true => [texts[1].as_str(), texts[0].as_str()].concat(),
        }
    };
    let (first, second) = (both("crl.pem", false), both("crl.pem", true));
    next.authority.revoke(&next.path("c.pem")).unwrap();
    let revoked = fs::read_to_string(next.path("crl.pem")).unwrap();
    fs::write(domain.path("ca.pem"), both("ca.pem", false)).unwrap();
    for lists in [&first, &second] {
        fs::write(domain.path("crl.pem"), lists).unwrap();
        assert_eq!(verdict(&domain, "a"), None);
        assert_eq!(verdict(&domain, "c"), None);
        for text in [format!("{lists}{revoked}"), format!("{revoked}{lists}")] {
            fs::write(domain.path("crl.pem"), text).unwrap();
            assert_eq!(verdict(&domain, "a"), None);
            assert_eq!(verdict(&domain, "c"), Some(Refusal::Revoked));
        }
    }
    let other = fs::read_to_string(Domain::new().path("crl.pem")).unwrap();
    fs::write(domain.path("crl.pem"), other).unwrap();
    assert!(
        verdict(&domain, "a").is_some(),
        "a list of another key only"
    );
}

/// RFC 5280, 5.2.4: changes since a base list. `openssl ca -gencrl` with the extension
/// `2.5.29.27=critical,ASN1:INTEGER:1`.
const DELTA: &str = "\
-----BEGIN X509 CRL-----
MIHnMIGOAgEBMAoGCCqGSM49BAMCMB8xHTAbBgNVBAMMFExvY2tzdGVwIGV4YW1w
bGUub3JnFw0yNjExMjgxNTM4MzZaFw0yNjEyMjgxNTM4MzZaoD4wPDAfBgNVHSME
GDAWgBQh2VPdYYxN47iQ6NQTDQlkfbhU/TANBgNVHRsBAf8EAwIBATAKBgNVHRQE
AwIBAjAKBggqhkjOPQQDAgNIADBFAiASRDC1PKH/fvOnZyuM4mW9SFslok2n7F6n
bUV7z3zSTwIhAJsTKBp6kFIwmWOUmO7SFOVIz7gQbDt3QoeSZ08sDBrq
-----END X509 CRL-----
";

#[test]
fn a_delta_list_and_too_many_lists_are_refused_and_the_file_is_named() {
    let domain = Domain::new();
    let path = domain.path("crl.pem");
    let list = || fs::read_to_string(&path).unwrap();
    let refused = || {
        let error = Credentials::load(domain.files("a")).unwrap_err();
        let CredentialsError::Trust {
            path: named,
            source,
        } = error
        else {
            unreachable!("{error:?}");
        };
        assert_eq!(named, path);
        source.to_string()
    };
    let whole = list();
    fs::write(&path, format!("{whole}{DELTA}")).unwrap();
    let why = refused();
    assert!(why.contains("revocation list 2"), "{why}");

    fs::write(&path, &whole).unwrap();
    let mut all = whole;
    for number in 0..64 {
        let name = format!("agent/x{number}");
        domain.issue(&name);
        let certificate = domain.path(&format!("x{number}.pem"));
        domain.authority.revoke(&certificate).unwrap();
        all += &list();
    }
    fs::write(&path, all).unwrap();
    assert!(refused().contains("too many"));
}

#[tokio::test]
async fn handlers_see_the_callers_identity_and_no_refused_caller() {
    let domain = Domain::new();
    domain.issue("agent/revoked");
    let revoked = domain.credentials("revoked");
    domain
        .authority
        .revoke(&domain.path("revoked.pem"))
        .unwrap();
    let listener = domain.listener();
    let address = format!("https://{}", listener.local_addr().unwrap());
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = calls.clone();
    let handler = tower::service_fn(move |request: http::Request<Body>| {
        counted.fetch_add(1, Ordering::Relaxed);
        let peer = request
            .extensions()
            .get::<Peer>()
            .unwrap()
            .identity
            .to_string();
        async move {
            let response = http::Response::builder().header("peer", peer);
            Ok::<_, std::convert::Infallible>(response.body(Body::empty()).unwrap())
        }
    });
    let server =
        tokio::spawn(tonic::transport::Server::builder().serve_with_incoming(handler, listener));

    let endpoint = Endpoint::from_shared(address).unwrap();
    let call = |credentials: Credentials| {
        let endpoint = endpoint.clone();
        async move {
            let channel = connect(&endpoint, &credentials).await?;
            channel.oneshot(http::Request::new(Body::empty())).await
        }
    };
    let response = call(domain.credentials("a")).await.unwrap();
    assert_eq!(response.headers()["peer"], "agent/a");
    let error = call(revoked).await.unwrap_err();
    let expected = Refusal::ByPeer("CertificateRevoked".to_owned());
    assert_eq!(Refusal::among(&error), Some(expected), "{error:?}");
    assert_eq!(calls.load(Ordering::Relaxed), 1);
    server.abort();
}

#[test]
fn insecure_and_incomplete_files_are_refused() {
    let domain = Domain::new();
    let load = || Credentials::load(domain.files("a")).unwrap_err();
    let key = domain.path("a-key.pem");
    let mode = |path: &std::path::Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(
        (mode(&key), mode(&domain.path("ca-key.pem"))),
        (0o600, 0o600)
    );

    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    assert!(matches!(
        load(),
        CredentialsError::KeyExposed { mode: 0o644, .. }
    ));
    fs::set_permissions(&key, fs::Permissions::from_mode(0o640)).unwrap();
    Credentials::load(domain.files("a")).unwrap();

    fs::write(domain.path("crl.pem"), "").unwrap();
    assert!(matches!(
        load(),
        CredentialsError::Empty {
            what: "revocation list",
            ..
        }
    ));
    fs::copy(domain.path("main.pem"), domain.path("a.pem")).unwrap();
    fs::remove_file(domain.path("crl.pem")).unwrap();
    assert!(matches!(load(), CredentialsError::Read { .. }));
}

#[test]
fn an_authority_overwrites_nothing_and_can_be_reopened() {
    let domain = Domain::new();
    let before = fs::read(domain.path("ca-key.pem")).unwrap();
    let again = Authority::create(domain.dir.path(), "example.org".parse().unwrap());
    assert!(matches!(again, Err(AuthorityError::Exists { .. })));
    assert_eq!(fs::read(domain.path("ca-key.pem")).unwrap(), before);

    let opened = Authority::open(domain.dir.path()).unwrap();
    assert_eq!(opened.trust_domain().as_str(), "example.org");
    let day = Duration::from_secs(24 * 3600);
    let issued = opened.issue(&"agent/a".parse().unwrap(), day, &[]).unwrap();
    assert!(matches!(
        issued.write(domain.dir.path()),
        Err(AuthorityError::Exists { .. })
    ));
    let names = ["localhost".to_owned()];
    let error = opened
        .issue(&"agent/b".parse().unwrap(), day, &names)
        .unwrap_err();
    assert!(matches!(error, AuthorityError::NamesOfClient { .. }));
    let error = opened
        .issue(&"agent/b".parse().unwrap(), 100 * 365 * day, &[])
        .unwrap_err();
    assert!(matches!(error, AuthorityError::Outlives { .. }));

    let stranger = forge::Domain::new();
    let error = opened.revoke(&stranger.path("a.pem")).unwrap_err();
    assert!(matches!(error, AuthorityError::Foreign { .. }));
}

/// Both ends of a new connection between an agent and the coordinator.
async fn connected(
    listener: &mut lockstep_pki::Listener,
    agent: &Credentials,
) -> (lockstep_pki::Connection, lockstep_pki::Stream) {
    let address = format!("https://{}", listener.local_addr().unwrap());
    let dial = Connector::new(agent).oneshot(address.parse().unwrap());
    let (accepted, dialled) = tokio::join!(listener.accept(), dial);
    (accepted.unwrap(), dialled.unwrap().into_inner())
}

fn listener(credentials: &Credentials) -> lockstep_pki::Listener {
    let any = "127.0.0.1:0".parse().unwrap();
    let options = lockstep_pki::ListenerOptions::default();
    lockstep_pki::Listener::bind(any, credentials.clone(), options).unwrap()
}

/// The error with which a connection ends.
async fn ended(stream: &mut (impl tokio::io::AsyncRead + Unpin)) -> std::io::ErrorKind {
    let limit = Duration::from_secs(10);
    let read = tokio::time::timeout(limit, stream.read_u8()).await;
    read.expect("the connection ends").unwrap_err().kind()
}

#[tokio::test]
async fn an_agent_leaves_a_coordinator_that_is_revoked() {
    let domain = Domain::new();
    let agent = domain.credentials("a");
    let (_accepted, mut dialled) =
        connected(&mut listener(&domain.credentials("main")), &agent).await;
    let waiting = tokio::spawn(async move { ended(&mut dialled).await });
    domain.authority.revoke(&domain.path("main.pem")).unwrap();
    assert!(agent.reload().unwrap());
    let kind = waiting.await.unwrap();
    assert_eq!(kind, std::io::ErrorKind::PermissionDenied);
}

impl Domain {
    /// Replaces the party's files by a certificate that expires in two seconds.
    fn expire_soon(&self, identity: &str) {
        let soon = Duration::from_secs(2);
        let identity = identity.parse().unwrap();
        let issued = self.authority.issue(&identity, soon, &[]).unwrap();
        let files = self.files(identity.name());
        fs::write(files.cert, &issued.cert_pem).unwrap();
        fs::write(files.key, &issued.key_pem).unwrap();
    }
}

#[tokio::test]
async fn connections_end_when_a_certificate_expires() {
    let domain = Domain::new();
    domain.expire_soon("agent/a");
    let coordinator = domain.credentials("main");
    let (mut accepted, _dialled) =
        connected(&mut listener(&coordinator), &domain.credentials("a")).await;
    let kind = ended(&mut accepted).await;
    assert_eq!(kind, std::io::ErrorKind::PermissionDenied);

    let domain = Domain::new();
    domain.expire_soon("coordinator/main");
    let coordinator = domain.credentials("main");
    let (_accepted, mut dialled) =
        connected(&mut listener(&coordinator), &domain.credentials("a")).await;
    let kind = ended(&mut dialled).await;
    assert_eq!(kind, std::io::ErrorKind::PermissionDenied);
}

#[tokio::test]
async fn revocations_count_while_the_own_certificate_is_expired_or_revoked() {
    for expire in [true, false] {
        let domain = Domain::new();
        if expire {
            domain.expire_soon("coordinator/main");
        }
        let coordinator = domain.credentials("main");
        let (mut accepted, _dialled) =
            connected(&mut listener(&coordinator), &domain.credentials("a")).await;
        if expire {
            let limit = Duration::from_secs(10);
            let expired = async {
                while verdict(&domain, "main").is_none() {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            };
            tokio::time::timeout(limit, expired).await.unwrap();
        } else {
            domain.authority.revoke(&domain.path("main.pem")).unwrap();
        }
        domain.authority.revoke(&domain.path("a.pem")).unwrap();
        let error = coordinator.reload().unwrap_err();
        assert!(
            matches!(error, CredentialsError::Refused { .. }),
            "{error:?}"
        );
        let kind = ended(&mut accepted).await;
        assert_eq!(kind, std::io::ErrorKind::PermissionDenied);
    }
}

#[tokio::test]
async fn a_renewed_certificate_of_another_party_is_refused() {
    let domain = Domain::new();
    domain.issue("agent/b");
    let credentials = domain.credentials("a");
    let before = credentials.current().fingerprint().to_owned();
    for file in ["", "-key"] {
        let from = domain.path(&format!("b{file}.pem"));
        fs::copy(from, domain.path(&format!("a{file}.pem"))).unwrap();
    }
    let error = credentials.reload().unwrap_err();
    assert!(
        matches!(&error, CredentialsError::AnotherIdentity { found, .. } if found.ends_with("agent/b")),
        "{error:?}"
    );
    assert_eq!(credentials.current().fingerprint(), before);
}

#[tokio::test]
async fn only_the_pinned_coordinator_is_accepted() {
    let domain = Domain::new();
    let mut listener = listener(&domain.credentials("main"));
    let address = format!("https://{}", listener.local_addr().unwrap());
    for (pinned, accepted) in [("main", true), ("other", false)] {
        let agent = domain.credentials("a").pinned_to(Some(pinned));
        let dial = Connector::new(&agent).oneshot(address.parse().unwrap());
        let (_, dialled) = tokio::join!(listener.accept(), dial);
        assert_eq!(dialled.is_ok(), accepted, "{pinned}");
    }
}

#[tokio::test]
async fn silent_connections_keep_nobody_out() {
    let domain = Domain::new();
    domain.issue("operator/operator");
    let mut listener = domain.listener();
    let address = listener.local_addr().unwrap();
    let mut silent = Vec::new();
    for _ in 0..1_000 {
        silent.push(tokio::net::TcpStream::connect(address).await.unwrap());
    }
    let accepting = tokio::spawn(async move {
        let mut accepted = Vec::new();
        while accepted.len() < 4 {
            accepted.extend(listener.accept().await.ok());
        }
    });
    let uri = format!("https://{address}");
    for _ in 0..4 {
        // Its handshake may take five seconds altogether, with the wait.
        let agent = domain.credentials("operator");
        let dialled = Connector::new(&agent).oneshot(uri.parse().unwrap()).await;
        dialled.unwrap();
    }
    accepting.await.unwrap();
    drop(silent);
}

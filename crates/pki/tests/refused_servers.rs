//! Servers that clients must not accept as the coordinator.

#![expect(clippy::unwrap_used, reason = "a test fails at the first error")]

mod forge;

use forge::{Domain, HOUR, Leaf, Pair, Signer, permissive_server, self_signed};
use lockstep_pki::{ConnectError, Connector, IdentityError, Refusal, Role};
use rcgen::ExtendedKeyUsagePurpose as Usage;
use rustls::ServerConfig;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tower::ServiceExt;

enum Server {
    Tls(Box<ServerConfig>),
    Bytes(&'static [u8]),
}

fn tls(pair: Pair) -> Server {
    Server::Tls(Box::new(permissive_server(&rustls::version::TLS13, pair)))
}

async fn dial(domain: &Domain, server: Server) -> Result<(), ConnectError> {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let task = tokio::spawn(async move {
        let (mut tcp, _) = listener.accept().await.unwrap();
        let mut answer = [0; 512];
        match server {
            Server::Tls(config) => {
                let acceptor = TlsAcceptor::from(Arc::from(config));
                if let Ok(mut stream) = acceptor.accept(tcp).await {
                    let _ = stream.read(&mut answer).await;
                }
            }
            Server::Bytes(bytes) => {
                tcp.write_all(bytes).await.unwrap();
                let _ = tcp.read(&mut answer).await;
            }
        }
    });
    let uri = format!("https://{address}").parse().unwrap();
    let outcome = Connector::new(&domain.credentials("a")).oneshot(uri).await;
    task.abort();
    outcome.map(drop)
}

async fn check(domain: &Domain, cases: Vec<(&str, Server, Refusal)>) {
    let mut wrong = Vec::new();
    for (name, server, expected) in cases {
        match dial(domain, server).await {
            Err(ConnectError::Tls { source, .. }) if source == expected => {}
            other => wrong.push(format!("{name}: {other:?}, not {expected:?}")),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test]
async fn the_coordinator_itself_is_accepted() {
    let domain = Domain::new();
    dial(&domain, tls(domain.pair("main"))).await.unwrap();
}

#[tokio::test]
async fn no_other_identity_is_accepted() {
    let domain = Domain::new();
    let ca = domain.signer();
    let named = |uris: &[&'static str]| tls(ca.sign(&Leaf::coordinator().uris(uris)));
    let role = |found: &str| {
        let found = found.parse().unwrap();
        Refusal::Identity(IdentityError::WrongRole {
            found,
            expected: Role::Coordinator,
        })
    };
    let cases = vec![
        (
            "an agent",
            named(&["spiffe://example.org/agent/a"]),
            role("agent/a"),
        ),
        (
            "an operator",
            named(&["spiffe://example.org/operator/o"]),
            role("operator/o"),
        ),
        (
            "no URI",
            named(&[]),
            Refusal::Identity(IdentityError::NoUri),
        ),
        (
            "two URIs",
            named(&[
                "spiffe://example.org/agent/a",
                "spiffe://example.org/coordinator/main",
            ]),
            Refusal::Identity(IdentityError::SeveralUris { count: 2 }),
        ),
        (
            "another trust domain",
            named(&["spiffe://example.net/coordinator/main"]),
            Refusal::Identity(IdentityError::WrongTrustDomain {
                found: "example.net".parse().unwrap(),
                expected: "example.org".parse().unwrap(),
            }),
        ),
    ];
    check(&domain, cases).await;
}

#[tokio::test]
async fn no_invalid_certificate_is_accepted() {
    let domain = Domain::new();
    let ca = domain.signer();
    domain.issue("coordinator/revoked");
    let revoked = domain.pair("revoked");
    domain
        .authority
        .revoke(&domain.path("revoked.pem"))
        .unwrap();
    let stranger = Signer::stranger("another CA");
    let namesake = Signer::stranger("Lockstep example.org");
    let client_only = Leaf::coordinator().usages(&[Usage::ClientAuth]);
    let cases = vec![
        (
            "for clients only",
            tls(ca.sign(&client_only)),
            Refusal::WrongUsage,
        ),
        (
            "expired",
            tls(ca.sign(&Leaf::coordinator().between(-2 * HOUR, -HOUR))),
            Refusal::Expired,
        ),
        (
            "not yet valid",
            tls(ca.sign(&Leaf::coordinator().between(HOUR, 2 * HOUR))),
            Refusal::NotYetValid,
        ),
        ("revoked", tls(revoked), Refusal::Revoked),
        (
            "another CA",
            tls(stranger.sign(&Leaf::coordinator())),
            Refusal::UnknownIssuer,
        ),
        (
            "a CA with our CA's name",
            tls(namesake.sign(&Leaf::coordinator())),
            Refusal::BadSignature,
        ),
        (
            "self-signed",
            tls(self_signed(&Leaf::coordinator())),
            Refusal::UnknownIssuer,
        ),
        (
            "a CA certificate",
            tls(ca.sign(&Leaf::coordinator().authority())),
            Refusal::AuthorityAsParty,
        ),
        (
            "signed by an agent",
            tls(ca.party_as_ca().sign(&Leaf::coordinator())),
            Refusal::IssuerNotAuthority,
        ),
    ];
    check(&domain, cases).await;
}

#[tokio::test]
async fn no_other_protocol_is_accepted() {
    let domain = Domain::new();
    let ca = domain.signer();
    let tls12 = permissive_server(&rustls::version::TLS12, ca.sign(&Leaf::coordinator()));
    let mut http1 = permissive_server(&rustls::version::TLS13, ca.sign(&Leaf::coordinator()));
    http1.alpn_protocols = vec![b"http/1.1".to_vec()];
    let cases = vec![
        ("TLS 1.2", Server::Tls(Box::new(tls12)), Refusal::TlsVersion),
        (
            "HTTP/1.1 by ALPN",
            Server::Tls(Box::new(http1)),
            Refusal::NotHttp2,
        ),
        (
            "plaintext",
            Server::Bytes(b"HTTP/1.1 400 Bad Request\r\n\r\n"),
            Refusal::NotTls,
        ),
    ];
    check(&domain, cases).await;
}

#[tokio::test]
async fn only_a_complete_https_address_is_dialled() {
    let domain = Domain::new();
    let connector = Connector::new(&domain.credentials("a"));
    for uri in ["http://127.0.0.1:1", "https://localhost", "/path"] {
        let error = connector
            .clone()
            .oneshot(uri.parse().unwrap())
            .await
            .unwrap_err();
        assert!(
            matches!(error, ConnectError::Address { .. }),
            "{uri}: {error:?}"
        );
    }
}

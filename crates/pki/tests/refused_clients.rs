//! Clients that the listener must refuse, each with the reason that is logged.

#![expect(clippy::unwrap_used, reason = "a test fails at the first error")]

mod forge;

use forge::{
    Domain, HOUR, Leaf, Pair, Signer, permissive_client, permissive_client_of, self_signed,
};
use lockstep_pki::{Connection, IdentityError, Listener, Refusal, Refused, Role};
use rcgen::{BasicConstraints, ExtendedKeyUsagePurpose as Usage};
use rustls::ClientConfig;
use rustls::client::ResolvesClientCert;
use rustls::sign::CertifiedKey;
use rustls_pki_types::ServerName;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// What the client does.
enum Attempt {
    Tls(Box<ClientConfig>),
    /// Sends bytes and waits for a response.
    Bytes(&'static [u8]),
    HangUp,
    Silence,
}

fn tls(pair: Pair) -> Attempt {
    Attempt::Tls(Box::new(permissive_client(Some(pair))))
}

/// Makes the attempt while the listener accepts one connection.
async fn attempt(listener: &mut Listener, attempt: Attempt) -> Result<Connection, Refused> {
    let address = listener.local_addr().unwrap();
    let client = tokio::spawn(make(address, attempt));
    let outcome = listener.accept().await;
    client.abort();
    outcome
}

async fn make(address: SocketAddr, attempt: Attempt) {
    let mut tcp = TcpStream::connect(address).await.unwrap();
    let mut answer = [0; 64];
    match attempt {
        Attempt::Tls(config) => {
            let name = ServerName::try_from("localhost").unwrap();
            if let Ok(mut stream) = TlsConnector::from(Arc::from(config))
                .connect(name, tcp)
                .await
            {
                let _ = stream.read(&mut answer).await;
            }
        }
        Attempt::Bytes(bytes) => {
            tcp.write_all(bytes).await.unwrap();
            let _ = tcp.read(&mut answer).await;
        }
        Attempt::HangUp => drop(tcp),
        Attempt::Silence => {
            let _ = tcp.read(&mut answer).await;
        }
    }
}

async fn check(listener: &mut Listener, cases: Vec<(&str, Attempt, Refusal)>) {
    let mut wrong = Vec::new();
    for (name, case, expected) in cases {
        match attempt(listener, case).await {
            Err(refused) if refused.reason == expected => {}
            Err(refused) => wrong.push(format!("{name}: {:?}, not {expected:?}", refused.reason)),
            Ok(connection) => wrong.push(format!("{name}: accepted as {:?}", connection.peer())),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Attempts with certificates of our CA that name these URIs.
async fn check_names(cases: Vec<(&str, Vec<&'static str>, IdentityError)>) {
    let domain = Domain::new();
    let ca = domain.signer();
    let cases = cases
        .into_iter()
        .map(|(name, uris, why)| {
            let pair = ca.sign(&Leaf::agent().uris(&uris));
            (name, tls(pair), Refusal::Identity(why))
        })
        .collect();
    check(&mut domain.listener(), cases).await;
}

/// Presents a certificate with the key of another one.
#[derive(Debug)]
struct StolenCertificate(Arc<CertifiedKey>);

impl ResolvesClientCert for StolenCertificate {
    fn resolve(
        &self,
        _root_hint_subjects: &[&[u8]],
        _sigschemes: &[rustls::SignatureScheme],
    ) -> Option<Arc<CertifiedKey>> {
        Some(self.0.clone())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

fn stolen(certificate: Pair, other: Pair) -> Attempt {
    let key = forge::provider()
        .key_provider
        .load_private_key(other.key)
        .unwrap();
    let mut config = permissive_client(None);
    config.client_auth_cert_resolver = Arc::new(StolenCertificate(Arc::new(CertifiedKey::new(
        certificate.chain,
        key,
    ))));
    Attempt::Tls(Box::new(config))
}

#[tokio::test]
async fn no_certificate_of_another_issuer_or_time_is_accepted() {
    let domain = Domain::new();
    domain.issue("agent/revoked");
    let revoked = domain.pair("revoked");
    domain
        .authority
        .revoke(&domain.path("revoked.pem"))
        .unwrap();
    let ca = domain.signer();
    let stranger = Signer::stranger("another CA");
    let namesake = Signer::stranger("Lockstep example.org");
    let cases = vec![
        (
            "none",
            Attempt::Tls(Box::new(permissive_client(None))),
            Refusal::NoCertificate,
        ),
        (
            "expired",
            tls(ca.sign(&Leaf::agent().between(-2 * HOUR, -HOUR))),
            Refusal::Expired,
        ),
        (
            "not yet valid",
            tls(ca.sign(&Leaf::agent().between(HOUR, 2 * HOUR))),
            Refusal::NotYetValid,
        ),
        (
            "another CA",
            tls(stranger.sign(&Leaf::agent())),
            Refusal::UnknownIssuer,
        ),
        (
            "a CA with our CA's name",
            tls(namesake.sign(&Leaf::agent())),
            Refusal::BadSignature,
        ),
        (
            "self-signed",
            tls(self_signed(&Leaf::agent())),
            Refusal::UnknownIssuer,
        ),
        ("revoked", tls(revoked), Refusal::Revoked),
    ];
    check(&mut domain.listener(), cases).await;
}

#[tokio::test]
async fn no_certificate_of_another_kind_is_accepted() {
    let domain = Domain::new();
    let ca = domain.signer();
    let long = ca
        .intermediate("first", BasicConstraints::Constrained(0))
        .intermediate("second", BasicConstraints::Unconstrained);
    let good = || domain.pair("a");

    let mut listener = domain.listener();
    let cases = vec![
        (
            "for servers only",
            tls(ca.sign(&Leaf::agent().usages(&[Usage::ServerAuth]))),
            Refusal::WrongUsage,
        ),
        (
            "for mail",
            tls(ca.sign(&Leaf::agent().usages(&[Usage::EmailProtection]))),
            Refusal::WrongUsage,
        ),
        (
            "a CA certificate",
            tls(ca.sign(&Leaf::agent().authority())),
            Refusal::AuthorityAsParty,
        ),
        (
            "signed by an agent",
            tls(ca.party_as_ca().sign(&Leaf::agent())),
            Refusal::IssuerNotAuthority,
        ),
        (
            "a long chain",
            tls(long.sign(&Leaf::agent())),
            Refusal::ChainTooLong,
        ),
        (
            "with the key of another",
            stolen(good(), ca.sign(&Leaf::agent())),
            Refusal::BadSignature,
        ),
    ];
    check(&mut listener, cases).await;

    let accepted = attempt(&mut listener, tls(good())).await.unwrap();
    assert_eq!(accepted.peer().identity.to_string(), "agent/a");
}

#[tokio::test]
async fn no_other_uri_or_trust_domain_is_accepted() {
    use IdentityError::{NoUri, NotSpiffe, SeveralUris};
    let both = &[
        "spiffe://example.org/agent/a",
        "spiffe://example.org/operator/a",
    ];
    let named = |uris: &[&'static str]| uris.to_vec();
    let found = |text: &str| text.to_owned();
    let cases = vec![
        ("no URI", named(&[]), NoUri),
        ("two URIs", named(both), SeveralUris { count: 2 }),
        (
            "another trust domain",
            named(&["spiffe://example.net/agent/a"]),
            IdentityError::WrongTrustDomain {
                found: "example.net".parse().unwrap(),
                expected: "example.org".parse().unwrap(),
            },
        ),
        (
            "a web address",
            named(&["https://example.org/agent/a"]),
            NotSpiffe {
                found: found("https://example.org/agent/a"),
            },
        ),
        (
            "a trust domain with a port",
            named(&["spiffe://example.org:1/agent/a"]),
            IdentityError::BadTrustDomain {
                found: found("example.org:1"),
            },
        ),
    ];
    check_names(cases).await;
}

#[tokio::test]
async fn no_malformed_name_is_accepted() {
    use IdentityError::{BadName, UnknownRole, WrongPath};
    let named = |uris: &[&'static str]| uris.to_vec();
    let found = |text: &str| text.to_owned();
    let cases = vec![
        (
            "no path",
            named(&["spiffe://example.org"]),
            WrongPath { found: found("") },
        ),
        (
            "no name",
            named(&["spiffe://example.org/agent"]),
            WrongPath {
                found: found("agent"),
            },
        ),
        (
            "a longer path",
            named(&["spiffe://example.org/agent/a/b"]),
            WrongPath {
                found: found("agent/a/b"),
            },
        ),
        (
            "an empty name",
            named(&["spiffe://example.org/agent/"]),
            BadName { found: found("") },
        ),
        (
            "a name in capitals",
            named(&["spiffe://example.org/agent/A"]),
            BadName { found: found("A") },
        ),
        (
            "a query",
            named(&["spiffe://example.org/agent/a?b=c"]),
            BadName {
                found: found("a?b=c"),
            },
        ),
        (
            "another role",
            named(&["spiffe://example.org/database/a"]),
            UnknownRole {
                found: found("database"),
            },
        ),
    ];
    check_names(cases).await;
}

#[tokio::test]
async fn no_other_protocol_is_accepted() {
    const HELLO_1_0: &[u8] = b"\x16\x03\x01\x00\x2d\x01\x00\x00\x29\x03\x01\
        \x00\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b\x0c\x0d\x0e\x0f\
        \x10\x11\x12\x13\x14\x15\x16\x17\x18\x19\x1a\x1b\x1c\x1d\x1e\x1f\
        \x00\x00\x02\x00\x2f\x01\x00";
    let domain = Domain::new();
    let good = || domain.pair("a");
    let mut http1 = permissive_client(Some(good()));
    http1.alpn_protocols = vec![b"http/1.1".to_vec()];
    let mut no_alpn = permissive_client(Some(good()));
    no_alpn.alpn_protocols = Vec::new();
    let tls12 = permissive_client_of(&rustls::version::TLS12, Some(good()));

    let cases = vec![
        (
            "plaintext HTTP/2",
            Attempt::Bytes(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
            Refusal::NotTls,
        ),
        (
            "plaintext HTTP/1",
            Attempt::Bytes(b"GET / HTTP/1.1\r\n\r\n"),
            Refusal::NotTls,
        ),
        ("random bytes", Attempt::Bytes(&[0xff; 64]), Refusal::NotTls),
        ("TLS 1.0", Attempt::Bytes(HELLO_1_0), Refusal::TlsVersion),
        (
            "TLS 1.2",
            Attempt::Tls(Box::new(tls12)),
            Refusal::TlsVersion,
        ),
        (
            "HTTP/1.1 by ALPN",
            Attempt::Tls(Box::new(http1)),
            Refusal::NotHttp2,
        ),
        (
            "no ALPN",
            Attempt::Tls(Box::new(no_alpn)),
            Refusal::NotHttp2,
        ),
        (
            "closed during the handshake",
            Attempt::HangUp,
            Refusal::Closed,
        ),
    ];
    check(&mut domain.listener(), cases).await;
}

#[tokio::test(start_paused = true)]
async fn a_silent_client_is_refused_at_the_timeout() {
    let domain = Domain::new();
    let expected = Refusal::HandshakeTimeout(std::time::Duration::from_secs(5));
    let half = Attempt::Bytes(b"\x16\x03\x01\x02\x00\x01");
    let cases = vec![
        ("silence", Attempt::Silence, expected.clone()),
        ("half a ClientHello", half, expected),
    ];
    check(&mut domain.listener(), cases).await;
}

#[tokio::test]
async fn a_certificate_that_no_revocation_list_covers_is_refused() {
    let domain = Domain::new();
    let stranger = Signer::stranger("a second CA");
    let both = std::fs::read_to_string(domain.path("ca.pem")).unwrap() + &stranger.pem;
    std::fs::write(domain.path("ca.pem"), both).unwrap();
    let cases = vec![(
        "no list",
        tls(stranger.sign(&Leaf::agent())),
        Refusal::UnknownRevocation,
    )];
    check(&mut domain.listener(), cases).await;
}

#[tokio::test]
async fn an_agent_has_at_most_two_connections_at_a_time() {
    let domain = Domain::new();
    let mut listener = domain.listener();
    let dial = || tls(domain.pair("a"));
    let first = attempt(&mut listener, dial()).await.unwrap();
    let _second = attempt(&mut listener, dial()).await.unwrap();
    let identity = first.peer().identity.clone();
    let refused = Refusal::TooManyConnections { identity, limit: 2 };
    check(&mut listener, vec![("a third", dial(), refused)]).await;

    drop(first);
    attempt(&mut listener, dial()).await.unwrap();
}

#[tokio::test]
async fn each_role_is_distinguished() {
    let domain = Domain::new();
    domain.issue("operator/o");
    let mut listener = domain.listener();
    for (name, role) in [
        ("a", Role::Agent),
        ("o", Role::Operator),
        ("main", Role::Coordinator),
    ] {
        let connection = attempt(&mut listener, tls(domain.pair(name)))
            .await
            .unwrap();
        assert_eq!(connection.peer().identity.role(), role);
        assert_eq!(connection.peer().identity.name(), name);
    }
}

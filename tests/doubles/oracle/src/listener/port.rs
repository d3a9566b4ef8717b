//! An open port: accepts connections, looks at the first byte and hands them
//! to the frontend that speaks their protocol.

use super::Instance;
use crate::api::{Database, Frontend, OraError};
use crate::tns::{Gate, Refusal, Service, Wanted};
use crate::{bequeath, config, tns, wire};
use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// Connections of one listener at a time; beyond it new ones are closed
/// without a word, as by a full backlog. Oracle's limit is PROCESSES.
const CONNECTIONS_MAX: usize = 500;
/// Time for a client's first byte; Oracle's `INBOUND_CONNECT_TIMEOUT`.
const FIRST_BYTE_TIMEOUT: Duration = Duration::from_secs(60);
/// Time for the connection that wakes the accepting thread up. It goes to
/// our own port on loopback.
const WAKE_TIMEOUT: Duration = Duration::from_secs(1);
/// Pause after an accept that failed, for instance for want of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// ORA-12504: the client named no service.
const NO_SERVICE_NAME: u32 = 12_504;
/// ORA-12505: the listener doesn't know the SID.
const UNKNOWN_SID: u32 = 12_505;
/// ORA-12514: the listener doesn't know the service.
const UNKNOWN_SERVICE: u32 = 12_514;
/// ORA-12526: every instance of the service is in restricted mode.
const RESTRICTED: u32 = 12_526;

/// What a listener is, whether it runs or not.
pub struct Endpoint {
    pub name: String,
    pub host: String,
    /// `INSTANCE_NAME`.
    pub instance: String,
    /// `DB_UNIQUE_NAME`.
    pub database: String,
    pub port: u16,
    pub services: Vec<String>,
    /// Whether they are registered statically.
    pub is_static: bool,
    /// Connections handed to a server.
    pub established: AtomicU64,
    pub refused: AtomicU64,
    connections: AtomicUsize,
    db: Arc<dyn Database>,
    restricted: Arc<dyn Fn() -> bool + Send + Sync>,
}

impl Endpoint {
    /// The endpoint of a configured listener.
    pub fn new(database: &str, instance: &Instance, listener: &config::Listener) -> Self {
        let services = if listener.services.is_empty() {
            vec![database.to_owned(), instance.config.name.clone()]
        } else {
            listener.services.clone()
        };
        Self {
            name: listener.name.clone(),
            host: instance.config.host.clone(),
            instance: instance.config.name.clone(),
            database: database.to_owned(),
            port: listener.port,
            services,
            is_static: listener.is_static,
            established: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            connections: AtomicUsize::new(0),
            db: Arc::clone(&instance.db),
            restricted: Arc::clone(&instance.restricted),
        }
    }

    /// Whether restricted session blocks its services.
    pub fn is_blocked(&self) -> bool {
        !self.is_static && (self.restricted)()
    }

    fn check(&self, wanted: &Wanted) -> Result<(), u32> {
        match wanted {
            Wanted::Service(name) => {
                if !self
                    .services
                    .iter()
                    .any(|service| service.eq_ignore_ascii_case(name))
                {
                    return Err(UNKNOWN_SERVICE);
                }
            }
            Wanted::Sid(sid) if sid.eq_ignore_ascii_case(&self.instance) => {}
            Wanted::Sid(_) => return Err(UNKNOWN_SID),
            Wanted::Nothing => return Err(NO_SERVICE_NAME),
        }
        if self.is_blocked() {
            Err(RESTRICTED)
        } else {
            Ok(())
        }
    }

    fn decide(&self, wanted: &Wanted) -> Result<(), u32> {
        let verdict = self.check(wanted);
        let counter = if verdict.is_ok() {
            &self.established
        } else {
            &self.refused
        };
        counter.fetch_add(1, Ordering::Relaxed);
        verdict
    }

    fn serve(&self, stream: TcpStream) {
        match first_byte(&stream) {
            Ok(byte) if byte == wire::MAGIC[0] => {
                let frontend = Frontend::Listener(self.name.clone());
                bequeath::serve_stream(stream, &*self.db, frontend, &|service| {
                    let wanted = Wanted::Service(service.to_owned());
                    self.decide(&wanted)
                        .map_err(|code| self.refusal(code, service))
                });
            }
            Ok(_) => tns::serve(stream, self),
            Err(error) => {
                tracing::debug!(listener = self.name, %error, "a client that said nothing");
            }
        }
    }

    fn refusal(&self, code: u32, service: &str) -> OraError {
        let reason = match code {
            RESTRICTED => "all appropriate instances are in restricted mode".to_owned(),
            _ => format!(
                "listener {} does not currently know of service {service} requested in connect descriptor",
                self.name
            ),
        };
        OraError::new(code, format!("TNS:{reason}"))
    }
}

impl Gate for Endpoint {
    fn admit(&self, wanted: &Wanted) -> Result<Service, Refusal> {
        self.decide(wanted).map_err(Refusal)?;
        let service = match wanted {
            Wanted::Service(name) => name.clone(),
            Wanted::Sid(_) | Wanted::Nothing => String::new(),
        };
        Ok(Service {
            db: Arc::clone(&self.db),
            instance: self.instance.clone(),
            database: self.database.clone(),
            service,
            listener: self.name.clone(),
        })
    }
}

/// Waits for a client's first byte and leaves it where it is.
fn first_byte(stream: &TcpStream) -> std::io::Result<u8> {
    stream.set_read_timeout(Some(FIRST_BYTE_TIMEOUT))?;
    let mut byte = [0];
    match stream.peek(&mut byte)? {
        0 => Err(ErrorKind::UnexpectedEof.into()),
        _ => {
            stream.set_read_timeout(None)?;
            Ok(byte[0])
        }
    }
}

/// A port that is open. Dropping it closes the port before it returns.
pub struct Port {
    address: SocketAddr,
    stopping: Arc<AtomicBool>,
    acceptor: Option<JoinHandle<()>>,
}

impl Port {
    /// Opens the endpoint's port on 127.0.0.1.
    pub fn open(endpoint: Arc<Endpoint>) -> std::io::Result<Self> {
        let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, endpoint.port))?;
        let address = socket.local_addr()?;
        let stopping = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&stopping);
        let acceptor = std::thread::Builder::new()
            .name(format!("listener-{}", endpoint.port))
            .spawn(move || accept(&socket, &endpoint, &flag))?;
        Ok(Self {
            address,
            stopping,
            acceptor: Some(acceptor),
        })
    }
}

impl Drop for Port {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::SeqCst);
        // The acceptor sleeps in accept; a connection wakes it to the flag.
        drop(TcpStream::connect_timeout(&self.address, WAKE_TIMEOUT));
        if let Some(acceptor) = self.acceptor.take() {
            // A panic of the acceptor has been reported by the panic hook.
            let _ = acceptor.join();
        }
    }
}

fn accept(socket: &TcpListener, endpoint: &Arc<Endpoint>, stopping: &AtomicBool) {
    for stream in socket.incoming() {
        if stopping.load(Ordering::SeqCst) {
            return;
        }
        match stream {
            Ok(stream) => hand_over(stream, endpoint),
            Err(error) => {
                tracing::warn!(listener = endpoint.name, %error, "accept failed");
                std::thread::sleep(ACCEPT_PAUSE);
            }
        }
    }
}

fn hand_over(stream: TcpStream, endpoint: &Arc<Endpoint>) {
    if endpoint.connections.fetch_add(1, Ordering::SeqCst) >= CONNECTIONS_MAX {
        endpoint.connections.fetch_sub(1, Ordering::SeqCst);
        tracing::warn!(
            listener = endpoint.name,
            CONNECTIONS_MAX,
            "too many connections"
        );
        return;
    }
    let serving = Connection(Arc::clone(endpoint));
    let spawned = std::thread::Builder::new()
        .name("tns-session".to_owned())
        .spawn(move || serving.0.serve(stream));
    if let Err(error) = spawned {
        tracing::warn!(listener = endpoint.name, %error, "no thread for a connection");
    }
}

/// Counts a connection for as long as it lasts, panics included.
struct Connection(Arc<Endpoint>);

impl Drop for Connection {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::SeqCst);
    }
}

//! The bequeath frontend: sessions of the client library double.
//!
//! [`serve`] listens on the Unix socket of an instance and works with every
//! TCP listener closed. [`serve_stream`] takes over a TCP connection whose
//! first bytes a listener has recognised as [`wire::MAGIC`] (peeked, not
//! consumed). Both speak the protocol of [`wire`].
//!
//! Each connection has two threads: one reads, so that a cancel and the death
//! of the client are noticed while a call runs; the other makes the calls. A
//! connection that ends without a logoff drops its session, which rolls its
//! transaction back.
//!
//! The frontend knows no SQL. Array executions are cut into single executions
//! here, and the rows of a query are kept here until they are fetched.

mod conversation;
mod gate;

use crate::api::{Database, Frontend, OraError};
use crate::wire::{self, Call, Hello, Message, Receiver, Response, Stream, Welcome, WireError};
use conversation::Conversation;
pub use conversation::MAX_CURSORS;
use gate::Gate;
use std::io;
use std::net::TcpStream;
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{self, SyncSender};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// Connections one instance's socket carries at a time: the order of the real
/// SESSIONS parameter, far above what a rehearsal opens.
pub const MAX_CONNECTIONS: usize = 500;

/// How long a client may take to greet once it is connected.
const GREETING_TIMEOUT: Duration = Duration::from_secs(20);

/// What the double reports as its server's release.
const BANNER: &str =
    "Oracle Database 19c Enterprise Edition Release 19.0.0.0.0 - Production\nVersion 19.3.0.0.0";

/// 19.3.0.0.0 as OCIServerRelease2 packs it since release 18.
const RELEASE: u32 = 19 << 24 | 3 << 16;

/// The open socket of an instance. Dropping it closes the socket and removes
/// its file; sessions live on until they end or the process does.
#[derive(Debug)]
pub struct Bequeath {
    path: PathBuf,
    stopping: Arc<AtomicBool>,
    acceptor: Option<JoinHandle<()>>,
}

impl Drop for Bequeath {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::SeqCst);
        // The acceptor wakes up for a connection and sees the flag.
        drop(UnixStream::connect(&self.path));
        if let Some(acceptor) = self.acceptor.take() {
            // A panic in the acceptor has been reported by the panic hook.
            let _ = acceptor.join();
        }
        // Somebody may have removed the file already.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Opens the bequeath socket of an instance at `socket_path`
/// (`$ORACLE_HOME/dbs/bequeath_$ORACLE_SID.sock`), replacing a stale file.
/// Anyone may connect; who may log in `/ as sysdba` is decided by the peer's
/// uid, which the kernel tells.
///
/// # Errors
/// Where the directory can't be made or the socket can't be bound.
pub fn serve(socket_path: &Path, db: Arc<dyn Database>) -> io::Result<Bequeath> {
    if let Some(directory) = socket_path.parent() {
        std::fs::create_dir_all(directory)?;
    }
    match std::fs::remove_file(socket_path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(socket_path)?;
    std::fs::set_permissions(socket_path, std::fs::Permissions::from_mode(0o666))?;
    let stopping = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&stopping);
    let acceptor = thread::Builder::new()
        .name("bequeath".into())
        .spawn(move || accept(&listener, &db, &flag))?;
    Ok(Bequeath {
        path: socket_path.to_owned(),
        stopping,
        acceptor: Some(acceptor),
    })
}

fn accept(listener: &UnixListener, db: &Arc<dyn Database>, stopping: &AtomicBool) {
    let open = Arc::new(AtomicUsize::new(0));
    for stream in listener.incoming() {
        if stopping.load(Ordering::SeqCst) {
            return;
        }
        let stream = match stream {
            Ok(stream) => stream,
            Err(error) => {
                tracing::warn!(%error, "bequeath: accept failed");
                continue;
            }
        };
        if open.fetch_add(1, Ordering::SeqCst) >= MAX_CONNECTIONS {
            open.fetch_sub(1, Ordering::SeqCst);
            tracing::warn!(
                MAX_CONNECTIONS,
                "bequeath: connection refused, too many are open"
            );
            continue;
        }
        let (db, count) = (Arc::clone(db), Arc::clone(&open));
        let spawned = thread::Builder::new()
            .name("bequeath-session".into())
            .spawn(move || {
                let trusted = trusted_peer(&stream);
                let caller = Caller {
                    frontend: Frontend::Bequeath,
                    address: String::new(),
                    trusted,
                };
                report(converse(Stream::Unix(stream), &*db, caller, &|_| Ok(())));
                count.fetch_sub(1, Ordering::SeqCst);
            });
        if let Err(error) = spawned {
            open.fetch_sub(1, Ordering::SeqCst);
            tracing::warn!(%error, "bequeath: no thread for a connection");
        }
    }
}

/// Serves one connection of the private protocol that came in through a
/// listener, until it ends. `admit` is asked for the service the client
/// names and refuses with ORA-12514, ORA-12526 and the like. Operating system
/// authentication is refused here.
pub fn serve_stream(
    stream: TcpStream,
    db: &dyn Database,
    frontend: Frontend,
    admit: &dyn Fn(&str) -> Result<(), OraError>,
) {
    let address = stream
        .peer_addr()
        .map(|peer| peer.ip().to_string())
        .unwrap_or_default();
    // Without it every small answer would wait for the client's delayed ACK.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "bequeath: TCP_NODELAY");
    }
    let caller = Caller {
        frontend,
        address,
        trusted: false,
    };
    report(converse(Stream::Tcp(stream), db, caller, admit));
}

/// What the frontend knows of a client without asking it.
struct Caller {
    frontend: Frontend,
    address: String,
    trusted: bool,
}

fn report(ended: Result<(), WireError>) {
    if let Err(error) = ended {
        tracing::debug!(
            error = &error as &dyn std::error::Error,
            "bequeath: connection ended"
        );
    }
}

fn converse(
    stream: Stream,
    db: &dyn Database,
    caller: Caller,
    admit: &dyn Fn(&str) -> Result<(), OraError>,
) -> Result<(), WireError> {
    let mut writer = stream.try_clone().map_err(WireError::Lost)?;
    let mut receiver = Receiver::new(stream.try_clone().map_err(WireError::Lost)?);
    let deadline = Some(Instant::now() + GREETING_TIMEOUT);
    receiver.expect_magic(deadline)?;
    let hello: Hello = receiver.receive(deadline)?;
    if let Err(error) = admit(&hello.service) {
        return wire::send(&mut writer, &Err::<Welcome, _>(error));
    }
    let welcome = Welcome {
        banner: BANNER.into(),
        release: RELEASE,
    };
    wire::send(&mut writer, &Ok::<_, OraError>(welcome))?;

    let gate = Gate::default();
    thread::scope(|scope| {
        // One place: the protocol has one call under way at a time, and a
        // client that breaks this rule waits in its own socket.
        let (calls, incoming) = mpsc::sync_channel(1);
        let reader = scope.spawn(|| {
            let ended = read(receiver, &calls, &gate);
            drop(calls);
            gate.abandon();
            ended
        });
        let mut conversation = Conversation::new(db, caller, hello.service, &gate);
        let written = incoming.iter().try_for_each(|call: Call| {
            let id = call.id;
            let response = conversation.answer(call);
            gate.finish(id);
            respond(&mut writer, response)
        });
        // The reader must find neither a full channel nor a silent socket.
        drop(incoming);
        stream.close();
        let read = reader.join().unwrap_or(Ok(()));
        written.and(read)
    })
}

/// An answer too long for a frame becomes an error that says so: the session
/// itself is well.
fn respond(writer: &mut Stream, response: Response) -> Result<(), WireError> {
    match wire::send(writer, &response) {
        Err(error @ WireError::TooLong(_)) => {
            let result = Err(OraError::new(
                3001,
                format!("unimplemented feature: {error}"),
            ));
            wire::send(
                writer,
                &Response {
                    result,
                    in_transaction: response.in_transaction,
                },
            )
        }
        sent => sent,
    }
}

fn read(mut receiver: Receiver, calls: &SyncSender<Call>, gate: &Gate) -> Result<(), WireError> {
    loop {
        match receiver.receive(None)? {
            Message::Call(call) => {
                gate.begin(call.id);
                if calls.send(*call).is_err() {
                    return Ok(());
                }
            }
            Message::Cancel { call } => gate.cancel(call),
        }
    }
}

/// Whether the process at the other end may log in `/ as sysdba`: it runs as
/// root or as the user the simulator runs as, which stands for the OSDBA group.
fn trusted_peer(stream: &UnixStream) -> bool {
    let mut peer = libc::ucred {
        pid: 0,
        uid: u32::MAX,
        gid: u32::MAX,
    };
    let mut length = libc::socklen_t::try_from(size_of::<libc::ucred>()).unwrap_or(0);
    // SAFETY: `peer` and `length` are valid for writes, `length` says how large
    // `peer` is, and the descriptor is open as long as `stream` is borrowed.
    let status = unsafe {
        libc::getsockopt(
            stream.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERCRED,
            (&raw mut peer).cast(),
            &raw mut length,
        )
    };
    // SAFETY: geteuid only reads and can't fail.
    let own = unsafe { libc::geteuid() };
    status == 0 && (peer.uid == 0 || peer.uid == own)
}

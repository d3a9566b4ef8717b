//! The connection after ACCEPT: a reading thread, a queue of packets, and
//! breaks.
//!
//! How a break goes: the client sends a marker (interrupt or break); the
//! server stops the call, sends a marker of its own, waits for the client's
//! reset marker, answers with a reset marker and then with the error. A
//! driver whose call had just ended waits for the same exchange, so it is
//! made for every break, whether a call was running or not.

use super::TnsError;
use super::codec::Source;
use super::packet::{self, Frames, MARKER_BREAK, MARKER_INTERRUPT, MARKER_RESET, Packet};
use crate::api::Canceller;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// Packets read ahead of the executing thread. A driver sends one request
/// and waits, so this only bounds what a misbehaving client can pile up.
const READ_AHEAD: usize = 64;
/// How often a break is passed on again while its call has not ended. The
/// first one can come before the engine has begun the call, where it has no
/// effect.
const REPEAT: Duration = Duration::from_millis(50);
/// Longest wait for a client that doesn't take what we send; then it counts
/// as gone and its transaction rolls back.
const SEND_TIMEOUT: Duration = Duration::from_secs(60);
/// Bytes asked of the socket at once: two packets of 8 KiB.
const READ_CHUNK: usize = 16_384;

/// A break on its way from the reading thread to the engine.
#[derive(Default)]
struct Break {
    raised: AtomicBool,
    canceller: Mutex<Option<Box<dyn Canceller>>>,
}

impl Break {
    fn cancel(&self) {
        let canceller = self
            .canceller
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(canceller) = canceller.as_ref() {
            canceller.cancel();
        }
    }
}

/// One side of the conversation with a client.
pub struct Link {
    stream: TcpStream,
    sdu: u16,
    packets: Receiver<Result<Packet, TnsError>>,
    pending_break: Arc<Break>,
    reader: Option<JoinHandle<()>>,
}

impl Link {
    /// Takes a connection over from the handshake, with bytes already read.
    pub fn start(stream: TcpStream, frames: Frames, sdu: u16) -> Result<Self, TnsError> {
        stream.set_nodelay(true).map_err(TnsError::Io)?;
        stream
            .set_write_timeout(Some(SEND_TIMEOUT))
            .map_err(TnsError::Io)?;
        stream.set_read_timeout(None).map_err(TnsError::Io)?;
        let reading = stream.try_clone().map_err(TnsError::Io)?;
        let pending_break = Arc::new(Break::default());
        let (sender, packets) = sync_channel(READ_AHEAD);
        let shared = Arc::clone(&pending_break);
        let reader = std::thread::Builder::new()
            .name("tns-reader".to_owned())
            .spawn(move || {
                if let Err(error) = read(&reading, frames, &sender, &shared) {
                    // A call that runs for a client that is gone ends; its
                    // session is about to be rolled back.
                    shared.cancel();
                    // Where the queue is closed too, nobody wants to know.
                    let _ = sender.send(Err(error));
                }
            })
            .map_err(TnsError::Io)?;
        Ok(Self {
            stream,
            sdu,
            packets,
            pending_break,
            reader: Some(reader),
        })
    }

    /// From now on breaks go to this session.
    pub fn breaks_go_to(&self, canceller: Box<dyn Canceller>) {
        *self
            .pending_break
            .canceller
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = Some(canceller);
    }

    /// Whether a break has come that has not been answered.
    pub fn is_broken(&self) -> bool {
        self.pending_break.raised.load(Ordering::SeqCst)
    }

    /// The payload of the next request's first packet. A break between
    /// requests ends in [`TnsError::Broken`].
    pub fn next_request(&mut self) -> Result<Vec<u8>, TnsError> {
        self.next_payload()
    }

    pub fn send(&mut self, message: &[u8]) -> Result<(), TnsError> {
        self.write(&packet::data(message, self.sdu))
    }

    /// Makes the exchange of markers that a break calls for, then sends the
    /// message.
    pub fn answer_break(&mut self, message: &[u8]) -> Result<(), TnsError> {
        self.write(&packet::marker(MARKER_BREAK))?;
        loop {
            match self.receive()? {
                Packet::Marker(MARKER_RESET) => break,
                Packet::End => return Err(TnsError::Closed),
                _ => {}
            }
        }
        self.pending_break.raised.store(false, Ordering::SeqCst);
        self.write(&packet::marker(MARKER_RESET))?;
        self.send(message)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), TnsError> {
        self.stream.write_all(bytes).map_err(TnsError::Io)
    }

    fn receive(&mut self) -> Result<Packet, TnsError> {
        self.packets.recv().unwrap_or(Err(TnsError::Closed))
    }
}

impl Source for Link {
    fn next_payload(&mut self) -> Result<Vec<u8>, TnsError> {
        match self.receive()? {
            Packet::Data(payload) => Ok(payload),
            Packet::Marker(_) => Err(TnsError::Broken),
            Packet::End => Err(TnsError::Closed),
            Packet::Connect(_) | Packet::Other(_) => Err(TnsError::Malformed(
                "a packet that is neither data nor a marker",
            )),
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        // The reader's read ends with the socket, its send with the queue.
        let _ = self.stream.shutdown(Shutdown::Both);
        let (_, closed) = sync_channel(0);
        self.packets = closed;
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
    }
}

fn read(
    mut stream: &TcpStream,
    mut frames: Frames,
    sender: &SyncSender<Result<Packet, TnsError>>,
    pending_break: &Break,
) -> Result<(), TnsError> {
    let mut chunk = vec![0; READ_CHUNK];
    let mut patient = true;
    loop {
        while let Some(packet) = frames.pop()? {
            if matches!(packet, Packet::Marker(MARKER_BREAK | MARKER_INTERRUPT)) {
                pending_break.raised.store(true, Ordering::SeqCst);
                pending_break.cancel();
            }
            if sender.send(Ok(packet)).is_err() {
                return Ok(());
            }
        }
        let broken = pending_break.raised.load(Ordering::SeqCst);
        if patient == broken {
            patient = !broken;
            let timeout = broken.then_some(REPEAT);
            stream.set_read_timeout(timeout).map_err(TnsError::Io)?;
        }
        match stream.read(&mut chunk) {
            Ok(0) => return Err(TnsError::Closed),
            Ok(count) => frames.push(&chunk[..count]),
            Err(error) => match error.kind() {
                ErrorKind::WouldBlock | ErrorKind::TimedOut => {
                    if pending_break.raised.load(Ordering::SeqCst) {
                        pending_break.cancel();
                    }
                }
                ErrorKind::Interrupted => {}
                ErrorKind::ConnectionReset => return Err(TnsError::Closed),
                _ => return Err(TnsError::Io(error)),
            },
        }
    }
}

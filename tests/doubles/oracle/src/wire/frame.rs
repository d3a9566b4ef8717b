//! Streams and frames, and what can go wrong with them.

use super::{CONNECT_TIMEOUT, MAGIC, MAX_FRAME, VERSION};
use crate::api::OraError;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Why a connection could not be made or used any longer.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// The peer ended the connection or the operating system did.
    #[error("the connection was lost")]
    Lost(#[source] io::Error),
    /// The answer did not come in time.
    #[error("no answer within {0:?}")]
    TimedOut(Duration),
    /// A frame longer than [`MAX_FRAME`].
    #[error("a frame of {0} bytes is longer than the protocol allows ({MAX_FRAME})")]
    TooLong(usize),
    /// Bytes that are not this protocol.
    #[error("the peer does not speak the protocol")]
    Malformed(#[source] serde_json::Error),
    /// A peer of another version.
    #[error("the peer speaks version {theirs} of the protocol, not {VERSION}")]
    Version { theirs: u8 },
    #[error("refused")]
    Refused(#[source] OraError),
}

/// Where a server listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// A Unix socket of an instance.
    Unix(PathBuf),
    Tcp {
        /// Host name or address.
        host: String,
        port: u16,
    },
}

/// A byte stream of either kind.
#[derive(Debug)]
pub enum Stream {
    /// Over a Unix socket.
    Unix(UnixStream),
    Tcp(TcpStream),
}

impl Stream {
    /// Connects, bounded by [`CONNECT_TIMEOUT`].
    pub fn connect(target: &Target) -> io::Result<Self> {
        match target {
            Target::Unix(path) => UnixStream::connect(path).map(Self::Unix),
            Target::Tcp { host, port } => {
                let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
                for address in (host.as_str(), *port).to_socket_addrs()? {
                    match TcpStream::connect_timeout(&address, CONNECT_TIMEOUT) {
                        Ok(stream) => {
                            stream.set_nodelay(true)?;
                            return Ok(Self::Tcp(stream));
                        }
                        Err(error) => last = error,
                    }
                }
                Err(last)
            }
        }
    }

    /// Another handle to the same stream.
    pub fn try_clone(&self) -> io::Result<Self> {
        match self {
            Self::Unix(stream) => stream.try_clone().map(Self::Unix),
            Self::Tcp(stream) => stream.try_clone().map(Self::Tcp),
        }
    }

    /// Bounds every later read; `None` waits for ever.
    pub fn set_read_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        match self {
            Self::Unix(stream) => stream.set_read_timeout(timeout),
            Self::Tcp(stream) => stream.set_read_timeout(timeout),
        }
    }

    /// Ends the connection for every handle to it.
    pub fn close(&self) {
        // A peer that has already gone makes this fail; it is gone either way.
        let _ = match self {
            Self::Unix(stream) => stream.shutdown(Shutdown::Both),
            Self::Tcp(stream) => stream.shutdown(Shutdown::Both),
        };
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Unix(stream) => stream.read(buffer),
            Self::Tcp(stream) => stream.read(buffer),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Unix(stream) => stream.write(bytes),
            Self::Tcp(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Unix(stream) => stream.flush(),
            Self::Tcp(stream) => stream.flush(),
        }
    }
}

pub fn send<T: Serialize>(stream: &mut impl Write, message: &T) -> Result<(), WireError> {
    let mut frame = vec![0; 4];
    serde_json::to_writer(&mut frame, message).map_err(WireError::Malformed)?;
    let length = frame.len() - 4;
    if length > MAX_FRAME {
        return Err(WireError::TooLong(length));
    }
    let prefix = u32::try_from(length).map_err(|_| WireError::TooLong(length))?;
    frame[..4].copy_from_slice(&prefix.to_be_bytes());
    stream.write_all(&frame).map_err(WireError::Lost)
}

/// Receives frames. A read that times out in the middle of a frame loses
/// nothing: the next call goes on where it stood.
#[derive(Debug)]
pub struct Receiver {
    stream: Stream,
    pending: Vec<u8>,
}

impl Receiver {
    /// Reads from that stream.
    pub fn new(stream: Stream) -> Self {
        Self {
            stream,
            pending: Vec::new(),
        }
    }

    /// The next frame, by `deadline` if there is one.
    pub fn receive<T: DeserializeOwned>(
        &mut self,
        deadline: Option<Instant>,
    ) -> Result<T, WireError> {
        self.fill(4, deadline)?;
        let mut prefix = [0; 4];
        prefix.copy_from_slice(&self.pending[..4]);
        let length = u32::from_be_bytes(prefix) as usize;
        if length > MAX_FRAME {
            return Err(WireError::TooLong(length));
        }
        self.fill(4 + length, deadline)?;
        let message = serde_json::from_slice(&self.pending[4..4 + length]);
        self.pending.drain(..4 + length);
        message.map_err(WireError::Malformed)
    }

    /// Checks the opening bytes of a connection: [`MAGIC`] and [`VERSION`].
    pub fn expect_magic(&mut self, deadline: Option<Instant>) -> Result<(), WireError> {
        self.fill(MAGIC.len() + 1, deadline)?;
        if self.pending[..MAGIC.len()] != MAGIC {
            return Err(WireError::Lost(io::ErrorKind::InvalidData.into()));
        }
        let theirs = self.pending[MAGIC.len()];
        self.pending.drain(..=MAGIC.len());
        if theirs == VERSION {
            Ok(())
        } else {
            Err(WireError::Version { theirs })
        }
    }

    fn fill(&mut self, wanted: usize, deadline: Option<Instant>) -> Result<(), WireError> {
        let started = Instant::now();
        let mut chunk = [0; 64 * 1024];
        while self.pending.len() < wanted {
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            if left.is_some_and(|left| left.is_zero()) {
                return Err(WireError::TimedOut(started.elapsed()));
            }
            self.stream
                .set_read_timeout(left)
                .map_err(WireError::Lost)?;
            match self.stream.read(&mut chunk) {
                Ok(0) => return Err(WireError::Lost(io::ErrorKind::UnexpectedEof.into())),
                Ok(read) => self.pending.extend_from_slice(&chunk[..read]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
                    ) => {}
                Err(error) => return Err(WireError::Lost(error)),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Hello;

    fn pair() -> (Stream, Stream) {
        let (a, b) = UnixStream::pair().unwrap();
        (Stream::Unix(a), Stream::Unix(b))
    }

    #[test]
    fn a_frame_survives_being_torn_anywhere() {
        let mut whole = Vec::new();
        send(
            &mut whole,
            &Hello {
                service: "ORCL".into(),
            },
        )
        .unwrap();
        for cut in 0..whole.len() {
            let (mut near, far) = pair();
            let mut receiver = Receiver::new(far);
            near.write_all(&whole[..cut]).unwrap();
            let soon = Some(Instant::now() + Duration::from_millis(1));
            let early: Result<Hello, _> = receiver.receive(soon);
            assert!(
                matches!(early, Err(WireError::TimedOut(_))),
                "cut at {cut}: {early:?}"
            );
            near.write_all(&whole[cut..]).unwrap();
            let hello: Hello = receiver.receive(None).unwrap();
            assert_eq!(hello.service, "ORCL");
        }
    }

    #[test]
    fn a_frame_that_claims_too_much_is_refused_before_it_is_read() {
        let (mut near, far) = pair();
        near.write_all(&u32::MAX.to_be_bytes()).unwrap();
        let refused: Result<Hello, _> = Receiver::new(far).receive(None);
        assert!(matches!(refused, Err(WireError::TooLong(length)) if length == u32::MAX as usize));
    }

    #[test]
    fn a_peer_of_another_version_is_named() {
        let (mut near, far) = pair();
        near.write_all(b"LKSO\x09").unwrap();
        let refused = Receiver::new(far).expect_magic(None);
        assert!(matches!(refused, Err(WireError::Version { theirs: 9 })));
    }
}

//! Logical replication over PostgreSQL's streaming protocol, over TLS.
//!
//! Real DMS streams from its slot, so that `pg_replication_slots.active` is true
//! while a task runs, and confirms only what it has applied. tokio-postgres has no
//! replication mode; this is the small part of the protocol that is needed, with
//! message framing and SCRAM from `postgres-protocol`.
//!
//! Source: PostgreSQL 15 documentation, chapters 55.2 (message flow), 55.4
//! (streaming replication protocol) and 55.7 (message formats).

use super::connect::tls_client;
use crate::config::PostgresEndpoint;
use bytes::{Buf, BufMut, BytesMut};
use postgres_protocol::authentication::sasl::{ChannelBinding, SCRAM_SHA_256, ScramSha256};
use postgres_protocol::message::frontend;
use rustls::pki_types::ServerName;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// A message of the server. A row with a LOB can be large; anything beyond this is
/// taken for a broken stream.
const MESSAGE_BOUND: usize = 64 << 20;

/// For connecting and logging in: the server is on this machine.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Microseconds from 1970-01-01 to 2000-01-01, the epoch of PostgreSQL.
const POSTGRES_EPOCH_US: i64 = 946_684_800_000_000;

/// Why a stream can't be had or has ended.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// The connection failed or ended.
    #[error("replication connection to {server}")]
    Io {
        /// `host:port`.
        server: String,
        source: io::Error,
    },
    #[error("{server} refused: {message} (SQLSTATE {code})")]
    Refused {
        /// `host:port`.
        server: String,
        code: String,
        message: String,
    },
    /// An answer that is not expected here.
    #[error("{server} answered {what}")]
    Unexpected {
        /// `host:port`.
        server: String,
        what: String,
    },
}

impl StreamError {
    /// Whether trying again can't help: an unknown slot, a wrong password, a
    /// missing privilege, a slot that lost its WAL.
    #[must_use]
    pub fn is_fatal(&self) -> bool {
        // 55006: the slot is still held by a session that is about to end.
        matches!(self, Self::Refused { code, .. } if code != "55006" && !code.starts_with("57") && !code.starts_with("53"))
    }
}

/// What the server streams.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// One message of the output plugin.
    Data {
        /// Where it starts; for a commit, the position after the transaction.
        lsn: u64,
        text: String,
    },
    /// Nothing new, or a request to answer.
    Keepalive {
        /// The end of the server's WAL.
        end_lsn: u64,
        /// Whether the server wants a status at once.
        reply: bool,
    },
}

pub struct LogicalStream {
    socket: TlsStream<TcpStream>,
    server: String,
    buffer: BytesMut,
}

impl LogicalStream {
    /// Connects, logs in and starts streaming from a slot. The server begins at
    /// `from` or at what the slot has confirmed, whichever is later.
    ///
    /// # Errors
    /// As [`StreamError`] tells.
    pub async fn start(
        endpoint: &PostgresEndpoint,
        slot: &str,
        from: u64,
    ) -> Result<Self, StreamError> {
        let server = format!("{}:{}", endpoint.host, endpoint.port);
        let logging_in = async {
            let socket = connect(endpoint).await.map_err(|source| StreamError::Io {
                server: server.clone(),
                source,
            })?;
            let mut stream = Self {
                socket,
                server: server.clone(),
                buffer: BytesMut::with_capacity(64 << 10),
            };
            stream.log_in(endpoint).await?;
            stream.begin(slot, from).await?;
            Ok(stream)
        };
        tokio::time::timeout(CONNECT_TIMEOUT, logging_in)
            .await
            .unwrap_or_else(|_| {
                Err(StreamError::Io {
                    server: server.clone(),
                    source: io::ErrorKind::TimedOut.into(),
                })
            })
    }

    async fn log_in(&mut self, endpoint: &PostgresEndpoint) -> Result<(), StreamError> {
        let parameters = [
            ("user", endpoint.user.as_str()),
            ("database", endpoint.dbname.as_str()),
            ("replication", "database"),
            ("application_name", "dms-double"),
        ];
        self.send(|out| frontend::startup_message(parameters, out))
            .await?;
        let mut scram: Option<ScramSha256> = None;
        loop {
            let (tag, body) = self.receive().await?;
            match tag {
                b'R' => self.authenticate(&body, endpoint, &mut scram).await?,
                b'Z' => return Ok(()),
                // Parameter status, backend key, notice: nothing to do.
                b'S' | b'K' | b'N' => {}
                other => return Err(self.unexpected(other, "while logging in")),
            }
        }
    }

    async fn authenticate(
        &mut self,
        body: &BytesMut,
        endpoint: &PostgresEndpoint,
        scram: &mut Option<ScramSha256>,
    ) -> Result<(), StreamError> {
        let Some((kind, rest)) = body.split_first_chunk::<4>() else {
            return Err(self.unexpected(b'R', "without a kind"));
        };
        let broken = |server: &str, source| StreamError::Io {
            server: server.into(),
            source,
        };
        match (i32::from_be_bytes(*kind), scram.as_mut()) {
            (0, _) => Ok(()),
            (10, None) => {
                let client =
                    ScramSha256::new(endpoint.password.as_bytes(), ChannelBinding::unsupported());
                let first = client.message().to_vec();
                *scram = Some(client);
                self.send(|out| frontend::sasl_initial_response(SCRAM_SHA_256, &first, out))
                    .await
            }
            (11, Some(client)) => {
                client.update(rest).map_err(|e| broken(&self.server, e))?;
                let answer = client.message().to_vec();
                self.send(|out| frontend::sasl_response(&answer, out)).await
            }
            (12, Some(client)) => client.finish(rest).map_err(|e| broken(&self.server, e)),
            (other, _) => Err(StreamError::Unexpected {
                server: self.server.clone(),
                what: format!("authentication method {other}; only SCRAM-SHA-256 is spoken here"),
            }),
        }
    }

    async fn begin(&mut self, slot: &str, from: u64) -> Result<(), StreamError> {
        let command = format!(
            "START_REPLICATION SLOT {} LOGICAL {} (\"include-xids\" 'on', \"skip-empty-xacts\" 'on')",
            super::change::quote_name(slot),
            format_lsn(from)
        );
        self.send(|out| frontend::query(&command, out)).await?;
        loop {
            match self.receive().await? {
                (b'W', _) => return Ok(()),
                (b'S' | b'N', _) => {}
                (other, _) => return Err(self.unexpected(other, "instead of starting the stream")),
            }
        }
    }

    /// The next message. Safe to drop while it waits: what was read is kept.
    ///
    /// # Errors
    /// When the stream has ended or the server reports an error.
    pub async fn next(&mut self) -> Result<Message, StreamError> {
        loop {
            let (tag, mut body) = self.receive().await?;
            match (tag, body.first().copied()) {
                (b'd', Some(b'w')) if body.len() >= 25 => {
                    body.advance(1);
                    let lsn = body.get_u64();
                    body.advance(16);
                    let text = String::from_utf8_lossy(&body).into_owned();
                    return Ok(Message::Data { lsn, text });
                }
                (b'd', Some(b'k')) if body.len() >= 18 => {
                    body.advance(1);
                    let end_lsn = body.get_u64();
                    body.advance(8);
                    let reply = body.get_u8() == 1;
                    return Ok(Message::Keepalive { end_lsn, reply });
                }
                (b'S' | b'N', _) => {}
                (other, _) => return Err(self.unexpected(other, "within the stream")),
            }
        }
    }

    /// Confirms everything before `lsn`: the slot keeps what comes after.
    ///
    /// # Errors
    /// When the connection is gone.
    pub async fn confirm(&mut self, lsn: u64) -> Result<(), StreamError> {
        let now = jiff::Timestamp::now().as_microsecond() - POSTGRES_EPOCH_US;
        let mut status = BytesMut::with_capacity(34);
        status.put_u8(b'r');
        for _ in ["written", "flushed", "applied"] {
            status.put_u64(lsn);
        }
        status.put_i64(now);
        status.put_u8(0);
        self.send(|out| frontend::CopyData::new(status).map(|data| data.write(out)))
            .await
    }

    /// Ends the stream politely, so that the slot is free at once.
    pub async fn close(mut self) {
        // The connection may be gone already; the server then frees the slot itself.
        let _ = self
            .send(|out| {
                frontend::copy_done(out);
                frontend::terminate(out);
                Ok(())
            })
            .await;
        let _ = self.socket.shutdown().await;
    }

    async fn send(
        &mut self,
        write: impl FnOnce(&mut BytesMut) -> io::Result<()>,
    ) -> Result<(), StreamError> {
        let mut out = BytesMut::new();
        let sent = match write(&mut out) {
            Ok(()) => self.socket.write_all(&out).await,
            Err(e) => Err(e),
        };
        match sent {
            Ok(()) => self.socket.flush().await,
            Err(e) => Err(e),
        }
        .map_err(|source| self.lost(source))
    }

    /// One message of the server: its tag and body. An error report becomes an error.
    async fn receive(&mut self) -> Result<(u8, BytesMut), StreamError> {
        loop {
            if let Some((tag, body)) = self.take_message()? {
                return if tag == b'E' {
                    Err(self.refused(&body))
                } else {
                    Ok((tag, body))
                };
            }
            let read = self
                .socket
                .read_buf(&mut self.buffer)
                .await
                .map_err(|e| self.lost(e))?;
            if read == 0 {
                return Err(self.lost(io::ErrorKind::UnexpectedEof.into()));
            }
        }
    }

    fn take_message(&mut self) -> Result<Option<(u8, BytesMut)>, StreamError> {
        let Some(header) = self.buffer.first_chunk::<5>() else {
            return Ok(None);
        };
        let (tag, length) = (
            header[0],
            u32::from_be_bytes([header[1], header[2], header[3], header[4]]),
        );
        let length = length as usize;
        if !(4..=MESSAGE_BOUND).contains(&length) {
            return Err(self.unexpected(tag, &format!("of {length} bytes")));
        }
        if self.buffer.len() < length + 1 {
            return Ok(None);
        }
        let mut message = self.buffer.split_to(length + 1);
        message.advance(5);
        Ok(Some((tag, message)))
    }

    fn lost(&self, source: io::Error) -> StreamError {
        StreamError::Io {
            server: self.server.clone(),
            source,
        }
    }

    fn unexpected(&self, tag: u8, rest: &str) -> StreamError {
        StreamError::Unexpected {
            server: self.server.clone(),
            what: format!("message {:?} {rest}", char::from(tag)),
        }
    }

    fn refused(&self, body: &[u8]) -> StreamError {
        let field = |wanted: u8| {
            body.split(|b| *b == 0)
                .find(|f| f.first() == Some(&wanted))
                .map(|f| String::from_utf8_lossy(&f[1..]).into_owned())
                .unwrap_or_default()
        };
        StreamError::Refused {
            server: self.server.clone(),
            code: field(b'C'),
            message: field(b'M'),
        }
    }
}

async fn connect(endpoint: &PostgresEndpoint) -> io::Result<TlsStream<TcpStream>> {
    let config = tls_client(&endpoint.ca_file).map_err(io::Error::other)?;
    let mut plain = TcpStream::connect((endpoint.host.as_str(), endpoint.port)).await?;
    plain.set_nodelay(true)?;
    let mut request = BytesMut::new();
    frontend::ssl_request(&mut request);
    plain.write_all(&request).await?;
    if plain.read_u8().await? != b'S' {
        return Err(io::Error::other("the server speaks no TLS"));
    }
    let name = ServerName::try_from(endpoint.host.clone()).map_err(io::Error::other)?;
    TlsConnector::from(Arc::new(config))
        .connect(name, plain)
        .await
}

/// Reads `16/B374D848`.
#[must_use]
pub fn parse_lsn(text: &str) -> Option<u64> {
    let (high, low) = text.split_once('/')?;
    let (high, low) = (
        u32::from_str_radix(high, 16).ok()?,
        u32::from_str_radix(low, 16).ok()?,
    );
    Some(u64::from(high) << 32 | u64::from(low))
}

/// Writes `16/B374D848`.
#[must_use]
pub fn format_lsn(lsn: u64) -> String {
    format!("{:X}/{:X}", lsn >> 32, lsn & 0xffff_ffff)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_are_read_as_they_are_written() {
        let lsn = parse_lsn("16/B374D848").unwrap();
        assert_eq!(format_lsn(lsn), "16/B374D848");
        assert_eq!(parse_lsn("16"), None);
        assert_eq!(parse_lsn("0/XYZ"), None);
    }
}

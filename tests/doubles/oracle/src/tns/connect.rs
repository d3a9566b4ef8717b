//! The first exchange: CONNECT with its descriptor, ACCEPT or REFUSE.

use super::TnsError;
use super::packet::{self, Frames, Packet};
use crate::api::Database;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The protocol version spoken: the lowest in which drivers still give a
/// 32-bit packet length and no later feature is on by default.
const VERSION: u16 = 318;
/// Lowest version of a client: with it packet lengths became 32 bits wide.
const VERSION_MIN: u16 = 315;
/// Largest session data unit granted; Oracle's default.
const SDU_MAX: u16 = 8_192;
/// Smallest session data unit of Oracle Net.
const SDU_MIN: u16 = 512;
/// Time for a client to say what it wants; Oracle's
/// `INBOUND_CONNECT_TIMEOUT_listener`.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(60);

/// ORA-12618, TNS: versions are incompatible.
const INCOMPATIBLE: u32 = 12_618;

/// What a client asks its listener for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    /// `SERVICE_NAME`.
    Service(String),
    /// `SID`.
    Sid(String),
    /// Neither: the listener's default.
    Nothing,
}

/// Where the listener sends a client.
pub struct Service {
    /// The instance's database handle.
    pub db: Arc<dyn Database>,
    /// `INSTANCE_NAME`.
    pub instance: String,
    /// `DB_UNIQUE_NAME`.
    pub database: String,
    /// The service as asked for, empty where a SID was.
    pub service: String,
    pub listener: String,
}

/// The listener's no, by its TNS number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal(pub u32);

/// A listener as the frontend sees it.
pub trait Gate {
    /// Lets a client in or refuses it: ORA-12514, ORA-12505, ORA-12526.
    fn admit(&self, wanted: &Wanted) -> Result<Service, Refusal>;
}

/// What the handshake agreed on.
pub struct Accepted {
    pub service: Service,
    /// Largest packet to send.
    pub sdu: u16,
    /// Bytes read so far.
    pub frames: Frames,
}

/// Reads CONNECT and answers it. A refusal has been sent when it returns one
/// as the error.
pub fn handshake(stream: &mut TcpStream, gate: &dyn Gate) -> Result<Accepted, TnsError> {
    let deadline = Instant::now() + CONNECT_TIMEOUT;
    stream
        .set_write_timeout(Some(CONNECT_TIMEOUT))
        .map_err(TnsError::Io)?;
    let mut frames = Frames::default();
    let Packet::Connect(body) = next(stream, &mut frames, deadline)? else {
        return Err(TnsError::Malformed("something other than CONNECT at first"));
    };
    let request = Request::parse(&body)?;
    let descriptor = match request.descriptor {
        Some(descriptor) => descriptor,
        // Long descriptors follow in a data packet.
        None => match next(stream, &mut frames, deadline)? {
            Packet::Data(payload) => String::from_utf8_lossy(&payload).into_owned(),
            _ => return Err(TnsError::Malformed("no connect data after CONNECT")),
        },
    };
    let verdict = if request.version < VERSION_MIN {
        Err(Refusal(INCOMPATIBLE))
    } else {
        gate.admit(&wanted(&descriptor))
    };
    match verdict {
        Ok(service) => {
            let version = request.version.min(VERSION);
            stream
                .write_all(&packet::accept(version, request.sdu))
                .map_err(TnsError::Io)?;
            frames.widen();
            Ok(Accepted {
                service,
                sdu: request.sdu,
                frames,
            })
        }
        Err(Refusal(code)) => {
            stream
                .write_all(&packet::refuse(code))
                .map_err(TnsError::Io)?;
            Err(TnsError::Refused(code))
        }
    }
}

fn next(
    stream: &mut TcpStream,
    frames: &mut Frames,
    deadline: Instant,
) -> Result<Packet, TnsError> {
    let mut chunk = [0; 4_096];
    loop {
        if let Some(packet) = frames.pop()? {
            return Ok(packet);
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(TnsError::Malformed("no connect data in time"));
        }
        stream.set_read_timeout(Some(left)).map_err(TnsError::Io)?;
        match stream.read(&mut chunk).map_err(TnsError::Io)? {
            0 => return Err(TnsError::Closed),
            count => frames.push(&chunk[..count]),
        }
    }
}

/// The fields of CONNECT that matter.
struct Request {
    version: u16,
    sdu: u16,
    descriptor: Option<String>,
}

impl Request {
    fn parse(body: &[u8]) -> Result<Self, TnsError> {
        let field = |offset: usize| match body.get(offset..offset + 2) {
            Some(&[high, low]) => Ok(u16::from_be_bytes([high, low])),
            _ => Err(TnsError::Malformed("a CONNECT packet that is too short")),
        };
        let length = usize::from(field(16)?);
        // The offset counts from the packet's start; the header has 8 bytes.
        let start = usize::from(field(18)?).saturating_sub(8);
        let descriptor = body
            .get(start..start + length)
            .filter(|_| length > 0)
            .map(|bytes| String::from_utf8_lossy(bytes).into_owned());
        Ok(Self {
            version: field(0)?,
            sdu: field(6)?.clamp(SDU_MIN, SDU_MAX),
            descriptor,
        })
    }
}

/// What a connect descriptor asks for.
fn wanted(descriptor: &str) -> Wanted {
    let value = |key: &str| {
        let compact: String = descriptor.chars().filter(|c| !c.is_whitespace()).collect();
        let start = compact.to_ascii_uppercase().find(&format!("({key}="))? + key.len() + 2;
        let end = compact[start..].find(')')?;
        Some(compact[start..start + end].to_owned())
    };
    match (value("SERVICE_NAME"), value("SID")) {
        (Some(service), _) => Wanted::Service(service),
        (None, Some(sid)) => Wanted::Sid(sid),
        (None, None) => Wanted::Nothing,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tns_descriptors_are_read() {
        let service = |name: &str| Wanted::Service(name.to_owned());
        for (descriptor, expected) in [
            (
                "(DESCRIPTION=(ADDRESS=(PROTOCOL=tcp)(HOST=h)(PORT=1521))(CONNECT_DATA=(SERVICE_NAME=ORCL)(CID=(PROGRAM=p))))",
                service("ORCL"),
            ),
            (
                "(connect_data = (service_name = orcl.example.com))",
                service("orcl.example.com"),
            ),
            (
                "(CONNECT_DATA=(SID=ORCL1))",
                Wanted::Sid("ORCL1".to_owned()),
            ),
            ("(CONNECT_DATA=(CID=))", Wanted::Nothing),
            ("(SERVICE_NAME=", Wanted::Nothing),
        ] {
            assert_eq!(wanted(descriptor), expected, "{descriptor}");
        }
    }

    #[test]
    fn tns_connect_data_may_follow_in_a_packet_of_its_own() {
        let mut body = vec![0; 66];
        body[..2].copy_from_slice(&319u16.to_be_bytes());
        body[6..8].copy_from_slice(&u16::MAX.to_be_bytes());
        body[16..18].copy_from_slice(&300u16.to_be_bytes());
        body[18..20].copy_from_slice(&74u16.to_be_bytes());
        let request = Request::parse(&body).unwrap();
        assert_eq!(
            (request.version, request.sdu, request.descriptor),
            (319, 8_192, None)
        );
        body.extend(vec![b'x'; 300]);
        assert_eq!(
            Request::parse(&body).unwrap().descriptor,
            Some("x".repeat(300))
        );
        assert!(Request::parse(&body[..17]).is_err());
    }
}

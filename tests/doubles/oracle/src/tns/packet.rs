//! TNS packets: an 8-byte header (length, type, flags) and a body.
//!
//! Until the ACCEPT packet the length has 16 bits, afterwards 32 (protocol
//! version 315 and up). This module frames and cuts; it knows no TTC.

use super::TnsError;

/// Bytes of a packet header.
const HEADER: usize = 8;
/// Bytes of the flags in front of a data packet's payload.
const DATA_FLAGS: usize = 2;
/// Largest packet accepted. We announce an SDU of 8 KiB; clients that send
/// more than the protocol's 64 KiB are not speaking TNS.
const PACKET_MAX: usize = 65_536;
/// Data flag of the packet that announces the end of a connection.
const EOF_FLAG: u16 = 0x40;

/// Marker that stops the call under way.
pub const MARKER_BREAK: u8 = 1;
/// Marker that says "discarded everything up to here".
pub const MARKER_RESET: u8 = 2;
/// Marker that stops the call under way, sent by another thread.
pub const MARKER_INTERRUPT: u8 = 3;

/// A packet as received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Packet {
    /// CONNECT with its body.
    Connect(Vec<u8>),
    /// DATA with its payload, flags removed.
    Data(Vec<u8>),
    /// DATA that announces the end of the connection.
    End,
    /// MARKER with its kind.
    Marker(u8),
    Other(u8),
}

/// Collects bytes and gives packets.
#[derive(Debug, Default)]
pub struct Frames {
    pending: Vec<u8>,
    wide: bool,
}

impl Frames {
    /// From now on packet lengths have 32 bits.
    pub fn widen(&mut self) {
        self.wide = true;
    }

    /// Adds bytes from the socket.
    pub fn push(&mut self, bytes: &[u8]) {
        self.pending.extend_from_slice(bytes);
    }

    /// The next whole packet, if it has arrived.
    pub fn pop(&mut self) -> Result<Option<Packet>, TnsError> {
        let Some(header) = self.pending.first_chunk::<HEADER>() else {
            return Ok(None);
        };
        let [a, b, c, d, kind, ..] = *header;
        let length = if self.wide {
            u32::from_be_bytes([a, b, c, d]) as usize
        } else {
            usize::from(u16::from_be_bytes([a, b]))
        };
        if !(HEADER..=PACKET_MAX).contains(&length) {
            return Err(TnsError::Malformed(
                "a packet length outside 8 bytes to 64 KiB",
            ));
        }
        if self.pending.len() < length {
            return Ok(None);
        }
        let body = self.pending[HEADER..length].to_vec();
        self.pending.drain(..length);
        parse(kind, body).map(Some)
    }
}

fn parse(kind: u8, mut body: Vec<u8>) -> Result<Packet, TnsError> {
    match kind {
        1 => Ok(Packet::Connect(body)),
        6 => {
            let Some(&[high, low]) = body.first_chunk::<DATA_FLAGS>() else {
                return Err(TnsError::Malformed("a data packet without flags"));
            };
            if u16::from_be_bytes([high, low]) & EOF_FLAG != 0 {
                return Ok(Packet::End);
            }
            body.drain(..DATA_FLAGS);
            Ok(Packet::Data(body))
        }
        12 => body
            .get(2)
            .map(|kind| Packet::Marker(*kind))
            .ok_or(TnsError::Malformed("a marker without its kind")),
        other => Ok(Packet::Other(other)),
    }
}

/// ACCEPT, still with a 16-bit length.
pub fn accept(version: u16, sdu: u16) -> Vec<u8> {
    let mut body = Vec::with_capacity(37);
    for field in [version, 0, sdu, u16::MAX, 1, 0, 45] {
        body.extend(field.to_be_bytes());
    }
    // 0x41: no native network encryption; then nothing until the large SDU.
    body.push(0x41);
    body.extend([0; 9]);
    body.extend(u32::from(sdu).to_be_bytes());
    // No fast authentication, no out-of-band check, no end-of-response.
    body.extend([0; 9]);
    narrow(2, &body)
}

/// REFUSE with the listener's reason as a descriptor.
pub fn refuse(code: u32) -> Vec<u8> {
    let reason = format!(
        "(DESCRIPTION=(TMP=)(VSNNUM=318767104)(ERR={code})(ERROR_STACK=(ERROR=(CODE={code})(EMFI=4))))"
    );
    let mut body = vec![0x22, 0];
    body.extend((reason.len() as u16).to_be_bytes());
    body.extend(reason.as_bytes());
    narrow(4, &body)
}

fn narrow(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut packet = ((HEADER + body.len()) as u16).to_be_bytes().to_vec();
    packet.extend([0, 0, kind, 0, 0, 0]);
    packet.extend(body);
    packet
}

/// MARKER of a kind.
pub fn marker(kind: u8) -> Vec<u8> {
    wide(12, &[1, 0, kind])
}

/// A message cut into data packets of at most `sdu` bytes each.
pub fn data(message: &[u8], sdu: u16) -> Vec<u8> {
    let room = usize::from(sdu) - HEADER - DATA_FLAGS;
    let mut packets = Vec::with_capacity(message.len() + 16);
    for part in message.chunks(room) {
        let mut body = vec![0; DATA_FLAGS];
        body.extend(part);
        packets.extend(wide(6, &body));
    }
    packets
}

fn wide(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut packet = ((HEADER + body.len()) as u32).to_be_bytes().to_vec();
    packet.extend([kind, 0, 0, 0]);
    packet.extend(body);
    packet
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drain(frames: &mut Frames) -> Vec<Packet> {
        std::iter::from_fn(|| frames.pop().unwrap()).collect()
    }

    #[test]
    fn tns_packets_are_found_wherever_the_bytes_are_cut() {
        let message: Vec<u8> = (0..20_000u32).map(|i| i as u8).collect();
        let mut bytes = data(&message, 8_192);
        bytes.extend(marker(MARKER_INTERRUPT));
        for size in [1, 2, 7, 8, 9, 4_096, bytes.len()] {
            let mut frames = Frames::default();
            frames.widen();
            let mut packets = Vec::new();
            for piece in bytes.chunks(size) {
                frames.push(piece);
                packets.extend(drain(&mut frames));
            }
            assert_eq!(packets.pop(), Some(Packet::Marker(MARKER_INTERRUPT)));
            let payload: Vec<u8> = packets
                .iter()
                .flat_map(|packet| match packet {
                    Packet::Data(payload) => {
                        assert!(payload.len() <= 8_182);
                        payload.clone()
                    }
                    other => panic!("{other:?}"),
                })
                .collect();
            assert_eq!(payload, message);
        }
    }

    #[test]
    fn tns_lengths_out_of_range_are_refused() {
        for (wide, bytes) in [
            (false, [0, 7, 0, 0, 6, 0, 0, 0]),
            (true, [0, 2, 0, 0, 6, 0, 0, 0]),
        ] {
            let mut frames = Frames {
                pending: bytes.to_vec(),
                wide,
            };
            assert!(matches!(frames.pop(), Err(TnsError::Malformed(_))));
        }
    }

    #[test]
    fn tns_the_end_of_a_connection_is_recognised() {
        let mut frames = Frames::default();
        frames.push(&[0, 10, 0, 0, 6, 0, 0, 0, 0, 0x40]);
        assert_eq!(frames.pop().unwrap(), Some(Packet::End));
    }
}

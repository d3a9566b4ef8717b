//! The encodings that every TTC message is made of: "universal" integers
//! (a length byte, then that many big-endian bytes) and byte strings in
//! short (one length byte) or chunked form.
//!
//! A request doesn't say how long it is and may cross packets at any byte,
//! so the reader pulls the next packet when it needs one. Sources of the
//! layout: python-oracledb's thin implementation (`buffer.pyx`).

use super::TnsError;

/// Longest byte string with a one-byte length; longer ones go in chunks.
const SHORT_MAX: usize = 252;
/// Length byte that announces chunks.
const CHUNKED: u8 = 254;
/// Length byte of NULL, beside 0.
const NULL: u8 = 255;
/// Bytes per chunk written; the size that Oracle's own clients use.
const CHUNK: usize = 32_767;
/// Longest byte string accepted: far above any statement or value the engine
/// takes (VARCHAR2 and RAW end at 32,767), so that a broken length can't
/// exhaust memory.
const VALUE_MAX: usize = 16 << 20;

/// Where a reader gets the next packet's payload from.
pub trait Source {
    /// The payload of the next data packet. Fails when the client is gone or
    /// breaks off the request.
    fn next_payload(&mut self) -> Result<Vec<u8>, TnsError>;
}

/// Reads TTC fields, pulling packets as it goes.
pub struct Reader<'s, S: Source> {
    source: &'s mut S,
    buffer: Vec<u8>,
    position: usize,
}

impl<'s, S: Source> Reader<'s, S> {
    /// A reader that starts with a payload already received.
    pub fn new(source: &'s mut S, payload: Vec<u8>) -> Self {
        Self {
            source,
            buffer: payload,
            position: 0,
        }
    }

    /// Whether the packets received so far are used up.
    pub fn at_packet_end(&self) -> bool {
        self.position == self.buffer.len()
    }

    pub fn u8(&mut self) -> Result<u8, TnsError> {
        while self.at_packet_end() {
            self.buffer = self.source.next_payload()?;
            self.position = 0;
        }
        let byte = self.buffer[self.position];
        self.position += 1;
        Ok(byte)
    }

    /// Exactly `count` bytes.
    pub fn take(&mut self, count: usize) -> Result<Vec<u8>, TnsError> {
        if count > VALUE_MAX {
            return Err(TnsError::Malformed("a value longer than 16 MiB"));
        }
        let mut taken = Vec::with_capacity(count);
        while taken.len() < count {
            if self.at_packet_end() {
                self.buffer = self.source.next_payload()?;
                self.position = 0;
            }
            let end = self.buffer.len().min(self.position + count - taken.len());
            taken.extend_from_slice(&self.buffer[self.position..end]);
            self.position = end;
        }
        Ok(taken)
    }

    /// Passes over `count` bytes.
    pub fn skip(&mut self, count: usize) -> Result<(), TnsError> {
        self.take(count).map(drop)
    }

    /// An unsigned universal integer (ub1, ub2, ub4, ub8 alike).
    pub fn ub(&mut self) -> Result<u64, TnsError> {
        let length = usize::from(self.u8()?);
        if length > 8 {
            return Err(TnsError::Malformed(
                "an integer longer than 8 bytes, or negative",
            ));
        }
        let bytes = self.take(length)?;
        Ok(bytes
            .iter()
            .fold(0, |value, byte| value << 8 | u64::from(*byte)))
    }

    /// An unsigned universal integer that must fit 32 bits.
    pub fn ub4(&mut self) -> Result<u32, TnsError> {
        u32::try_from(self.ub()?).map_err(|_| TnsError::Malformed("an integer beyond 32 bits"))
    }

    /// Passes over `count` universal integers.
    pub fn skip_ub(&mut self, count: usize) -> Result<(), TnsError> {
        (0..count).try_for_each(|_| self.ub().map(drop))
    }

    /// A byte string, short or chunked; empty for NULL.
    pub fn bytes(&mut self) -> Result<Vec<u8>, TnsError> {
        match self.u8()? {
            NULL => Ok(Vec::new()),
            CHUNKED => {
                let mut whole = Vec::new();
                loop {
                    let length = self.ub4()? as usize;
                    if length == 0 {
                        return Ok(whole);
                    }
                    if whole.len() + length > VALUE_MAX {
                        return Err(TnsError::Malformed("a value longer than 16 MiB"));
                    }
                    whole.extend(self.take(length)?);
                }
            }
            length if usize::from(length) <= SHORT_MAX => self.take(usize::from(length)),
            _ => Err(TnsError::Malformed("a length byte of 253")),
        }
    }

    /// A byte string preceded by its length as a universal integer; where
    /// that is 0 nothing follows.
    pub fn counted_bytes(&mut self) -> Result<Vec<u8>, TnsError> {
        if self.ub()? == 0 {
            Ok(Vec::new())
        } else {
            self.bytes()
        }
    }

    /// The same as text.
    pub fn counted_text(&mut self) -> Result<String, TnsError> {
        text(self.counted_bytes()?)
    }
}

/// Bytes of the client as text; the character set agreed on is UTF-8.
pub fn text(bytes: Vec<u8>) -> Result<String, TnsError> {
    String::from_utf8(bytes).map_err(|_| TnsError::Malformed("text that is not UTF-8"))
}

/// Builds a TTC message.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    pub fn u8(&mut self, value: u8) -> &mut Self {
        self.bytes.push(value);
        self
    }

    /// Bytes as they are.
    pub fn raw(&mut self, bytes: &[u8]) -> &mut Self {
        self.bytes.extend_from_slice(bytes);
        self
    }

    /// A universal integer. Lengths 1, 2, 4 and 8 are used, as clients do.
    pub fn ub(&mut self, value: u64) -> &mut Self {
        let bytes = value.to_be_bytes();
        let length = match value {
            0 => 0,
            1..=0xff => 1,
            0x100..=0xffff => 2,
            0x1_0000..=0xffff_ffff => 4,
            _ => 8,
        };
        self.u8(length as u8).raw(&bytes[8 - length..])
    }

    /// `count` universal zeros, which are single zero bytes.
    pub fn zeros(&mut self, count: usize) -> &mut Self {
        self.bytes.resize(self.bytes.len() + count, 0);
        self
    }

    /// A byte string, chunked where it is long.
    pub fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        if bytes.len() <= SHORT_MAX {
            return self.u8(bytes.len() as u8).raw(bytes);
        }
        self.u8(CHUNKED);
        for chunk in bytes.chunks(CHUNK) {
            self.ub(chunk.len() as u64).raw(chunk);
        }
        self.u8(0)
    }

    /// A byte string preceded by its length.
    pub fn counted(&mut self, bytes: &[u8]) -> &mut Self {
        self.ub(bytes.len() as u64);
        if bytes.is_empty() {
            self
        } else {
            self.bytes(bytes)
        }
    }

    pub fn append(&mut self, other: Writer) -> &mut Self {
        self.bytes.extend(other.bytes);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::VecDeque;

    struct Pieces(VecDeque<Vec<u8>>);

    impl Source for Pieces {
        fn next_payload(&mut self) -> Result<Vec<u8>, TnsError> {
            self.0.pop_front().ok_or(TnsError::Closed)
        }
    }

    fn sample() -> (Writer, Vec<u8>) {
        let long: Vec<u8> = (0..70_000u32).map(|i| i as u8).collect();
        let mut writer = Writer::new();
        writer.u8(7).ub(0).ub(255).ub(256).ub(70_000).ub(1 << 40);
        writer
            .bytes(b"short")
            .counted(b"")
            .counted("hé".as_bytes())
            .bytes(&long);
        (writer, long)
    }

    fn check(pieces: Vec<Vec<u8>>, long: &[u8]) {
        let mut source = Pieces(pieces.into());
        let mut reader = Reader::new(&mut source, Vec::new());
        assert_eq!(reader.u8().unwrap(), 7);
        for expected in [0, 255, 256, 70_000, 1 << 40] {
            assert_eq!(reader.ub().unwrap(), expected);
        }
        assert_eq!(reader.bytes().unwrap(), b"short");
        assert_eq!(reader.counted_bytes().unwrap(), b"");
        assert_eq!(reader.counted_text().unwrap(), "hé");
        assert_eq!(reader.bytes().unwrap(), long);
        assert!(reader.at_packet_end());
        assert!(matches!(reader.u8(), Err(TnsError::Closed)));
    }

    #[test]
    fn tns_fields_survive_packets_split_at_every_byte() {
        let (writer, long) = sample();
        let bytes = writer.into_bytes();
        for cut in 0..60 {
            check(vec![bytes[..cut].to_vec(), bytes[cut..].to_vec()], &long);
        }
        check(bytes.chunks(1).map(<[u8]>::to_vec).collect(), &long);
        check(bytes.chunks(8_182).map(<[u8]>::to_vec).collect(), &long);
    }

    #[test]
    fn tns_integers_take_the_shortest_of_four_lengths() {
        for (value, expected) in [
            (0, "00"),
            (1, "0101"),
            (255, "01ff"),
            (256, "020100"),
            (65_535, "02ffff"),
            (65_536, "0400010000"),
            (1 << 32, "080000000100000000"),
        ] {
            let mut writer = Writer::new();
            writer.ub(value);
            assert_eq!(hex::encode(writer.into_bytes()), expected, "{value}");
        }
    }

    #[test]
    fn tns_broken_lengths_are_refused() {
        for bytes in [
            vec![9, 0],
            vec![0x81, 5],
            vec![253, 1],
            vec![254, 4, 0x7f, 0xff, 0xff, 0xff],
        ] {
            let integer = bytes[0] < 0xf0;
            let mut source = Pieces(VecDeque::new());
            let mut reader = Reader::new(&mut source, bytes.clone());
            let outcome = if integer {
                reader.ub().map(drop)
            } else {
                reader.bytes().map(drop)
            };
            assert!(matches!(outcome, Err(TnsError::Malformed(_))), "{bytes:?}");
        }
    }
}

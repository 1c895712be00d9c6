//! Netlink's byte format, written and read: messages, attributes, nesting. Knows no protocol; `netfilter` and
//! `sockets` fill in theirs. No sockets here.

/// Length of `struct nlmsghdr`.
pub(crate) const HEADER: usize = 16;
/// Where in a header the port is from which it was sent or, in a notice, from which the change was asked for: four bytes in
/// the byte order of the host.
pub(crate) const PORT_AT: usize = 12;
/// `NLM_F_REQUEST`.
pub(crate) const REQUEST: u16 = 0x1;
/// `NLM_F_ACK`.
pub(crate) const ACK: u16 = 0x4;
/// `NLM_F_DUMP`.
pub(crate) const DUMP: u16 = 0x300;
/// `NLM_F_CREATE`.
pub(crate) const CREATE: u16 = 0x400;
/// Set by the kernel on messages of a dump during which the tables changed.
pub(crate) const DUMP_INTERRUPTED: u16 = 0x10;
/// Message type of an acknowledgement or error.
pub(crate) const ERROR: u16 = 2;
/// Message type of the end of a dump.
pub(crate) const DONE: u16 = 3;

const NESTED: u16 = 0x8000;
/// Upper bits of an attribute type are flags (nested, network byte order).
const TYPE_MASK: u16 = 0x3fff;

/// A growing run of requests; its buffer is kept between uses, so that a renewal does not allocate.
#[derive(Debug, Default)]
pub(crate) struct Writer {
    bytes: Vec<u8>,
    message: usize,
}

impl Writer {
    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(crate) fn begin(&mut self, kind: u16, flags: u16, seq: u32) {
        self.message = self.bytes.len();
        self.bytes.extend_from_slice(&0u32.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(&flags.to_ne_bytes());
        self.bytes.extend_from_slice(&seq.to_ne_bytes());
        self.bytes.extend_from_slice(&0u32.to_ne_bytes());
    }

    pub(crate) fn finish(&mut self) {
        let length = (self.bytes.len() - self.message) as u32;
        self.bytes[self.message..self.message + 4].copy_from_slice(&length.to_ne_bytes());
    }

    /// Has the kernel answer the last message that was begun also when nothing is wrong.
    pub(crate) fn ask_for_acknowledgement(&mut self) {
        let flags = &mut self.bytes[self.message + 6..self.message + 8];
        flags.copy_from_slice(&(u16::from_ne_bytes([flags[0], flags[1]]) | ACK).to_ne_bytes());
    }

    /// Fixed part of a message, padded to four bytes.
    pub(crate) fn raw(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        self.pad();
    }

    pub(crate) fn attribute(&mut self, kind: u16, value: &[u8]) {
        let length = (4 + value.len()) as u16;
        self.bytes.extend_from_slice(&length.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.raw(value);
    }

    /// A string attribute with its terminating zero.
    pub(crate) fn string(&mut self, kind: u16, value: &str) {
        let length = (5 + value.len()) as u16;
        self.bytes.extend_from_slice(&length.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(value.as_bytes());
        self.bytes.push(0);
        self.pad();
    }

    pub(crate) fn nested(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&0u16.to_ne_bytes());
        self.bytes.extend_from_slice(&(kind | NESTED).to_ne_bytes());
        fill(self);
        let length = (self.bytes.len() - start) as u16;
        self.bytes[start..start + 2].copy_from_slice(&length.to_ne_bytes());
    }

    fn pad(&mut self) {
        while !self.bytes.len().is_multiple_of(4) {
            self.bytes.push(0);
        }
    }
}

/// One message as received.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Message<'a> {
    pub(crate) kind: u16,
    pub(crate) flags: u16,
    pub(crate) seq: u32,
    pub(crate) payload: &'a [u8],
}

impl Message<'_> {
    /// The code in an `ERROR` or `DONE` message: 0 is success, else a positive errno. `None` if it is cut short.
    pub(crate) fn errno(&self) -> Option<i32> {
        let bytes = self.payload.get(..4)?.try_into().ok()?;
        Some(-i32::from_ne_bytes(bytes))
    }
}

/// The messages of one datagram; stops at the first malformed one.
pub(crate) fn messages(mut bytes: &[u8]) -> impl Iterator<Item = Message<'_>> {
    std::iter::from_fn(move || {
        let length = u32_at(bytes, 0)? as usize;
        if length < HEADER || length > bytes.len() {
            return None;
        }
        let message = Message {
            kind: u16_at(bytes, 4)?,
            flags: u16_at(bytes, 6)?,
            seq: u32_at(bytes, 8)?,
            payload: &bytes[HEADER..length],
        };
        bytes = &bytes[length.next_multiple_of(4).min(bytes.len())..];
        Some(message)
    })
}

/// The attributes of a payload as (type without flags, value); stops at the first malformed one.
pub(crate) fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(u16_at(bytes, 0)?);
        if length < 4 || length > bytes.len() {
            return None;
        }
        let found = (u16_at(bytes, 2)? & TYPE_MASK, &bytes[4..length]);
        bytes = &bytes[length.next_multiple_of(4).min(bytes.len())..];
        Some(found)
    })
}

/// The value of the first attribute of this type.
pub(crate) fn attribute(bytes: &[u8], kind: u16) -> Option<&[u8]> {
    attributes(bytes).find(|(found, _)| *found == kind).map(|(_, value)| value)
}

/// A string attribute without its terminating zero.
pub(crate) fn text(value: &[u8]) -> &str {
    let end = value.iter().position(|b| *b == 0).unwrap_or(value.len());
    std::str::from_utf8(&value[..end]).unwrap_or("")
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let mut writer = Writer::default();
        for seq in [7, 8] {
            writer.begin(0x0a0c, REQUEST | ACK, seq);
            writer.raw(&[5, 0, 0, 0]);
            writer.string(1, "baton");
            writer.nested(3, |w| w.attribute(4, &9u64.to_be_bytes()));
            writer.finish();
        }
        let read: Vec<_> = messages(writer.as_bytes()).collect();
        assert_eq!(read.iter().map(|m| (m.kind, m.seq)).collect::<Vec<_>>(), [(0x0a0c, 7), (0x0a0c, 8)]);
        let body = &read[1].payload[4..];
        assert_eq!(attribute(body, 1).map(text), Some("baton"));
        let inner = attribute(body, 3).and_then(|nest| attribute(nest, 4));
        assert_eq!(inner, Some(&9u64.to_be_bytes()[..]));
    }

    #[test]
    fn garbage_ends_the_walk_and_never_panics() {
        for length in 0..40usize {
            for fill in [0u8, 1, 5, 17, 255] {
                let bytes = vec![fill; length];
                assert!(messages(&bytes).count() <= length);
                assert!(attributes(&bytes).count() <= length);
            }
        }
    }
}

//! Netlink messages and their attributes, as bytes ([netlink(7)](https://man7.org/linux/man-pages/man7/netlink.7.html)).
//!
//! In: values to write, bytes to read. Out: bytes, borrowed slices. Must never: trust a length that it reads.

const HEADER_LEN: usize = 16;
const ATTRIBUTE_HEADER_LEN: usize = 4;
const NLM_F_ACK: u16 = 0x4;
const NLA_F_NESTED: u16 = 1 << 15;
const NLA_TYPE_MASK: u16 = 0x3fff;

/// A request being written: the 16-byte header, a family's fixed part, attributes.
#[derive(Debug, Clone)]
pub struct Message {
    bytes: Vec<u8>,
}

impl Message {
    /// Starts a message of type `kind` with the `NLM_F_*` bits `flags` and the family's fixed part.
    pub fn new(kind: u16, flags: u16, family_header: &[u8]) -> Message {
        let mut bytes = vec![0; HEADER_LEN];
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        bytes[6..8].copy_from_slice(&flags.to_ne_bytes());
        bytes.extend_from_slice(family_header);
        let mut message = Message { bytes };
        message.pad();
        message
    }

    /// Has the kernel answer it when all went well, too.
    pub fn ask_for_answer(&mut self) {
        let flags = u16::from_ne_bytes([self.bytes[6], self.bytes[7]]) | NLM_F_ACK;
        self.bytes[6..8].copy_from_slice(&flags.to_ne_bytes());
    }

    /// Appends an attribute.
    pub fn attribute(&mut self, kind: u16, value: &[u8]) {
        let start = self.open(kind);
        self.bytes.extend_from_slice(value);
        self.close(start);
    }

    /// Appends a text with its closing NUL.
    pub fn text(&mut self, kind: u16, value: &str) {
        let start = self.open(kind);
        self.bytes.extend_from_slice(value.as_bytes());
        self.bytes.push(0);
        self.close(start);
    }

    /// Appends a number in the machine's byte order, as route netlink wants it.
    pub fn native_u32(&mut self, kind: u16, value: u32) {
        self.attribute(kind, &value.to_ne_bytes());
    }

    /// Appends a number in network byte order, as netfilter wants it.
    pub fn network_u32(&mut self, kind: u16, value: u32) {
        self.attribute(kind, &value.to_be_bytes());
    }

    /// Appends an attribute whose value is what `fill` writes.
    pub fn nest(&mut self, kind: u16, fill: impl FnOnce(&mut Message)) {
        let start = self.open(kind | NLA_F_NESTED);
        fill(self);
        self.close(start);
    }

    /// Appends bytes that are no attribute, such as the fixed part inside VETH_INFO_PEER.
    pub fn raw(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        self.pad();
    }

    /// What has been written.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The bytes to send, with length and sequence number filled in.
    pub fn finish(mut self, sequence: u32) -> Vec<u8> {
        let len = u32::try_from(self.bytes.len()).unwrap_or(u32::MAX);
        self.bytes[0..4].copy_from_slice(&len.to_ne_bytes());
        self.bytes[8..12].copy_from_slice(&sequence.to_ne_bytes());
        self.bytes
    }

    fn open(&mut self, kind: u16) -> usize {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0, 0]);
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        start
    }

    fn close(&mut self, start: usize) {
        // Names, addresses and rules stay far below 64 kB; should one not, the kernel refuses the message.
        let len = u16::try_from(self.bytes.len() - start).unwrap_or(u16::MAX);
        self.bytes[start..start + 2].copy_from_slice(&len.to_ne_bytes());
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

/// A message that came in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Received {
    /// Its type.
    pub kind: u16,
    /// `NLM_F_*` bits.
    pub flags: u16,
    /// The request that it answers.
    pub sequence: u32,
    /// What follows the header.
    pub payload: Vec<u8>,
}

/// Splits what one recv gave into messages; a broken tail is dropped.
pub fn split(mut bytes: &[u8]) -> Vec<Received> {
    let mut messages = Vec::new();
    while let Some(len) = u32_at(bytes, 0).and_then(|len| usize::try_from(len).ok()) {
        let (Some(kind), Some(flags), Some(sequence)) =
            (u16_at(bytes, 4), u16_at(bytes, 6), u32_at(bytes, 8))
        else {
            break;
        };
        let Some(payload) = bytes.get(HEADER_LEN..len) else { break };
        messages.push(Received { kind, flags, sequence, payload: payload.to_vec() });
        bytes = bytes.get(len.next_multiple_of(4)..).unwrap_or_default();
    }
    messages
}

/// The attributes in `bytes`, in order; a broken tail ends them.
pub fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let len = usize::from(u16_at(bytes, 0)?);
        let kind = u16_at(bytes, 2)? & NLA_TYPE_MASK;
        let value = bytes.get(ATTRIBUTE_HEADER_LEN..len)?;
        bytes = bytes.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

/// The first attribute of type `kind`.
pub fn find(bytes: &[u8], kind: u16) -> Option<&[u8]> {
    attributes(bytes).find(|(found, _)| *found == kind).map(|(_, value)| value)
}

/// A text attribute's value without its NUL.
pub fn text_of(value: &[u8]) -> String {
    let end = value.iter().position(|byte| *byte == 0).unwrap_or(value.len());
    String::from_utf8_lossy(&value[..end]).into_owned()
}

/// The number in the machine's byte order at `at`.
pub fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at.checked_add(4)?)?.try_into().ok().map(u32::from_ne_bytes)
}

/// The number in the machine's byte order at `at`.
pub fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..at.checked_add(2)?)?.try_into().ok().map(u16::from_ne_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let mut message = Message::new(16, 5, &[0; 16]);
        message.text(3, "eth0");
        message.nest(18, |nested| nested.text(1, "veth"));
        message.native_u32(4, 1500);
        let received = split(&message.finish(7));
        assert_eq!(received.len(), 1);
        assert_eq!((received[0].kind, received[0].flags, received[0].sequence), (16, 5, 7));
        let body = &received[0].payload[16..];
        assert_eq!(text_of(find(body, 3).unwrap()), "eth0");
        assert_eq!(text_of(find(find(body, 18).unwrap(), 1).unwrap()), "veth");
        assert_eq!(u32_at(find(body, 4).unwrap(), 0), Some(1500));
    }

    #[test]
    fn lengths_that_lie_end_the_walk() {
        assert!(split(&[0xff; 40]).is_empty());
        assert!(split(&[0; 40]).is_empty(), "a length of 0 must not loop");
        assert_eq!(attributes(&[0; 8]).count(), 0);
        assert_eq!(attributes(&[200, 0, 1, 0, 9]).count(), 0);
    }
}

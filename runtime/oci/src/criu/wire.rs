//! Messages in the encoding of protocol buffers (protobuf.dev, "Encoding"), as much of it as criu's rpc.proto needs. In:
//! numbers of fields and their values. Out: bytes, and fields again. Must never: trust a length that the other side tells.

const NUMBER: u64 = 0;
const FIXED_64: u64 = 1;
const BYTES: u64 = 2;
const FIXED_32: u64 = 5;

/// A message that is being written.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Message(Vec<u8>);

impl Message {
    /// Adds an int32, uint32, bool or enum.
    pub fn number(&mut self, field: u32, value: impl Into<i64>) -> &mut Message {
        self.varint(u64::from(field) << 3 | NUMBER);
        self.varint(value.into().cast_unsigned());
        self
    }

    /// Adds a string.
    pub fn text(&mut self, field: u32, text: impl AsRef<[u8]>) -> &mut Message {
        let text = text.as_ref();
        self.varint(u64::from(field) << 3 | BYTES);
        self.varint(text.len() as u64);
        self.0.extend_from_slice(text);
        self
    }

    /// Adds a message.
    pub fn message(&mut self, field: u32, message: &Message) -> &mut Message {
        self.text(field, &message.0)
    }

    /// Seven bits a byte, the lowest first; all but the last have the eighth set.
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push((value & 0x7f) as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    /// The message as it is sent.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

/// The value of a field that was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Value<'a> {
    /// Of an int32, uint32, bool or enum.
    Number(i64),
    /// Of a string or a message.
    Bytes(&'a [u8]),
}

/// The fields of a message, in their order; None: it is none. Fields of other kinds are passed over.
pub fn fields(bytes: &[u8]) -> Option<Vec<(u32, Value<'_>)>> {
    let mut rest = bytes;
    let mut fields = Vec::new();
    while !rest.is_empty() {
        let key = take_varint(&mut rest)?;
        let field = u32::try_from(key >> 3).ok()?;
        match key & 7 {
            NUMBER => fields.push((field, Value::Number(take_varint(&mut rest)?.cast_signed()))),
            BYTES => {
                let length = usize::try_from(take_varint(&mut rest)?).ok()?;
                fields.push((field, Value::Bytes(take(&mut rest, length)?)));
            }
            FIXED_64 => drop(take(&mut rest, 8)?),
            FIXED_32 => drop(take(&mut rest, 4)?),
            _ => return None,
        }
    }
    Some(fields)
}

fn take<'a>(rest: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (taken, left) = rest.split_at_checked(length)?;
    *rest = left;
    Some(taken)
}

fn take_varint(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let byte = *take(rest, 1)?.first()?;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_has_the_bytes_of_the_encodings_description() {
        let mut inner = Message::default();
        inner.number(1, 150);
        let mut message = Message::default();
        message.message(3, &inner).text(2, "testing").number(1, -2);
        let negative = [0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01];
        let expected = [&[0x1a, 3, 0x08, 0x96, 0x01, 0x12, 7][..], b"testing", &[0x08], &negative].concat();
        assert_eq!(message.bytes(), expected);
    }

    #[test]
    fn fields_are_read_as_they_were_written() {
        let mut message = Message::default();
        message.number(50, true).text(10, "dump.log").number(17, -1);
        let read = fields(message.bytes()).unwrap();
        assert_eq!(read, [(50, Value::Number(1)), (10, Value::Bytes(b"dump.log")), (17, Value::Number(-1))]);
    }

    #[test]
    fn other_kinds_are_passed_over_and_nonsense_is_no_message() {
        assert_eq!(fields(&[0x0d, 1, 2, 3, 4, 0x10, 5]), Some(vec![(2, Value::Number(5))]));
        for nonsense in [&[0x12, 9, b'x'][..], &[0x08], &[0x08, 0xff], &[0x0b], &[0x08; 1], &[0xff; 12]] {
            assert_eq!(fields(nonsense), None, "{nonsense:?}");
        }
    }
}

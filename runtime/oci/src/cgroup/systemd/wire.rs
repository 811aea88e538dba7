//! D-Bus messages, as bytes (the D-Bus specification, "Message Protocol").
//!
//! In: a call; or bytes that came. Out: bytes; or a message. Must never: do I/O, or panic, whatever the bytes are.

/// The message types that matter here.
const METHOD_CALL: u8 = 1;
/// An answer that says what failed.
const ERROR: u8 = 3;
/// Something happened.
const SIGNAL: u8 = 4;

/// Header fields.
const PATH: u8 = 1;
const INTERFACE: u8 = 2;
const MEMBER: u8 = 3;
const ERROR_NAME: u8 = 4;
const REPLY_SERIAL: u8 = 5;
const DESTINATION: u8 = 6;
const SIGNATURE: u8 = 8;

/// How every message begins: this much tells its length.
pub const FIXED_BYTES: usize = 16;
/// systemd's answers to what it is asked here have some hundred bytes.
const MESSAGE_BYTES_MAX: usize = 1 << 20;

/// A value of one of the types that properties have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// One of `ybnqiuxt`, and its bits.
    Number(u8, u64),
    /// One of `sog`.
    Text(u8, String),
    /// An `ay`.
    Bytes(Vec<u8>),
    /// An `as`.
    Texts(Vec<String>),
    /// An `au` with one element.
    Only(u32),
}

impl Value {
    /// A `t`.
    pub fn u64(number: u64) -> Value {
        Value::Number(b't', number)
    }

    /// A `b`.
    pub fn bool(is: bool) -> Value {
        Value::Number(b'b', u64::from(is))
    }

    /// An `s`.
    pub fn string(text: &str) -> Value {
        Value::Text(b's', text.to_string())
    }
}

/// How a value of the type that begins with `kind` is aligned; that many bytes has a number too.
fn alignment(kind: u8) -> usize {
    match kind {
        b'y' | b'g' | b'v' => 1,
        b'n' | b'q' => 2,
        b'x' | b't' | b'd' | b'(' | b'{' => 8,
        _ => 4,
    }
}

/// Values, one after the other.
#[derive(Debug, Default)]
pub struct Writer(Vec<u8>);

impl Writer {
    /// Fills up to a multiple of `to`.
    pub fn align(&mut self, to: usize) {
        self.0.resize(self.0.len().next_multiple_of(to), 0);
    }

    /// A number of the type `kind`.
    pub fn number(&mut self, kind: u8, bits: u64) {
        let bytes = alignment(kind);
        self.align(bytes);
        self.0.extend(&bits.to_le_bytes()[..bytes]);
    }

    /// Text of the type `kind`.
    pub fn text(&mut self, kind: u8, text: &str) {
        self.number(if kind == b'g' { b'y' } else { b'u' }, text.len() as u64);
        self.0.extend(text.as_bytes());
        self.0.push(0);
    }

    /// An array of elements whose type begins with `kind`, which `fill` writes.
    pub fn array(&mut self, kind: u8, fill: impl FnOnce(&mut Writer)) {
        self.number(b'u', 0);
        let length_at = self.0.len() - 4;
        // What lies between the length and the first element does not count.
        self.align(alignment(kind));
        let begin = self.0.len();
        fill(self);
        let length = u32::try_from(self.0.len() - begin).unwrap_or(u32::MAX);
        self.0[length_at..length_at + 4].copy_from_slice(&length.to_le_bytes());
    }

    /// A value with its type before it.
    pub fn variant(&mut self, value: &Value) {
        match value {
            Value::Number(kind, bits) => {
                self.kind(*kind);
                self.number(*kind, *bits);
            }
            Value::Text(kind, text) => {
                self.kind(*kind);
                self.text(*kind, text);
            }
            Value::Bytes(bytes) => {
                self.text(b'g', "ay");
                self.array(b'y', |out| out.0.extend(bytes));
            }
            Value::Texts(texts) => {
                self.text(b'g', "as");
                self.array(b's', |out| texts.iter().for_each(|text| out.text(b's', text)));
            }
            Value::Only(number) => {
                self.text(b'g', "au");
                self.array(b'u', |out| out.number(b'u', (*number).into()));
            }
        }
    }

    /// A type of one letter.
    fn kind(&mut self, kind: u8) {
        self.0.extend([1, kind, 0]);
    }
}

/// Who is called.
#[derive(Debug, Clone, Copy)]
pub struct Object {
    /// The program's name.
    pub destination: &'static str,
    /// The object.
    pub path: &'static str,
    /// The interface.
    pub interface: &'static str,
}

/// A method call.
#[derive(Debug)]
pub struct Call<'a> {
    /// Whom it is for.
    pub object: Object,
    /// The method.
    pub member: &'a str,
    /// The arguments' types.
    pub signature: &'a str,
    /// The arguments.
    pub body: Writer,
}

impl Call<'_> {
    /// The whole message; `serial` is what an answer names.
    pub fn into_bytes(self, serial: u32) -> Vec<u8> {
        let mut out = Writer::default();
        for byte in [b'l', METHOD_CALL, 0, 1] {
            out.number(b'y', byte.into());
        }
        out.number(b'u', self.body.0.len() as u64);
        out.number(b'u', serial.into());
        out.array(b'(', |out| {
            for (field, kind, text) in [
                (PATH, b'o', self.object.path),
                (INTERFACE, b's', self.object.interface),
                (MEMBER, b's', self.member),
                (DESTINATION, b's', self.object.destination),
                (SIGNATURE, b'g', self.signature),
            ] {
                if !text.is_empty() {
                    out.align(8);
                    out.number(b'y', field.into());
                    out.kind(kind);
                    out.text(kind, text);
                }
            }
        });
        out.align(8);
        out.0.extend(self.body.0);
        out.0
    }
}

/// A message that came, as far as it matters.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Message {
    /// The call that it answers.
    pub reply_to: u32,
    /// The error's name; empty: it is none.
    pub error: String,
    /// Whether it is the signal that a job has ended; its body has the job's number, its path, its unit, its result.
    pub is_job_end: bool,
    /// The body.
    pub body: Vec<u8>,
}

/// How many bytes follow a message's first ones; none: they begin no message that can be read.
pub fn rest_length(fixed: &[u8; FIXED_BYTES]) -> Option<usize> {
    if fixed[0] != b'l' || fixed[3] != 1 {
        return None;
    }
    let number = |at: usize| {
        let bytes = fixed[at..at + 4].try_into().ok()?;
        usize::try_from(u32::from_le_bytes(bytes)).ok().filter(|length| *length <= MESSAGE_BYTES_MAX)
    };
    Some(number(12)?.next_multiple_of(8) + number(4)?)
}

/// Reads a whole message; none: it is malformed.
pub fn parse(bytes: &[u8]) -> Option<Message> {
    let mut reader = Reader { bytes, at: 4 };
    let mut message = Message::default();
    let kind = *bytes.get(1)?;
    let (body_length, _serial) = (reader.u32()?, reader.u32()?);
    let end = reader.u32()?.checked_add(FIXED_BYTES)?;
    while reader.at < end {
        reader.align(8)?;
        let field = reader.byte()?;
        match reader.text(b'g')? {
            "s" | "o" => {
                let text = reader.text(b's')?;
                match field {
                    MEMBER => message.is_job_end = kind == SIGNAL && text == "JobRemoved",
                    ERROR_NAME if kind == ERROR => message.error = text.to_string(),
                    _ => {}
                }
            }
            "g" => drop(reader.text(b'g')?),
            "u" => {
                let number = reader.u32()?;
                if field == REPLY_SERIAL {
                    message.reply_to = u32::try_from(number).ok()?;
                }
            }
            // No field of the specification's has another type.
            _ => return None,
        }
    }
    reader.align(8)?;
    message.body = reader.take(body_length)?.to_vec();
    Some(message)
}

/// Values, read one after the other; none where they end too soon or are no such values.
#[derive(Debug)]
pub struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    /// Reads from a body's begin.
    pub fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader { bytes, at: 0 }
    }

    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let taken = self.bytes.get(self.at..self.at.checked_add(length)?)?;
        self.at += length;
        Some(taken)
    }

    fn align(&mut self, to: usize) -> Option<()> {
        self.take(self.at.next_multiple_of(to) - self.at).map(drop)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take(1)?.first().copied()
    }

    /// A `u`.
    pub fn u32(&mut self) -> Option<usize> {
        self.align(4)?;
        let bytes = self.take(4)?.try_into().ok()?;
        usize::try_from(u32::from_le_bytes(bytes)).ok()
    }

    /// An `s` or `o`, or a `g`.
    pub fn text(&mut self, kind: u8) -> Option<&'a str> {
        let length = if kind == b'g' { self.byte()?.into() } else { self.u32()? };
        let text = std::str::from_utf8(self.take(length)?).ok()?;
        (self.byte()? == 0).then_some(text)
    }

    /// A variant that holds text.
    pub fn variant_text(&mut self) -> Option<&'a str> {
        match self.text(b'g')? {
            "s" | "o" => self.text(b's'),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes by the specification, put together by another program.
    const HELLO: &[u8] = b"l\x01\x00\x01\x00\x00\x00\x00\x01\x00\x00\x00\x6d\x00\x00\x00\
        \x01\x01o\x00\x15\x00\x00\x00/org/freedesktop/DBus\x00\x00\x00\
        \x02\x01s\x00\x14\x00\x00\x00org.freedesktop.DBus\x00\x00\x00\x00\
        \x03\x01s\x00\x05\x00\x00\x00Hello\x00\x00\x00\
        \x06\x01s\x00\x14\x00\x00\x00org.freedesktop.DBus\x00\x00\x00\x00";

    /// A JobRemoved signal: job 7, its path, the unit, the result.
    const JOB_REMOVED: &[u8] = b"l\x04\x01\x01-\x00\x00\x00\x09\x00\x00\x002\x00\x00\x00\
        \x01\x01o\x00\x04\x00\x00\x00/a/b\x00\x00\x00\x00\x03\x01s\x00\x0a\x00\x00\x00JobRemoved\x00\x00\x00\x00\x00\x00\
        \x08\x01g\x00\x04uoss\x00\x00\x00\x00\x00\x00\x00\x07\x00\x00\x00\x06\x00\x00\x00/job/7\x00\x00\x0c\x00\x00\x00runc\
        -a.scope\x00\x00\x00\x00\x04\x00\x00\x00done\x00";

    #[test]
    fn a_call_is_the_bytes_that_the_specification_has() {
        let call = Call {
            object: Object {
                destination: "org.freedesktop.DBus",
                path: "/org/freedesktop/DBus",
                interface: "org.freedesktop.DBus",
            },
            member: "Hello",
            signature: "",
            body: Writer::default(),
        };
        assert_eq!(call.into_bytes(1), HELLO);
        let fixed = HELLO[..FIXED_BYTES].try_into().unwrap();
        assert_eq!(rest_length(&fixed), Some(HELLO.len() - FIXED_BYTES));
        assert_eq!(
            parse(HELLO),
            Some(Message::default()),
            "a call is neither an answer nor the end of a job"
        );
    }

    #[test]
    fn values_are_aligned_and_counted() {
        let written = |value: &Value| {
            let mut out = Writer::default();
            out.variant(value);
            out.0
        };
        assert_eq!(written(&Value::u64(5)), b"\x01t\x00\0\0\0\0\0\x05\0\0\0\0\0\0\0");
        assert_eq!(written(&Value::bool(true)), b"\x01b\x00\0\x01\0\0\0");
        assert_eq!(written(&Value::string("ab")), b"\x01s\x00\0\x02\0\0\0ab\0");
        assert_eq!(written(&Value::Bytes(vec![3, 1])), b"\x02ay\x00\x02\0\0\0\x03\x01");
        let texts = Value::Texts(vec!["a".to_string(), "b".to_string()]);
        assert_eq!(written(&texts), b"\x02as\x00\x0e\0\0\0\x01\0\0\0a\0\0\0\x01\0\0\0b\0");
        assert_eq!(written(&Value::Only(9)), b"\x02au\x00\x04\0\0\0\x09\0\0\0");
        // Of an empty array of 8-byte elements the padding is there all the same.
        let mut out = Writer::default();
        out.number(b'y', 7);
        out.array(b'(', |_| {});
        assert_eq!(out.0, b"\x07\0\0\0\0\0\0\0");
        let mut out = Writer::default();
        out.array(b'(', |_| {});
        assert_eq!(out.0, b"\0\0\0\0\0\0\0\0");
        let mut out = Writer::default();
        out.array(b'(', |out| {
            out.align(8);
            out.text(b's', "n");
            out.variant(&Value::Number(b'n', 0xffff));
        });
        assert_eq!(out.0, b"\x0c\0\0\0\0\0\0\0\x01\0\0\0n\0\x01n\0\0\xff\xff");
    }

    #[test]
    fn a_signal_is_read() {
        let message = parse(JOB_REMOVED).unwrap();
        assert!(message.is_job_end);
        let mut body = Reader::new(&message.body);
        assert_eq!(body.u32(), Some(7));
        let texts = [(); 3].map(|()| body.text(b's').unwrap());
        assert_eq!(texts, ["/job/7", "runc-a.scope", "done"]);
        assert_eq!(body.u32(), None);
    }

    /// Every length and every byte may be wrong: that is an answer, not an end.
    #[test]
    fn bytes_that_are_no_message_are_refused() {
        for message in [HELLO, JOB_REMOVED] {
            for length in 0..message.len() {
                assert_eq!(parse(&message[..length]), None, "{length}");
            }
            for at in 0..message.len() {
                for wrong in [0, 1, 0x7f, 0x80, 0xff] {
                    let mut bytes = message.to_vec();
                    bytes[at] = wrong;
                    if let Some(read) = parse(&bytes) {
                        let mut body = Reader::new(&read.body);
                        let _ = (body.u32(), body.text(b's'), body.variant_text(), body.text(b'g'));
                    }
                    let _ = rest_length(bytes[..FIXED_BYTES].try_into().unwrap());
                }
            }
        }
        let mut fixed: [u8; FIXED_BYTES] = HELLO[..FIXED_BYTES].try_into().unwrap();
        fixed[15] = 0x40;
        assert_eq!(rest_length(&fixed), None, "a length without bounds");
        fixed[0] = b'B';
        assert_eq!(rest_length(&fixed), None, "another byte order");
    }

    #[test]
    fn an_error_says_its_name_and_sentence() {
        let mut body = Writer::default();
        body.text(b's', "no such unit");
        let mut out = Writer::default();
        [b'l', ERROR, 1, 1].iter().for_each(|byte| out.number(b'y', (*byte).into()));
        out.number(b'u', body.0.len() as u64);
        out.number(b'u', 3);
        out.array(b'(', |out| {
            for (field, value) in [
                (ERROR_NAME, Value::string("a.b.NoSuchUnit")),
                (REPLY_SERIAL, Value::Number(b'u', 2)),
                (SIGNATURE, Value::Text(b'g', "s".to_string())),
            ] {
                out.align(8);
                out.number(b'y', field.into());
                out.variant(&value);
            }
        });
        out.align(8);
        out.0.extend(body.0);
        let message = parse(&out.0).unwrap();
        assert_eq!((message.reply_to, message.error.as_str()), (2, "a.b.NoSuchUnit"));
        assert_eq!(Reader::new(&message.body).text(b's').unwrap(), "no such unit");
    }
}

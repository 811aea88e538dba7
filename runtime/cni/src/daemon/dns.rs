//! DNS messages, as far as a resolver of local names needs them (RFC 1035).
//!
//! In: packets. Out: the one question of a query; answers. Must never: trust a length that it reads.

use std::net::IpAddr;

const HEADER_LEN: usize = 12;
const LABEL_LEN_MAX: usize = 63;
const NAME_LEN_MAX: usize = 255;
const FLAG_ANSWER: u8 = 0x80;
const FLAG_OPCODE: u8 = 0x78;
const FLAG_AUTHORITATIVE: u8 = 0x04;
const FLAG_RECURSION_DESIRED: u8 = 0x01;
const FLAG_RECURSION_AVAILABLE: u8 = 0x80;
/// The name of the question, which stands right behind the header.
const NAME_OF_QUESTION: [u8; 2] = [0xc0, 12];
const CLASS_INTERNET: u16 = 1;
/// A name may mean another container in the next moment.
const SECONDS_TO_LIVE: u32 = 0;

/// Response codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    /// All is well, even when there is no record of the type.
    Fine = 0,
    /// Nobody could be asked.
    Failure = 2,
}

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// An IPv4 address.
    A,
    /// An IPv6 address.
    Aaaa,
    /// The name of an address.
    Pointer,
    /// Anything else.
    Other,
}

/// A query with one question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query {
    /// The name in small letters, without the dot at its end.
    pub name: String,
    /// The type of record.
    pub kind: Kind,
    /// Header and question as they came.
    head: Vec<u8>,
}

/// A record of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record {
    /// An address, of whichever family.
    Address(IpAddr),
    /// A name.
    Name(String),
}

impl Query {
    /// Reads a query; `None` for what is none with exactly one question of the Internet's class.
    pub fn parse(packet: &[u8]) -> Option<Query> {
        let flags = *packet.get(2)?;
        if flags & (FLAG_ANSWER | FLAG_OPCODE) != 0 || packet.get(4..6)? != [0, 1] {
            return None;
        }
        let mut at = HEADER_LEN;
        let mut name = String::new();
        loop {
            let len = usize::from(*packet.get(at)?);
            at += 1;
            if len == 0 {
                break;
            }
            let label = packet.get(at..at + len).filter(|_| len <= LABEL_LEN_MAX)?;
            at += len;
            if !name.is_empty() {
                name.push('.');
            }
            name.push_str(&String::from_utf8_lossy(label).to_ascii_lowercase());
            if at - HEADER_LEN > NAME_LEN_MAX {
                return None;
            }
        }
        let number = |at: usize| Some(u16::from_be_bytes(packet.get(at..at + 2)?.try_into().ok()?));
        let kind = match (number(at)?, number(at + 2)?) {
            (1, CLASS_INTERNET) => Kind::A,
            (28, CLASS_INTERNET) => Kind::Aaaa,
            (12, CLASS_INTERNET) => Kind::Pointer,
            _ => Kind::Other,
        };
        Some(Query { name, kind, head: packet.get(..at + 4)?.to_vec() })
    }

    /// The answer with these records.
    pub fn answer(&self, code: Code, records: &[Record]) -> Vec<u8> {
        let mut packet = self.head.clone();
        packet[2] = FLAG_ANSWER | (packet[2] & FLAG_RECURSION_DESIRED);
        if code == Code::Fine {
            packet[2] |= FLAG_AUTHORITATIVE;
        }
        packet[3] = FLAG_RECURSION_AVAILABLE | code as u8;
        let count = u16::try_from(records.len()).unwrap_or(u16::MAX);
        packet[6..8].copy_from_slice(&count.to_be_bytes());
        packet[8..HEADER_LEN].fill(0);
        for record in records {
            let (kind, data): (u16, Vec<u8>) = match record {
                Record::Address(IpAddr::V4(v4)) => (1, v4.octets().to_vec()),
                Record::Address(IpAddr::V6(v6)) => (28, v6.octets().to_vec()),
                Record::Name(name) => (12, encode(name)),
            };
            packet.extend(NAME_OF_QUESTION);
            packet.extend(kind.to_be_bytes());
            packet.extend(CLASS_INTERNET.to_be_bytes());
            packet.extend(SECONDS_TO_LIVE.to_be_bytes());
            packet.extend(u16::try_from(data.len()).unwrap_or(u16::MAX).to_be_bytes());
            packet.extend(data);
        }
        packet
    }

    /// Whether `packet` answers this very question.
    pub fn is_answered_by(&self, packet: &[u8]) -> bool {
        let same_question = packet
            .get(HEADER_LEN..self.head.len())
            .is_some_and(|question| question.eq_ignore_ascii_case(&self.head[HEADER_LEN..]));
        // An upstream that could not read the question leaves it out.
        let is_bare = packet.len() == HEADER_LEN;
        packet.get(..2) == self.head.get(..2)
            && packet.get(2).is_some_and(|flags| flags & FLAG_ANSWER != 0)
            && (same_question || is_bare)
    }
}

fn encode(name: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for label in name.split('.').filter(|label| !label.is_empty()) {
        let label = &label.as_bytes()[..label.len().min(LABEL_LEN_MAX)];
        bytes.push(u8::try_from(label.len()).unwrap_or(0));
        bytes.extend_from_slice(label);
    }
    bytes.push(0);
    bytes
}

/// The name under which the name of an address is asked for.
pub fn reverse_name(address: IpAddr) -> String {
    let mut parts: Vec<String> = match address {
        IpAddr::V4(v4) => v4.octets().iter().map(u8::to_string).collect(),
        IpAddr::V6(v6) => v6
            .octets()
            .iter()
            .flat_map(|byte| [byte >> 4, byte & 0xf])
            .map(|half| format!("{half:x}"))
            .collect(),
    };
    parts.reverse();
    let zone = if address.is_ipv4() { "in-addr.arpa" } else { "ip6.arpa" };
    format!("{}.{zone}", parts.join("."))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(name: &str, kind: u16) -> Vec<u8> {
        let mut packet = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 1];
        packet.extend(encode(name));
        packet.extend(kind.to_be_bytes());
        packet.extend([0, 1]);
        packet.extend([0, 0, 41, 4, 0xd0, 0, 0, 0, 0, 0, 0]); // an OPT record, as today's resolvers send
        packet
    }

    #[test]
    fn a_question_is_read_and_answered() {
        let parsed = Query::parse(&query("Web.Example", 1)).unwrap();
        assert_eq!((parsed.name.as_str(), parsed.kind), ("web.example", Kind::A));
        let address = Record::Address("10.88.0.2".parse().unwrap());
        let answer = parsed.answer(Code::Fine, &[address]);
        assert_eq!(answer[..12], [0x12, 0x34, 0x85, 0x80, 0, 1, 0, 1, 0, 0, 0, 0]);
        assert_eq!(answer[answer.len() - 16..], [0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4, 10, 88, 0, 2]);
        assert!(parsed.is_answered_by(&answer));
        assert!(!Query::parse(&query("other", 1)).unwrap().is_answered_by(&answer));
        assert!(!parsed.is_answered_by(&query("web.example", 1)), "a query is no answer");
        assert_eq!(Query::parse(&answer), None);
    }

    #[test]
    fn names_of_addresses() {
        assert_eq!(reverse_name("10.88.0.2".parse().unwrap()), "2.0.88.10.in-addr.arpa");
        let v6 = reverse_name("fd00::2".parse().unwrap());
        assert!(v6.starts_with("2.0.0.0.") && v6.ends_with(".d.f.ip6.arpa"), "{v6}");
        let parsed = Query::parse(&query("2.0.88.10.in-addr.arpa", 12)).unwrap();
        let answer = parsed.answer(Code::Fine, &[Record::Name("web".into())]);
        assert_eq!(answer[answer.len() - 5..], [3, b'w', b'e', b'b', 0]);
    }

    #[test]
    fn no_packet_makes_it_panic() {
        let whole = query("a.bc.def", 28);
        for len in 0..whole.len() {
            let _ = Query::parse(&whole[..len]);
        }
        for at in 0..whole.len() {
            for byte in [0, 1, 0x3f, 0x40, 0xc0, 0xff] {
                let mut packet = whole.clone();
                packet[at] = byte;
                if let Some(query) = Query::parse(&packet) {
                    let _ = query.is_answered_by(&packet);
                    query.answer(Code::Failure, &[]);
                }
            }
        }
    }
}

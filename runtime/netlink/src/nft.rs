//! nf_tables: tables, chains and rules, written in transactions (kernel: include/uapi/linux/netfilter/nf_tables.h).
//!
//! In: rules as lists of expressions. Out: bytes to the kernel; rules that are there, with their comments.
//! Must never: run a program; leave half a change.

use std::cell::RefCell;
use std::net::IpAddr;

use rustix::io::Errno;

use super::message::Message;
use super::message::attributes;
use super::message::find;
use super::message::text_of;
use super::route::Network;
use super::socket::Socket;

const SUBSYSTEM: u16 = 10 << 8;
const NEWTABLE: u16 = SUBSYSTEM;
const GETTABLE: u16 = SUBSYSTEM | 1;
const DELTABLE: u16 = SUBSYSTEM | 2;
const NEWCHAIN: u16 = SUBSYSTEM | 3;
const NEWRULE: u16 = SUBSYSTEM | 6;
const GETRULE: u16 = SUBSYSTEM | 7;
const DELRULE: u16 = SUBSYSTEM | 8;
const GETGEN: u16 = SUBSYSTEM | 16;
const BATCH_BEGIN: u16 = 16;
const BATCH_END: u16 = 17;
const BATCH_GENID: u16 = 1;

const REQUEST: u16 = 0x1;
const DUMP: u16 = 0x300;
const CREATE: u16 = 0x400;
const APPEND: u16 = 0x800;

const TABLE_USERDATA: u16 = 6;
const RULE_TABLE: u16 = 1;
const RULE_CHAIN: u16 = 2;
const RULE_HANDLE: u16 = 3;
const RULE_EXPRESSIONS: u16 = 4;
const RULE_USERDATA: u16 = 7;
const LIST_ELEMENT: u16 = 1;
const EXPRESSION_NAME: u16 = 1;
const EXPRESSION_DATA: u16 = 2;
const DATA_VALUE: u16 = 1;
const DATA_VERDICT: u16 = 2;
/// libnftnl's NFTNL_UDATA_RULE_COMMENT, and NFTNL_UDATA_TABLE_COMMENT, so that `nft list ruleset` shows the comment.
const USERDATA_COMMENT: u8 = 0;
/// What nft itself lets a comment have.
pub const COMMENT_LEN_MAX: usize = 127;
const GENERATION_HEADER_LEN: usize = 4;
const LINK_HEADER: u32 = 0;
const NETWORK_HEADER: u32 = 1;
const TRANSPORT_HEADER: u32 = 2;
/// NFT_REG_1 and NFT_REG_2: 16 bytes each.
const REGISTER_1: u32 = 1;
const REGISTER_2: u32 = 2;
const REGISTER_VERDICT: u32 = 0;

/// The families of tables, by their NFPROTO_* numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// IPv4 and IPv6.
    Inet = 1,
    /// IPv4
    Ip = 2,
    /// A bridge's frames.
    Bridge = 7,
    /// IPv6
    Ip6 = 10,
}

/// Where a base chain hooks in: NF_INET_* numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hook {
    /// Before routing.
    Prerouting = 0,
    /// To the host itself.
    Input = 1,
    /// Through the host.
    Forward = 2,
    /// From the host itself.
    Output = 3,
    /// After routing.
    Postrouting = 4,
}

/// A base chain's type, hook and priority.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Base {
    /// `filter` or `nat`.
    pub kind: &'static str,
    /// Where.
    pub hook: Hook,
    /// When, among the chains of a hook: lower first.
    pub priority: i32,
}

/// What becomes of a packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// No further in this chain's table.
    Accept,
    /// Gone.
    Drop,
    /// Back to the caller.
    Return,
    /// Into another chain of the table.
    Jump(&'static str),
}

/// One step of a rule. Those that compare end the rule when they don't hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expression {
    /// `meta <key>` into register 1: an NFT_META_* number.
    Meta(u32),
    /// `ct <key>` into register 1: an NFT_CT_* number.
    Conntrack(u32),
    /// Bytes of a header into register 1: base, offset, length.
    Payload(u32, u32, u32),
    /// `fib daddr type` into register 1.
    DestinationType,
    /// Register 1 & mask.
    Mask(Vec<u8>),
    /// Register 1 is these bytes.
    Equal(Vec<u8>),
    /// Register 1 is not these bytes.
    NotEqual(Vec<u8>),
    /// `dnat to <address>:<port>`
    Dnat(IpAddr, u16),
    /// `masquerade`
    Masquerade,
    /// The end.
    Verdict(Verdict),
}

const META_KEY: u16 = 2;
const COMPARE_DATA: u16 = 3;
const META_IIFNAME: u32 = 6;
const META_OIFNAME: u32 = 7;
const META_NFPROTO: u32 = 15;
const META_L4PROTO: u32 = 16;
const CT_STATE: u32 = 0;
const CT_STATUS: u32 = 2;
const RTN_LOCAL: u32 = 2;
const IPS_DST_NAT: u32 = 1 << 5;
const STATE_ESTABLISHED_OR_RELATED: u32 = 2 | 4;

/// Which address of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// `saddr`
    Source,
    /// `daddr`
    Destination,
}

/// `[meta nfproto ...] ip saddr|daddr <network>`, or with `!=`; the family is checked first in inet tables.
pub fn address_is(family: Family, side: Side, network: Network, equal: bool) -> Vec<Expression> {
    let mut expressions = Vec::new();
    let (number, offset, bytes) = match network.base().address {
        IpAddr::V4(v4) => (2, if side == Side::Source { 12 } else { 16 }, v4.octets().to_vec()),
        IpAddr::V6(v6) => (10, if side == Side::Source { 8 } else { 24 }, v6.octets().to_vec()),
    };
    if family == Family::Inet {
        expressions.extend([Expression::Meta(META_NFPROTO), Expression::Equal(vec![number])]);
    }
    let len = u32::from(network.bits() / 8);
    expressions.push(Expression::Payload(NETWORK_HEADER, offset, len));
    if network.prefix < network.bits() {
        let mask = Network {
            address: if network.address.is_ipv4() {
                IpAddr::from([0xff; 4])
            } else {
                IpAddr::from([0xff; 16])
            },
            prefix: network.prefix,
        };
        expressions.push(Expression::Mask(match mask.base().address {
            IpAddr::V4(v4) => v4.octets().to_vec(),
            IpAddr::V6(v6) => v6.octets().to_vec(),
        }));
    }
    expressions.push(if equal { Expression::Equal(bytes) } else { Expression::NotEqual(bytes) });
    expressions
}

/// `ether saddr <mac>`, or with `!=`.
pub fn sender_is(mac: &[u8], equal: bool) -> Vec<Expression> {
    let bytes = mac.to_vec();
    vec![
        Expression::Payload(LINK_HEADER, 6, 6),
        if equal { Expression::Equal(bytes) } else { Expression::NotEqual(bytes) },
    ]
}

/// `meta l4proto <number>` and `th dport <port>`.
pub fn port_is(protocol: u8, port: u16) -> Vec<Expression> {
    vec![
        Expression::Meta(META_L4PROTO),
        Expression::Equal(vec![protocol]),
        Expression::Payload(TRANSPORT_HEADER, 2, 2),
        Expression::Equal(port.to_be_bytes().to_vec()),
    ]
}

/// `iifname <name>`, or with `!=`.
pub fn from_interface(name: &str, equal: bool) -> Vec<Expression> {
    interface(META_IIFNAME, name, equal)
}

/// `oifname <name>`, or with `!=`.
pub fn to_interface(name: &str, equal: bool) -> Vec<Expression> {
    interface(META_OIFNAME, name, equal)
}

fn interface(key: u32, name: &str, equal: bool) -> Vec<Expression> {
    let mut bytes = name.as_bytes().to_vec();
    bytes.resize(16, 0); // IFNAMSIZ: an exact match is one of all 16
    vec![Expression::Meta(key), if equal { Expression::Equal(bytes) } else { Expression::NotEqual(bytes) }]
}

/// `fib daddr type local`
pub fn destination_is_local() -> Vec<Expression> {
    vec![Expression::DestinationType, Expression::Equal(RTN_LOCAL.to_ne_bytes().to_vec())]
}

/// `ct status dnat`: the packet was sent here by a DNAT rule.
pub fn was_redirected() -> Vec<Expression> {
    has_bits(CT_STATUS, IPS_DST_NAT)
}

/// `ct state established,related`
pub fn is_known_connection() -> Vec<Expression> {
    has_bits(CT_STATE, STATE_ESTABLISHED_OR_RELATED)
}

/// `ct state != { established, related }`
pub fn is_no_known_connection() -> Vec<Expression> {
    let mut expressions = is_known_connection();
    expressions.pop();
    expressions.push(Expression::Equal(vec![0; 4]));
    expressions
}

fn has_bits(key: u32, bits: u32) -> Vec<Expression> {
    vec![
        Expression::Conntrack(key),
        Expression::Mask(bits.to_ne_bytes().to_vec()),
        Expression::NotEqual(vec![0; 4]),
    ]
}

/// A rule to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// Its chain.
    pub chain: &'static str,
    /// What it does, in order.
    pub expressions: Vec<Expression>,
    /// By what it is found again; at most `COMMENT_LEN_MAX` bytes.
    pub comment: String,
}

/// A rule that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundRule {
    /// Its chain.
    pub chain: String,
    /// Its number in the table, never used twice.
    pub handle: u64,
    /// Its comment, or nothing.
    pub comment: String,
    /// The interface whose name it compares with that by which a packet leaves, or nothing.
    pub leaves_by: String,
    /// The lower half of the number of the ruleset's last change, when this was told.
    pub generation: u16,
}

/// A transaction on one table: all of it or nothing happens.
#[derive(Debug)]
pub struct Batch {
    family: Family,
    table: &'static str,
    messages: Vec<Message>,
}

impl Batch {
    /// An empty one. With `generation`, it fails with ERESTART when anybody changed the ruleset since.
    pub fn new(family: Family, table: &'static str, generation: Option<u32>) -> Batch {
        let mut begin = Message::new(BATCH_BEGIN, REQUEST, &[0, 0, 0, 10]);
        if let Some(generation) = generation {
            begin.network_u32(BATCH_GENID, generation);
        }
        Batch { family, table, messages: vec![begin] }
    }

    fn message(&self, kind: u16, flags: u16) -> Message {
        let mut message = Message::new(kind, REQUEST | flags, &header(self.family));
        message.text(1, self.table); // NFTA_TABLE_NAME, NFTA_CHAIN_TABLE and NFTA_RULE_TABLE alike
        message
    }

    /// Makes the table with a comment, unless it is there: then its own comment stays.
    pub fn make_table(&mut self, comment: &str) {
        let mut message = self.message(NEWTABLE, CREATE);
        message.attribute(TABLE_USERDATA, &userdata_of(comment));
        self.messages.push(message);
    }

    /// What it does, for whoever wants to know it again.
    pub fn parts(&self) -> Vec<&[u8]> {
        self.messages.iter().map(Message::as_bytes).collect()
    }

    /// Does after this what `other` does, a transaction on the same table.
    pub fn append(&mut self, other: Batch) {
        self.messages.extend(other.messages.into_iter().skip(1)); // its begin
    }

    /// Removes the table with all that is in it.
    pub fn delete_table(&mut self) {
        let message = self.message(DELTABLE, 0);
        self.messages.push(message);
    }

    /// Makes a chain unless it is there.
    pub fn make_chain(&mut self, name: &str, base: Option<Base>) {
        let mut message = self.message(NEWCHAIN, CREATE);
        message.text(3, name);
        if let Some(base) = base {
            message.nest(4, |hook| {
                hook.network_u32(1, base.hook as u32);
                hook.attribute(2, &base.priority.to_be_bytes());
            });
            message.text(7, base.kind);
        }
        self.messages.push(message);
    }

    /// Removes all rules of a chain.
    pub fn flush_chain(&mut self, chain: &str) {
        let mut message = self.message(DELRULE, 0);
        message.text(RULE_CHAIN, chain);
        self.messages.push(message);
    }

    /// Appends a rule.
    pub fn add_rule(&mut self, rule: &Rule) {
        let mut message = self.message(NEWRULE, CREATE | APPEND);
        message.text(RULE_CHAIN, rule.chain);
        message.nest(RULE_EXPRESSIONS, |list| {
            for expression in &rule.expressions {
                expression.write(list);
            }
        });
        if !rule.comment.is_empty() {
            message.attribute(RULE_USERDATA, &userdata_of(&rule.comment));
        }
        self.messages.push(message);
    }

    /// Removes a rule.
    pub fn delete_rule(&mut self, rule: &FoundRule) {
        let mut message = self.message(DELRULE, 0);
        message.text(RULE_CHAIN, &rule.chain);
        message.attribute(RULE_HANDLE, &rule.handle.to_be_bytes());
        self.messages.push(message);
    }
}

impl Expression {
    fn write(&self, list: &mut Message) {
        match self {
            Expression::Meta(key) => element(list, "meta", |data| {
                data.network_u32(1, REGISTER_1);
                data.network_u32(META_KEY, *key);
            }),
            Expression::Conntrack(key) => element(list, "ct", |data| {
                data.network_u32(1, REGISTER_1);
                data.network_u32(2, *key);
            }),
            Expression::Payload(base, offset, len) => element(list, "payload", |data| {
                for (kind, value) in [(1, REGISTER_1), (2, *base), (3, *offset), (4, *len)] {
                    data.network_u32(kind, value);
                }
            }),
            Expression::DestinationType => element(list, "fib", |data| {
                data.network_u32(1, REGISTER_1);
                data.network_u32(2, 3); // NFT_FIB_RESULT_ADDRTYPE
                data.network_u32(3, 2); // NFTA_FIB_F_DADDR
            }),
            Expression::Mask(mask) => element(list, "bitwise", |data| {
                data.network_u32(1, REGISTER_1);
                data.network_u32(2, REGISTER_1);
                data.network_u32(3, u32::try_from(mask.len()).unwrap_or(0));
                data.nest(4, |value| value.attribute(DATA_VALUE, mask));
                data.nest(5, |value| value.attribute(DATA_VALUE, &vec![0; mask.len()]));
            }),
            Expression::Equal(bytes) => compare(list, 0, bytes),
            Expression::NotEqual(bytes) => compare(list, 1, bytes),
            Expression::Dnat(address, port) => {
                let (family, bytes) = match address {
                    IpAddr::V4(v4) => (Family::Ip, v4.octets().to_vec()),
                    IpAddr::V6(v6) => (Family::Ip6, v6.octets().to_vec()),
                };
                immediate(list, REGISTER_1, &bytes);
                immediate(list, REGISTER_2, &port.to_be_bytes());
                element(list, "nat", |data| {
                    data.network_u32(1, 1); // NFT_NAT_DNAT
                    data.network_u32(2, family as u32);
                    data.network_u32(3, REGISTER_1);
                    data.network_u32(5, REGISTER_2);
                });
            }
            Expression::Masquerade => element(list, "masq", |_| {}),
            Expression::Verdict(verdict) => element(list, "immediate", |data| {
                data.network_u32(1, REGISTER_VERDICT);
                data.nest(2, |value| value.nest(DATA_VERDICT, |inner| verdict.write(inner)));
            }),
        }
    }
}

impl Verdict {
    fn write(&self, data: &mut Message) {
        let code: i32 = match self {
            Verdict::Drop => 0,
            Verdict::Accept => 1,
            Verdict::Jump(_) => -3,
            Verdict::Return => -5,
        };
        data.attribute(1, &code.to_be_bytes());
        if let Verdict::Jump(chain) = self {
            data.text(2, chain);
        }
    }
}

fn element(list: &mut Message, name: &str, fill: impl FnOnce(&mut Message)) {
    list.nest(LIST_ELEMENT, |expression| {
        expression.text(EXPRESSION_NAME, name);
        expression.nest(EXPRESSION_DATA, fill);
    });
}

fn compare(list: &mut Message, operator: u32, bytes: &[u8]) {
    element(list, "cmp", |data| {
        data.network_u32(1, REGISTER_1);
        data.network_u32(2, operator);
        data.nest(COMPARE_DATA, |value| value.attribute(DATA_VALUE, bytes));
    });
}

fn immediate(list: &mut Message, register: u32, bytes: &[u8]) {
    element(list, "immediate", |data| {
        data.network_u32(1, register);
        data.nest(2, |value| value.attribute(DATA_VALUE, bytes));
    });
}

fn userdata_of(comment: &str) -> Vec<u8> {
    let mut userdata = vec![USERDATA_COMMENT, u8::try_from(comment.len() + 1).unwrap_or(u8::MAX)];
    userdata.extend_from_slice(comment.as_bytes());
    userdata.push(0);
    userdata
}

fn header(family: Family) -> [u8; GENERATION_HEADER_LEN] {
    [family as u8, 0, 0, 0]
}

/// A socket to nf_tables, and to what else hears the protocol.
#[derive(Debug)]
pub struct NftSocket(Option<Open>);

#[derive(Debug)]
struct Open {
    socket: Socket,
    /// Where it was opened, where that can be told.
    namespace: Option<(u64, u64)>,
}

// Closing a socket of nf_tables waits until all is freed that anybody has deleted, a grace period of RCU, and keeps others
// from changing anything meanwhile. So a thread's last one is kept for its next use, until `close_kept`.
thread_local! {
    static KEPT: RefCell<Option<Open>> = const { RefCell::new(None) };
}

/// Closes the socket that was kept, without waiting: at the end of a program.
pub fn close_kept() {
    if let Some(open) = KEPT.take() {
        open.socket.close_later();
    }
}

impl Drop for NftSocket {
    fn drop(&mut self) {
        let Some(open) = self.0.take() else { return };
        let is_of_use = open.namespace.is_some() && open.socket.is_free();
        let spare = if is_of_use { KEPT.replace(Some(open)) } else { Some(open) };
        if let Some(spare) = spare {
            spare.socket.close_later();
        }
    }
}

impl NftSocket {
    /// The socket itself.
    ///
    /// # Errors
    /// None: it is there until the end.
    pub(crate) fn socket(&mut self) -> Result<&mut Socket, Errno> {
        self.0.as_mut().map(|open| &mut open.socket).ok_or(Errno::BADF)
    }

    /// Opens it in the calling thread's namespace.
    ///
    /// # Errors
    /// EPROTONOSUPPORT when the kernel lacks nf_tables.
    pub fn open() -> Result<NftSocket, Errno> {
        let namespace = super::namespace::own_identity().ok();
        if let Some(kept) = KEPT.take() {
            if kept.namespace == namespace {
                return Ok(NftSocket(Some(kept)));
            }
            kept.socket.close_later();
        }
        let socket = Socket::open(Some(rustix::net::netlink::NETFILTER))?;
        Ok(NftSocket(Some(Open { socket, namespace })))
    }

    /// Does all of a transaction, or nothing.
    ///
    /// # Errors
    /// The first message's that failed; ERESTART as `Batch::new` says.
    pub fn commit(&mut self, mut batch: Batch) -> Result<(), Errno> {
        // Errors come in any case. An answer to each of them would have to be fetched one by one.
        if let Some(last) = batch.messages.last_mut() {
            last.ask_for_answer();
        }
        batch.messages.push(Message::new(BATCH_END, REQUEST, &[0, 0, 0, 10]));
        self.socket()?.batch(batch.messages)
    }

    /// The number of the ruleset's last change.
    ///
    /// # Errors
    /// The kernel's.
    pub fn generation(&mut self) -> Result<u32, Errno> {
        let answer = self.socket()?.query(Message::new(GETGEN, REQUEST, &header(Family::Inet)))?;
        let value = answer.as_ref().and_then(|answer| find(answer.payload.get(GENERATION_HEADER_LEN..)?, 1));
        value.and_then(|value| value.try_into().ok()).map(u32::from_be_bytes).ok_or(Errno::PROTO)
    }

    /// The comment that a table was made with; `None` when there is no such table, or none that says something.
    ///
    /// # Errors
    /// The kernel's, ENOENT excepted.
    pub fn table_comment(&mut self, family: Family, table: &str) -> Result<Option<String>, Errno> {
        let mut message = Message::new(GETTABLE, REQUEST, &header(family));
        message.text(RULE_TABLE, table);
        match self.socket()?.query(message) {
            Ok(answer) => Ok(answer.and_then(|answer| {
                comment_of(find(answer.payload.get(GENERATION_HEADER_LEN..)?, TABLE_USERDATA)?)
            })),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(errno),
        }
    }

    /// The rules of a table, in order; none when there is no such table.
    ///
    /// # Errors
    /// The kernel's.
    pub fn rules(&mut self, family: Family, table: &str) -> Result<Vec<FoundRule>, Errno> {
        let answers = self.socket()?.dump(|| {
            let mut message = Message::new(GETRULE, REQUEST | DUMP, &header(family));
            message.text(RULE_TABLE, table);
            message
        });
        let answers = match answers {
            Err(Errno::NOENT) => vec![],
            other => other?,
        };
        Ok(answers.iter().filter_map(|answer| parse_rule(&answer.payload, table)).collect())
    }
}

/// `None` for a rule of another table: kernels before the filter by table gave the family's every rule.
pub fn parse_rule(payload: &[u8], table: &str) -> Option<FoundRule> {
    let attributes = payload.get(GENERATION_HEADER_LEN..)?;
    (text_of(find(attributes, RULE_TABLE)?) == table).then_some(())?;
    Some(FoundRule {
        chain: text_of(find(attributes, RULE_CHAIN)?),
        handle: find(attributes, RULE_HANDLE)?.try_into().ok().map(u64::from_be_bytes)?,
        comment: find(attributes, RULE_USERDATA).and_then(comment_of).unwrap_or_default(),
        leaves_by: find(attributes, RULE_EXPRESSIONS).and_then(outgoing_interface).unwrap_or_default(),
        generation: payload.get(2..4)?.try_into().ok().map(u16::from_be_bytes)?,
    })
}

/// The name that `to_interface` wrote.
fn outgoing_interface(expressions: &[u8]) -> Option<String> {
    let mut is_loaded = false;
    for (_, expression) in attributes(expressions) {
        let (name, data) = (find(expression, EXPRESSION_NAME)?, find(expression, EXPRESSION_DATA)?);
        match name {
            b"meta\0" => is_loaded = find(data, META_KEY) == Some(&META_OIFNAME.to_be_bytes()),
            b"cmp\0" if is_loaded => return Some(text_of(find(find(data, COMPARE_DATA)?, DATA_VALUE)?)),
            _ => {}
        }
    }
    None
}

/// User data is a list of type, length, value.
fn comment_of(mut userdata: &[u8]) -> Option<String> {
    loop {
        let (kind, len) = (*userdata.first()?, usize::from(*userdata.get(1)?));
        let value = userdata.get(2..2 + len)?;
        if kind == USERDATA_COMMENT {
            return Some(text_of(value));
        }
        userdata = &userdata[2 + len..];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_are_found_among_other_user_data() {
        assert_eq!(comment_of(&[7, 1, 9, 0, 3, b'h', b'i', 0]).unwrap(), "hi");
        assert_eq!(comment_of(&[0, 200, 1]), None);
        assert_eq!(comment_of(&[]), None);
    }

    #[test]
    fn the_interface_that_a_rule_names_is_read_back() {
        let read = |expressions: Vec<Expression>| {
            let mut batch = Batch::new(Family::Ip, "t", None);
            batch.add_rule(&Rule { chain: "c", expressions, comment: String::new() });
            let bytes = batch.messages.remove(1).finish(1);
            outgoing_interface(find(&bytes[16 + GENERATION_HEADER_LEN..], RULE_EXPRESSIONS).unwrap())
        };
        let to = address_is(Family::Ip, Side::Destination, "10.0.0.2/32".parse().unwrap(), true);
        assert_eq!(read([to.clone(), to_interface("cni0", true)].concat()).as_deref(), Some("cni0"));
        assert_eq!(read([from_interface("lo", false), to].concat()), None);
    }

    #[test]
    fn a_network_is_masked_and_a_host_is_not() {
        let host = address_is(Family::Ip, Side::Source, "10.0.0.2/32".parse().unwrap(), true);
        assert_eq!(host, [Expression::Payload(1, 12, 4), Expression::Equal(vec![10, 0, 0, 2])]);
        let network = address_is(Family::Inet, Side::Destination, "10.9.8.7/16".parse().unwrap(), false);
        assert_eq!(network.len(), 5);
        assert_eq!(network[3], Expression::Mask(vec![255, 255, 0, 0]));
        assert_eq!(network[4], Expression::NotEqual(vec![10, 9, 0, 0]));
    }
}

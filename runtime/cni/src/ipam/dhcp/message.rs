//! DHCP's messages as bytes (RFC 2131), and what a lease is read from (RFC 2132, 3442).
//!
//! In: what a client says, bytes of a server. Out: bytes, `Answer`, `Lease`. Must never: trust a length that it reads.

use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::time::Duration;

use crate::reply::Dns;
use crate::reply::IpConfig;
use crate::reply::Reply;
use crate::reply::Route;
use netlink::route::Network;

/// Message types (option 53).
pub const DISCOVER: u8 = 1;
/// A server offers a lease.
pub const OFFER: u8 = 2;
/// The client wants it, or goes on wanting it.
pub const REQUEST: u8 = 3;
/// The server gives it.
pub const ACK: u8 = 5;
/// The client gives it back.
pub const RELEASE: u8 = 7;

/// Options, by their numbers.
pub const SUBNET_MASK: u8 = 1;
/// The way out.
pub const ROUTER: u8 = 3;
const NAME_SERVERS: u8 = 6;
const DOMAIN: u8 = 15;
const STATIC_ROUTES: u8 = 33;
/// The address that the client would like.
pub const REQUESTED_ADDRESS: u8 = 50;
const LEASE_TIME: u8 = 51;
const MESSAGE_TYPE: u8 = 53;
/// Which server is meant.
pub const SERVER: u8 = 54;
/// The options that the client wants to know.
pub const PARAMETER_LIST: u8 = 55;
const RENEWAL_TIME: u8 = 58;
const REBINDING_TIME: u8 = 59;
/// Who the client is.
pub const CLIENT_ID: u8 = 61;
const CLASSLESS_ROUTES: u8 = 121;
const PAD: u8 = 0;
const END: u8 = 255;

const FIXED_LEN: usize = 236;
const COOKIE: [u8; 4] = [99, 130, 83, 99];
/// Old relays drop what is shorter than BOOTP's messages were.
const LEN_MIN: usize = 300;
const BROADCAST_FLAG: u16 = 0x8000;
const BOOT_REPLY: u8 = 2;

/// What a client says.
#[derive(Debug, Clone)]
pub struct Query<'a> {
    /// DISCOVER, REQUEST or RELEASE.
    pub kind: u8,
    /// By what the answer is known.
    pub transaction: u32,
    /// The interface's address.
    pub mac: [u8; 6],
    /// The client's address, when it has one: 0.0.0.0 before that.
    pub address: Ipv4Addr,
    /// Options and their values.
    pub options: &'a [(u8, Vec<u8>)],
}

impl Query<'_> {
    /// The message. Without an address the client can only hear broadcasts.
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = vec![0; FIXED_LEN];
        bytes[..4].copy_from_slice(&[1, 1, 6, 0]); // BOOTREQUEST, Ethernet, addresses of 6 bytes, no hop
        bytes[4..8].copy_from_slice(&self.transaction.to_be_bytes());
        if self.address.is_unspecified() {
            bytes[10..12].copy_from_slice(&BROADCAST_FLAG.to_be_bytes());
        }
        bytes[12..16].copy_from_slice(&self.address.octets());
        bytes[28..34].copy_from_slice(&self.mac);
        bytes.extend(COOKIE);
        bytes.extend([MESSAGE_TYPE, 1, self.kind]);
        for (number, value) in self.options {
            bytes.extend([*number, u8::try_from(value.len()).unwrap_or(u8::MAX)]);
            bytes.extend(value.iter().take(usize::from(u8::MAX)));
        }
        bytes.push(END);
        bytes.resize(bytes.len().max(LEN_MIN), PAD);
        bytes
    }
}

/// What a server says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// OFFER, ACK, or NAK (6).
    pub kind: u8,
    /// Whose answer it is.
    pub transaction: u32,
    /// The address that is given.
    pub address: Ipv4Addr,
    options: Vec<(u8, Vec<u8>)>,
    bytes: Vec<u8>,
}

impl Answer {
    /// Reads one; `None` when it isn't one.
    pub fn parse(bytes: &[u8]) -> Option<Answer> {
        let number = |at: usize| bytes.get(at..at + 4)?.try_into().ok().map(u32::from_be_bytes);
        if bytes.first() != Some(&BOOT_REPLY) || bytes.get(FIXED_LEN..FIXED_LEN + 4)? != COOKIE {
            return None;
        }
        let mut options: Vec<(u8, Vec<u8>)> = Vec::new();
        let mut rest = bytes.get(FIXED_LEN + 4..)?;
        while let Some((kind, after)) = rest.split_first() {
            rest = after;
            match *kind {
                PAD => continue,
                END => break,
                _ => {}
            }
            let (len, after) = rest.split_first()?;
            let value = after.get(..usize::from(*len))?;
            // One that comes twice is one value in two parts (RFC 3396).
            match options.iter_mut().find(|(there, _)| there == kind) {
                Some((_, there)) => there.extend(value),
                None => options.push((*kind, value.to_vec())),
            }
            rest = &after[usize::from(*len)..];
        }
        let mut answer = Answer {
            kind: 0,
            transaction: number(4)?,
            address: number(16)?.into(),
            options,
            bytes: bytes.to_vec(),
        };
        answer.kind = *answer.option(MESSAGE_TYPE)?.first()?;
        Some(answer)
    }

    fn option(&self, number: u8) -> Option<&[u8]> {
        self.options.iter().find(|(kind, _)| *kind == number).map(|(_, value)| value.as_slice())
    }

    /// An option whose value is an address.
    pub fn address_option(&self, number: u8) -> Option<Ipv4Addr> {
        addresses(self.option(number)?).next()
    }

    /// Servers may close a text with NULs (RFC 2132, section 2); an empty one says nothing.
    fn text_option(&self, number: u8) -> Option<String> {
        let text = String::from_utf8_lossy(self.option(number)?);
        Some(text.trim_end_matches('\0').to_string()).filter(|text| !text.is_empty())
    }

    fn seconds(&self, number: u8) -> Option<Duration> {
        let bytes: [u8; 4] = self.option(number)?.try_into().ok()?;
        Some(Duration::from_secs(u32::from_be_bytes(bytes).into()))
    }

    /// The lease that an ACK gives.
    ///
    /// # Errors
    /// The sentence that says what it lacks.
    pub fn lease(&self) -> Result<Lease, String> {
        let lacks = |what: &str| format!("the DHCP server's answer has no {what}");
        let mask = self.address_option(SUBNET_MASK).ok_or_else(|| lacks("subnet mask"))?;
        let prefix = u8::try_from(u32::from(mask).leading_ones()).unwrap_or(32);
        let length = self.seconds(LEASE_TIME).ok_or_else(|| lacks("lease time"))?;
        let rebind = self.seconds(REBINDING_TIME).filter(|time| *time <= length).unwrap_or(length * 85 / 100);
        let renew = self.seconds(RENEWAL_TIME).filter(|time| *time <= rebind).unwrap_or(length / 2);
        Ok(Lease {
            address: Network { address: IpAddr::V4(self.address), prefix },
            server: self.address_option(SERVER).ok_or_else(|| lacks("server identifier"))?,
            gateway: self.address_option(ROUTER),
            routes: self.routes(),
            dns: Dns {
                nameservers: addresses(self.option(NAME_SERVERS).unwrap_or_default())
                    .map(|address| address.to_string())
                    .collect(),
                domain: self.text_option(DOMAIN),
                ..Dns::default()
            },
            answer: self.bytes.clone(),
            renew,
            rebind: rebind.max(renew),
            length,
        })
    }

    /// Classless routes take the place of all others (RFC 3442).
    fn routes(&self) -> Vec<Route> {
        let classless = classless_routes(self.option(CLASSLESS_ROUTES).unwrap_or_default());
        if !classless.is_empty() {
            return classless;
        }
        let static_routes = self.option(STATIC_ROUTES).unwrap_or_default().chunks_exact(8);
        let mut routes: Vec<Route> = static_routes
            .filter_map(|pair| {
                let (to, by) = (address_at(pair, 0)?, address_at(pair, 4)?);
                let prefix = match to.octets()[0] {
                    0..128 => 8,
                    128..192 => 16,
                    192..224 => 24,
                    _ => 32,
                };
                Some(route(to, prefix, by))
            })
            .collect();
        routes.extend(self.address_option(ROUTER).map(|router| route(Ipv4Addr::UNSPECIFIED, 0, router)));
        routes
    }
}

fn classless_routes(mut bytes: &[u8]) -> Vec<Route> {
    let mut routes = Vec::new();
    while let Some((prefix, rest)) = bytes.split_first().filter(|(prefix, _)| **prefix <= 32) {
        let len = usize::from(prefix.div_ceil(8));
        let (Some(known), Some(router)) = (rest.get(..len), address_at(rest, len)) else { break };
        let mut octets = [0; 4];
        octets[..len].copy_from_slice(known);
        routes.push(route(octets.into(), *prefix, router));
        bytes = &rest[len + 4..];
    }
    routes
}

fn route(to: Ipv4Addr, prefix: u8, by: Ipv4Addr) -> Route {
    Route::plain(Network { address: IpAddr::V4(to), prefix }.base(), Some(IpAddr::V4(by)))
}

fn address_at(bytes: &[u8], at: usize) -> Option<Ipv4Addr> {
    <[u8; 4]>::try_from(bytes.get(at..at + 4)?).ok().map(Ipv4Addr::from)
}

fn addresses(bytes: &[u8]) -> impl Iterator<Item = Ipv4Addr> {
    bytes.chunks_exact(4).filter_map(|chunk| address_at(chunk, 0))
}

/// What a server gave, and for how long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// The address.
    pub address: Network,
    /// Who gave it.
    pub server: Ipv4Addr,
    gateway: Option<Ipv4Addr>,
    routes: Vec<Route>,
    dns: Dns,
    /// The server's words.
    pub answer: Vec<u8>,
    /// From then on the server is asked to go on.
    pub renew: Duration,
    /// From then on any server is asked to.
    pub rebind: Duration,
    /// Then it ends.
    pub length: Duration,
}

impl Lease {
    /// The address without its prefix.
    pub fn v4(&self) -> Ipv4Addr {
        match self.address.address {
            IpAddr::V4(v4) => v4,
            IpAddr::V6(_) => Ipv4Addr::UNSPECIFIED,
        }
    }

    /// It as an IPAM plugin's result.
    pub fn reply(&self) -> Reply {
        let gateway = self.gateway.map(IpAddr::V4);
        Reply {
            interfaces: vec![],
            ips: vec![IpConfig { interface: None, address: self.address, gateway }],
            routes: self.routes.clone(),
            dns: self.dns.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An answer as a server sends it.
    fn answer(options: &[(u8, &[u8])]) -> Vec<u8> {
        let query = Query {
            kind: ACK,
            transaction: 7,
            mac: [2, 0, 0, 0, 0, 1],
            address: Ipv4Addr::UNSPECIFIED,
            options: &options.iter().map(|(kind, value)| (*kind, value.to_vec())).collect::<Vec<_>>(),
        };
        let mut bytes = query.bytes();
        bytes[0] = BOOT_REPLY;
        bytes[16..20].copy_from_slice(&[10, 1, 2, 3]);
        bytes
    }

    fn lease(more: &[(u8, &[u8])]) -> Lease {
        let mut options: Vec<(u8, &[u8])> =
            vec![(SUBNET_MASK, &[255, 255, 255, 0]), (SERVER, &[10, 1, 2, 1]), (LEASE_TIME, &[0, 0, 0, 100])];
        options.extend(more);
        Answer::parse(&answer(&options)).unwrap().lease().unwrap()
    }

    #[test]
    fn a_query_is_as_long_as_old_relays_want_and_asks_for_a_broadcast() {
        let bytes = answer(&[]);
        assert_eq!(bytes.len(), LEN_MIN);
        assert_eq!((&bytes[10..12], &bytes[28..34]), (&[0x80, 0][..], &[2, 0, 0, 0, 0, 1][..]));
        assert_eq!(&bytes[236..243], &[99, 130, 83, 99, 53, 1, ACK]);
    }

    #[test]
    fn a_lease_has_its_times_or_the_defaults() {
        let plain = lease(&[]);
        assert_eq!(plain.address.to_string(), "10.1.2.3/24");
        assert_eq!([plain.renew, plain.rebind, plain.length].map(|time| time.as_secs()), [50, 85, 100]);
        let told = lease(&[(RENEWAL_TIME, &[0, 0, 0, 10]), (REBINDING_TIME, &[0, 0, 0, 20])]);
        assert_eq!([told.renew, told.rebind].map(|time| time.as_secs()), [10, 20]);
        let wrong = lease(&[(RENEWAL_TIME, &[0, 0, 0, 90]), (REBINDING_TIME, &[0, 0, 1, 0])]);
        assert_eq!([wrong.renew, wrong.rebind].map(|time| time.as_secs()), [50, 85]);
    }

    #[test]
    fn classless_routes_take_the_place_of_the_others() {
        let shown = |lease: Lease| -> Vec<String> {
            lease.routes.iter().map(|route| format!("{} {}", route.dst, route.gw.unwrap())).collect()
        };
        let old: [(u8, &[u8]); 2] =
            [(ROUTER, &[10, 1, 2, 254]), (STATIC_ROUTES, &[192, 168, 7, 9, 10, 1, 2, 9])];
        assert_eq!(shown(lease(&old)), ["192.168.7.0/24 10.1.2.9", "0.0.0.0/0 10.1.2.254"]);
        let new: (u8, &[u8]) = (CLASSLESS_ROUTES, &[0, 10, 1, 2, 1, 12, 172, 16, 10, 1, 2, 8]);
        assert_eq!(shown(lease(&[old[0], new])), ["0.0.0.0/0 10.1.2.1", "172.16.0.0/12 10.1.2.8"]);
    }

    /// Found by fuzzing: a domain of no letters was told as one.
    #[test]
    fn a_domain_without_letters_is_none() {
        assert_eq!(lease(&[(DOMAIN, b"lan\0")]).reply().dns.domain.as_deref(), Some("lan"));
        for empty in [&b""[..], b"\0\0"] {
            assert!(lease(&[(DOMAIN, empty)]).reply().dns.is_empty());
        }
    }

    #[test]
    fn what_is_no_answer_is_none_and_nothing_panics() {
        let good = answer(&[(SUBNET_MASK, &[255, 255, 255, 0])]);
        assert!(Answer::parse(&good).unwrap().lease().unwrap_err().contains("lease time"));
        assert_eq!(Answer::parse(&[]), None);
        for len in 0..good.len() {
            let _ = Answer::parse(&good[..len]);
        }
        let mut query = good;
        query[0] = 1;
        assert_eq!(Answer::parse(&query), None, "a client's own message");
        for bytes in [&[33][..], &[8, 10], &[8, 10, 1, 2], &[255; 9], &[0, 1, 1]] {
            assert!(classless_routes(bytes).is_empty());
        }
    }
}

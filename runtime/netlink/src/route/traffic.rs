//! Traffic control: token bucket filters, for all of a link's packets or those of some networks, and the way of what comes
//! in through another link ([tc-tbf(8)](https://man7.org/linux/man-pages/man8/tc-tbf.8.html),
//! [tc-u32(8)](https://man7.org/linux/man-pages/man8/tc-u32.8.html); kernel: include/uapi/linux/pkt_sched.h, pkt_cls.h).
//!
//! In: links, rates, networks. Out: qdiscs and filters. Must never: replace a qdisc that somebody else has set.

use std::net::IpAddr;

use rustix::io::Errno;

use super::ACK;
use super::CREATE;
use super::DUMP;
use super::EXCLUSIVE;
use super::Network;
use super::REQUEST;
use super::RouteSocket;
use crate::message::Message;
use crate::message::Received;
use crate::message::find;
use crate::message::text_of;
use crate::message::u32_at;

const RTM_NEWQDISC: u16 = 36;
const RTM_DELQDISC: u16 = 37;
const RTM_GETQDISC: u16 = 38;
const RTM_NEWTFILTER: u16 = 44;
const RTM_GETTFILTER: u16 = 46;
const HEADER_LEN: usize = 20;
const TCA_KIND: u16 = 1;
const TCA_OPTIONS: u16 = 2;
const ROOT: u32 = 0xffff_ffff;
const INGRESS: u32 = 0xffff_fff1;
const INGRESS_HANDLE: u32 = 0xffff_0000;
const TBF_HANDLE: u32 = 0x1_0000;
const TCA_TBF_PARMS: u16 = 1;
const TCA_TBF_RATE64: u16 = 4;
const TCA_TBF_BURST: u16 = 6;
/// struct tc_tbf_qopt: two struct tc_ratespec of 12 bytes, limit, buffer, mtu.
const TBF_PARMS_LEN: usize = 36;
const TC_LINKLAYER_ETHERNET: u8 = 1;
const TCA_MATCHALL_ACT: u16 = 2;
const TCA_ACT_KIND: u16 = 1;
const TCA_ACT_OPTIONS: u16 = 2;
const TCA_MIRRED_PARMS: u16 = 2;
const TC_ACT_STOLEN: u32 = 4;
const TCA_EGRESS_REDIR: u32 = 1;
/// Priority 1, every protocol (ETH_P_ALL, in network byte order).
const FILTER_INFO: u32 = 1 << 16 | (3_u16.to_be() as u32);

const TCA_U32_CLASSID: u16 = 1;
const TCA_U32_SEL: u16 = 5;
const TC_U32_TERMINAL: u8 = 1;
/// struct tc_u32_sel before its keys; each key is mask, value, where, and where it is looked up.
const U32_SEL_LEN: usize = 16;
const BANDS: u32 = 2;
/// The first band is for what is not limited, the second one has the bucket.
const BAND_FREE: u32 = 0x1_0001;
const BAND_LIMITED: u32 = 0x1_0002;
const BAND_HANDLE: u32 = 0x2_0000;
const PRIORITIES: usize = 16;

/// A token bucket filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bucket {
    /// Bytes a second.
    pub rate: u64,
    /// Bytes that may be sent at once.
    pub burst: u32,
    /// Bytes that may wait; more is dropped.
    pub limit: u32,
}

/// Which end of a packet lies in a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Who sends it.
    Source,
    /// Who gets it.
    Destination,
}

/// Which of a link's packets go through a bucket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Limited<'a> {
    /// All.
    All,
    /// Those of these networks.
    Only(End, &'a [Network]),
    /// All but those of these networks.
    AllBut(End, &'a [Network]),
}

impl RouteSocket {
    /// Lets a link send no more of what is limited than the bucket gives.
    ///
    /// # Errors
    /// EEXIST when the link has a root qdisc of somebody's.
    pub fn limit(&mut self, index: u32, bucket: &Bucket, limited: &Limited<'_>) -> Result<(), Errno> {
        if *limited == Limited::All {
            return self.add_bucket(header(index, TBF_HANDLE, ROOT, 0), bucket);
        }
        // struct tc_prio_qopt: how many bands, and the band of each priority of packets: of those that no filter knows.
        let other = u8::from(matches!(limited, Limited::AllBut(..)));
        let mut bands = BANDS.to_ne_bytes().to_vec();
        bands.extend([other; PRIORITIES]);
        let mut message = new(RTM_NEWQDISC, header(index, TBF_HANDLE, ROOT, 0), "prio");
        message.attribute(TCA_OPTIONS, &bands);
        self.0.request(message)?;
        self.add_bucket(header(index, BAND_HANDLE, BAND_LIMITED, 0), bucket)?;
        for (band, selector) in selectors(limited) {
            let mut filter = new(RTM_NEWTFILTER, header(index, 0, TBF_HANDLE, selector.info), "u32");
            filter.nest(TCA_OPTIONS, |options| {
                options.native_u32(TCA_U32_CLASSID, band);
                options.attribute(TCA_U32_SEL, &selector.bytes);
            });
            self.0.request(filter)?;
        }
        Ok(())
    }

    fn add_bucket(&mut self, header: [u8; HEADER_LEN], bucket: &Bucket) -> Result<(), Errno> {
        let mut parms = [0; TBF_PARMS_LEN];
        parms[1] = TC_LINKLAYER_ETHERNET;
        parms[8..12].copy_from_slice(&u32::try_from(bucket.rate).unwrap_or(u32::MAX).to_ne_bytes());
        parms[24..28].copy_from_slice(&bucket.limit.to_ne_bytes());
        let mut message = new(RTM_NEWQDISC, header, "tbf");
        message.nest(TCA_OPTIONS, |options| {
            options.attribute(TCA_TBF_PARMS, &parms);
            // In bytes, so that nothing has to be told in the kernel's ticks.
            options.native_u32(TCA_TBF_BURST, bucket.burst);
            if u32::try_from(bucket.rate).is_err() {
                options.attribute(TCA_TBF_RATE64, &bucket.rate.to_ne_bytes());
            }
        });
        self.0.request(message).map(drop)
    }

    /// Whether what a link sends is limited like that.
    ///
    /// # Errors
    /// The kernel's.
    pub fn is_limited(&mut self, index: u32, bucket: &Bucket, limited: &Limited<'_>) -> Result<bool, Errno> {
        let parent = if *limited == Limited::All { ROOT } else { BAND_LIMITED };
        let answers = self.0.dump(|| Message::new(RTM_GETQDISC, REQUEST | DUMP, &header(index, 0, 0, 0)))?;
        let found = answers.iter().filter(|answer| is_at(answer, index, parent)).find_map(parse_bucket);
        if found != Some((bucket.rate, bucket.limit)) {
            return Ok(false);
        }
        if *limited == Limited::All {
            return Ok(true);
        }
        let header = header(index, 0, TBF_HANDLE, 0);
        let answers = self.0.dump(|| Message::new(RTM_GETTFILTER, REQUEST | DUMP, &header))?;
        let here = answers.iter().filter(|answer| is_at(answer, index, TBF_HANDLE));
        let found: Vec<_> = here.filter_map(parse_selector).collect();
        let wanted = selectors(limited);
        Ok(wanted.iter().all(|(band, selector)| found.contains(&(*band, selector.keys().to_vec()))))
    }

    /// Sends everything that comes in by a link out by another one first.
    ///
    /// # Errors
    /// EEXIST when the link has an ingress qdisc of somebody's.
    pub fn redirect_incoming(&mut self, index: u32, to: u32) -> Result<(), Errno> {
        let ingress = new(RTM_NEWQDISC, header(index, INGRESS_HANDLE, INGRESS, 0), "ingress");
        self.0.request(ingress)?;
        // struct tc_mirred: index, capabilities, action, two counts, what to do, where to.
        let parms: Vec<u8> = [0, 0, TC_ACT_STOLEN, 0, 0, TCA_EGRESS_REDIR, to]
            .into_iter()
            .flat_map(u32::to_ne_bytes)
            .collect();
        let mut filter = new(RTM_NEWTFILTER, header(index, 0, INGRESS_HANDLE, FILTER_INFO), "matchall");
        filter.nest(TCA_OPTIONS, |options| {
            options.nest(TCA_MATCHALL_ACT, |actions| {
                actions.nest(1, |action| {
                    action.text(TCA_ACT_KIND, "mirred");
                    action.nest(TCA_ACT_OPTIONS, |options| options.attribute(TCA_MIRRED_PARMS, &parms));
                });
            });
        });
        self.0.request(filter).map(drop)
    }

    /// The link to which what comes in by a link goes first, or `None`.
    ///
    /// # Errors
    /// The kernel's.
    pub fn redirected_to(&mut self, index: u32) -> Result<Option<u32>, Errno> {
        let header = header(index, 0, INGRESS_HANDLE, 0);
        let answers = match self.0.dump(|| Message::new(RTM_GETTFILTER, REQUEST | DUMP, &header)) {
            Err(Errno::INVAL | Errno::NOENT) => return Ok(None), // no such qdisc
            other => other?,
        };
        Ok(answers.iter().filter(|answer| is_at(answer, index, INGRESS_HANDLE)).find_map(parse_redirection))
    }

    /// Takes away what `limit` and `redirect_incoming` made of a link; what is not there is fine.
    ///
    /// # Errors
    /// The kernel's, ENOENT, EINVAL and ENODEV excepted.
    pub fn unshape(&mut self, index: u32) -> Result<(), Errno> {
        for (handle, parent) in [(TBF_HANDLE, ROOT), (INGRESS_HANDLE, INGRESS)] {
            match self.0.request(Message::new(RTM_DELQDISC, REQUEST | ACK, &header(index, handle, parent, 0)))
            {
                Ok(_) | Err(Errno::NOENT | Errno::INVAL | Errno::NODEV) => {}
                Err(errno) => return Err(errno),
            }
        }
        Ok(())
    }
}

/// What a u32 filter looks at.
struct Selector {
    /// Priority and protocol. Filters of one priority have one protocol.
    info: u32,
    /// struct tc_u32_sel with its keys.
    bytes: Vec<u8>,
}

impl Selector {
    /// The packets one `end` of which lies in `network`.
    fn new(network: &Network, end: End) -> Selector {
        let bits = Network { address: all_ones(network.address), prefix: network.prefix }.base().address;
        let (priority, protocol, at) = match (network.address, end) {
            (IpAddr::V4(_), End::Source) => (16, 0x0800_u16, 12_u32),
            (IpAddr::V4(_), End::Destination) => (16, 0x0800, 16),
            (IpAddr::V6(_), End::Source) => (15, 0x86dd, 8),
            (IpAddr::V6(_), End::Destination) => (15, 0x86dd, 24),
        };
        let (mask, value) = (octets(bits), octets(network.base().address));
        let mut keys = Vec::new();
        for ((mask, value), at) in mask.chunks(4).zip(value.chunks(4)).zip((at..).step_by(4)) {
            if mask != [0; 4] {
                keys.extend_from_slice(mask);
                keys.extend_from_slice(value);
                keys.extend(at.to_ne_bytes());
                keys.extend([0; 4]);
            }
        }
        let mut bytes = vec![0; U32_SEL_LEN];
        bytes[0] = TC_U32_TERMINAL;
        bytes[2] = u8::try_from(keys.len() / U32_SEL_LEN).unwrap_or(0);
        bytes.extend(keys);
        Selector { info: priority << 16 | u32::from(protocol.to_be()), bytes }
    }

    fn keys(&self) -> &[u8] {
        &self.bytes[U32_SEL_LEN..]
    }
}

fn all_ones(address: IpAddr) -> IpAddr {
    if address.is_ipv4() { IpAddr::from([0xff; 4]) } else { IpAddr::from([0xff; 16]) }
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

/// The filters that `limited` takes, each with the band to which it sends.
fn selectors(limited: &Limited<'_>) -> Vec<(u32, Selector)> {
    let (band, end, networks) = match limited {
        Limited::All => return vec![],
        Limited::Only(end, networks) => (BAND_LIMITED, *end, *networks),
        Limited::AllBut(end, networks) => (BAND_FREE, *end, *networks),
    };
    networks.iter().map(|network| (band, Selector::new(network, end))).collect()
}

/// struct tcmsg
fn header(index: u32, handle: u32, parent: u32, info: u32) -> [u8; HEADER_LEN] {
    let mut bytes = [0; HEADER_LEN];
    for (at, value) in [(4, index), (8, handle), (12, parent), (16, info)] {
        bytes[at..at + 4].copy_from_slice(&value.to_ne_bytes());
    }
    bytes
}

fn new(kind: u16, header: [u8; HEADER_LEN], name: &str) -> Message {
    let mut message = Message::new(kind, REQUEST | ACK | CREATE | EXCLUSIVE, &header);
    message.text(TCA_KIND, name);
    message
}

fn is_at(answer: &Received, index: u32, parent: u32) -> bool {
    u32_at(&answer.payload, 4) == Some(index) && u32_at(&answer.payload, 12) == Some(parent)
}

/// Rate and limit.
fn parse_bucket(answer: &Received) -> Option<(u64, u32)> {
    let options = options_of(answer, "tbf")?;
    let parms = find(options, TCA_TBF_PARMS)?;
    let rate = match find(options, TCA_TBF_RATE64) {
        Some(rate) => rate.try_into().ok().map(u64::from_ne_bytes)?,
        None => u64::from(u32_at(parms, 8)?),
    };
    Some((rate, u32_at(parms, 24)?))
}

/// The band, and the keys, which the kernel gives as it got them.
fn parse_selector(answer: &Received) -> Option<(u32, Vec<u8>)> {
    let options = options_of(answer, "u32")?;
    let band = u32_at(find(options, TCA_U32_CLASSID)?, 0)?;
    Some((band, find(options, TCA_U32_SEL)?.get(U32_SEL_LEN..)?.to_vec()))
}

fn parse_redirection(answer: &Received) -> Option<u32> {
    let action = find(find(options_of(answer, "matchall")?, TCA_MATCHALL_ACT)?, 1)?;
    u32_at(find(find(action, TCA_ACT_OPTIONS)?, TCA_MIRRED_PARMS)?, 24)
}

/// Reads an answer as each kind: for `runtime::fuzz`.
#[cfg(any(test, feature = "fuzzing"))]
pub fn read(answer: &Received) -> (Option<(u64, u32)>, Option<u32>) {
    parse_selector(answer);
    (parse_bucket(answer), parse_redirection(answer))
}

fn options_of<'a>(answer: &'a Received, kind: &str) -> Option<&'a [u8]> {
    let attributes = answer.payload.get(HEADER_LEN..)?;
    if text_of(find(attributes, TCA_KIND)?) != kind {
        return None;
    }
    find(attributes, TCA_OPTIONS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_is_looked_for_in_the_words_that_its_prefix_covers() {
        let keys = |text: &str, end| Selector::new(&text.parse().unwrap(), end).keys().to_vec();
        let word = |at: u32| at.to_ne_bytes();
        let expected = [&[255, 255, 0, 0, 10, 9, 0, 0], &word(16)[..], &[0; 4]].concat();
        assert_eq!(keys("10.9.8.7/16", End::Destination), expected);
        let v6 = keys("fd94:1:2:3::/48", End::Source);
        let expected = [
            &[255, 255, 255, 255, 0xfd, 0x94, 0, 1],
            &word(8)[..],
            &[0; 4],
            &[255, 255, 0, 0, 0, 2, 0, 0],
            &word(12)[..],
            &[0; 4],
        ];
        assert_eq!(v6, expected.concat());
        assert!(keys("0.0.0.0/0", End::Source).is_empty());
        let networks = ["10.0.0.0/8".parse().unwrap()];
        let band = |limited| selectors(&limited)[0].0;
        assert_eq!(band(Limited::Only(End::Source, &networks)), BAND_LIMITED);
        assert_eq!(band(Limited::AllBut(End::Source, &networks)), BAND_FREE);
    }
}

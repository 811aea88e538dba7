//! Traffic control: token bucket filters, and the way of what comes in through another link
//! ([tc-tbf(8)](https://man7.org/linux/man-pages/man8/tc-tbf.8.html); kernel: include/uapi/linux/pkt_sched.h).
//!
//! In: links, rates. Out: qdiscs and one filter. Must never: replace a qdisc that somebody else has set.

use rustix::io::Errno;

use super::ACK;
use super::CREATE;
use super::DUMP;
use super::EXCLUSIVE;
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

impl RouteSocket {
    /// Lets a link send no more than the bucket gives.
    ///
    /// # Errors
    /// EEXIST when the link has a root qdisc of somebody's.
    pub fn add_bucket(&mut self, index: u32, bucket: &Bucket) -> Result<(), Errno> {
        let mut parms = [0; TBF_PARMS_LEN];
        parms[1] = TC_LINKLAYER_ETHERNET;
        parms[8..12].copy_from_slice(&u32::try_from(bucket.rate).unwrap_or(u32::MAX).to_ne_bytes());
        parms[24..28].copy_from_slice(&bucket.limit.to_ne_bytes());
        let mut message = new(RTM_NEWQDISC, header(index, TBF_HANDLE, ROOT, 0), "tbf");
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

    /// Rate and limit of a link's token bucket filter, or `None`.
    ///
    /// # Errors
    /// The kernel's.
    pub fn bucket(&mut self, index: u32) -> Result<Option<(u64, u32)>, Errno> {
        let answers = self.0.dump(|| Message::new(RTM_GETQDISC, REQUEST | DUMP, &header(index, 0, 0, 0)))?;
        Ok(answers.iter().filter(|answer| is_at(answer, index, ROOT)).find_map(parse_bucket))
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

    /// Takes away what `add_bucket` and `redirect_incoming` made of a link; what is not there is fine.
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

fn parse_redirection(answer: &Received) -> Option<u32> {
    let action = find(find(options_of(answer, "matchall")?, TCA_MATCHALL_ACT)?, 1)?;
    u32_at(find(find(action, TCA_ACT_OPTIONS)?, TCA_MIRRED_PARMS)?, 24)
}

/// Reads an answer as each kind: for `runtime::fuzz`.
#[cfg(any(test, feature = "fuzzing"))]
pub fn read(answer: &Received) -> (Option<(u64, u32)>, Option<u32>) {
    (parse_bucket(answer), parse_redirection(answer))
}

fn options_of<'a>(answer: &'a Received, kind: &str) -> Option<&'a [u8]> {
    let attributes = answer.payload.get(HEADER_LEN..)?;
    if text_of(find(attributes, TCA_KIND)?) != kind {
        return None;
    }
    find(attributes, TCA_OPTIONS)
}

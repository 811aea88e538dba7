//! Connection tracking entries, forgotten by a filter (kernel: net/netfilter/nf_conntrack_netlink.c).
//!
//! In: a port. Out: nothing. Must never: send a request without a filter, which would forget every connection.

use rustix::io::Errno;

use super::message::Message;
use super::nft::NftSocket;

const DELETE: u16 = 1 << 8 | 2; // NFNL_SUBSYS_CTNETLINK, IPCTNL_MSG_CT_DELETE
const REQUEST: u16 = 0x1;
const ACK: u16 = 0x4;
const CTA_TUPLE_ORIG: u16 = 1;
const CTA_FILTER: u16 = 25;
const CTA_TUPLE_PROTO: u16 = 2;
const CTA_PROTO_NUM: u16 = 1;
const CTA_PROTO_DST_PORT: u16 = 3;
const CTA_FILTER_ORIG_FLAGS: u16 = 1;
/// CTA_FILTER_F_CTA_PROTO_NUM | CTA_FILTER_F_CTA_PROTO_DST_PORT of nf_internals.h: compare these two, nothing else.
const FILTER_PROTOCOL_AND_PORT: u32 = 1 << 3 | 1 << 5;
const IPPROTO_UDP: u8 = 17;

/// Forgets the UDP flows to `port`, so that the next packet of each meets the rules of now. `v6` chooses the family.
///
/// # Errors
/// EPERM; EPROTONOSUPPORT and the like when the kernel lacks ctnetlink.
pub fn forget_udp_to_port(port: u16, v6: bool) -> Result<(), Errno> {
    // It hears the same protocol, and closing another one would take as long.
    let mut socket = NftSocket::open()?;
    let family = if v6 { 10 } else { 2 };
    let mut message = Message::new(DELETE, REQUEST | ACK, &[family, 0, 0, 0]);
    message.nest(CTA_TUPLE_ORIG, |tuple| {
        tuple.nest(CTA_TUPLE_PROTO, |protocol| {
            protocol.attribute(CTA_PROTO_NUM, &[IPPROTO_UDP]);
            protocol.attribute(CTA_PROTO_DST_PORT, &port.to_be_bytes());
        });
    });
    message.nest(CTA_FILTER, |filter| filter.native_u32(CTA_FILTER_ORIG_FLAGS, FILTER_PROTOCOL_AND_PORT));
    match socket.socket()?.request(message) {
        Ok(_) | Err(Errno::NOENT) => Ok(()),
        Err(errno) => Err(errno),
    }
}

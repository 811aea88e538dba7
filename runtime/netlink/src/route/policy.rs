//! Policy routing: rules by source address, and an interface's routes moved to another table
//! ([ip-rule(8)](https://man7.org/linux/man-pages/man8/ip-rule.8.html)).
//!
//! In: addresses, tables. Out: rules and routes as values. Must never: lose a part of a route that it moves.

use std::net::IpAddr;

use rustix::io::Errno;

use super::ACK;
use super::CREATE;
use super::DUMP;
use super::EXCLUSIVE;
use super::Network;
use super::REQUEST;
use super::ROUTE_HEADER_LEN;
use super::RT_TABLE_MAIN;
use super::RTA_GATEWAY;
use super::RTA_OIF;
use super::RTA_PREFSRC;
use super::RTA_TABLE;
use super::RTM_DELROUTE;
use super::RTM_GETROUTE;
use super::RTM_NEWROUTE;
use super::RTN_UNICAST;
use super::RouteSocket;
use super::address_of;
use super::family_of;
use super::put_address;
use crate::message::Message;
use crate::message::attributes;
use crate::message::find;
use crate::message::u32_at;

const RTM_NEWRULE: u16 = 32;
const RTM_DELRULE: u16 = 33;
const RTM_GETRULE: u16 = 34;
const REPLACE: u16 = 0x100;
const RTA_CACHEINFO: u16 = 12;
const RULE_HEADER_LEN: usize = 12;
const FRA_SRC: u16 = 2;
const FRA_TABLE: u16 = 15;
const FR_ACT_TO_TBL: u8 = 1;

/// What a source sends is routed by a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceRule {
    /// The sender.
    pub source: Network,
    /// The routing table.
    pub table: u32,
}

/// A route as the kernel told it, with all that it has.
#[derive(Debug, Clone)]
pub struct HeldRoute {
    /// By way of.
    pub gateway: Option<IpAddr>,
    /// The address that it prefers as sender.
    pub source: Option<IpAddr>,
    /// Whether it is one of IPv4.
    pub is_v4: bool,
    /// RT_SCOPE_*
    pub scope: u8,
    payload: Vec<u8>,
}

impl RouteSocket {
    /// Adds a rule; one that is there already is fine.
    ///
    /// # Errors
    /// The kernel's, EEXIST excepted.
    pub fn add_rule(&mut self, rule: &SourceRule) -> Result<(), Errno> {
        match self.0.request(rule_message(RTM_NEWRULE, REQUEST | ACK | CREATE | EXCLUSIVE, rule)) {
            Ok(_) | Err(Errno::EXIST) => Ok(()),
            Err(errno) => Err(errno),
        }
    }

    /// Removes a rule; one that is gone already is fine.
    ///
    /// # Errors
    /// The kernel's, ENOENT excepted.
    pub fn delete_rule(&mut self, rule: &SourceRule) -> Result<(), Errno> {
        match self.0.request(rule_message(RTM_DELRULE, REQUEST | ACK, rule)) {
            Ok(_) | Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(errno),
        }
    }

    /// The rules by source of both families.
    ///
    /// # Errors
    /// The kernel's.
    pub fn source_rules(&mut self) -> Result<Vec<SourceRule>, Errno> {
        let answers = self.0.dump(|| Message::new(RTM_GETRULE, REQUEST | DUMP, &[0; RULE_HEADER_LEN]))?;
        Ok(answers.iter().filter_map(|answer| parse_rule(&answer.payload)).collect())
    }

    /// The routes of the main table that leave by an interface, those of the kernel's own making too.
    ///
    /// # Errors
    /// The kernel's.
    pub fn held_routes(&mut self, index: u32) -> Result<Vec<HeldRoute>, Errno> {
        let answers = self.0.dump(|| Message::new(RTM_GETROUTE, REQUEST | DUMP, &[0; ROUTE_HEADER_LEN]))?;
        Ok(answers.iter().filter_map(|answer| parse_held_route(&answer.payload, index)).collect())
    }

    /// Makes a route once more, in another table; one to the same destination gives way.
    ///
    /// # Errors
    /// The kernel's.
    pub fn copy_route(&mut self, route: &HeldRoute, table: u32) -> Result<(), Errno> {
        let message = route.message(RTM_NEWROUTE, REQUEST | ACK | CREATE | REPLACE, table);
        self.0.request(message).map(drop)
    }

    /// Removes a route; one that is gone already is fine.
    ///
    /// # Errors
    /// The kernel's, ESRCH excepted.
    pub fn delete_held_route(&mut self, route: &HeldRoute) -> Result<(), Errno> {
        match self.0.request(route.message(RTM_DELROUTE, REQUEST | ACK, RT_TABLE_MAIN)) {
            Ok(_) | Err(Errno::SRCH) => Ok(()),
            Err(errno) => Err(errno),
        }
    }
}

impl HeldRoute {
    fn message(&self, kind: u16, flags: u16, table: u32) -> Message {
        let mut header = [0; ROUTE_HEADER_LEN];
        header.copy_from_slice(&self.payload[..ROUTE_HEADER_LEN]);
        header[4] = 0; // RTA_TABLE says which
        header[8..12].fill(0); // RTM_F_* and RTNH_F_* tell of its state, and can't be asked for
        let mut message = Message::new(kind, flags, &header);
        for (kind, value) in attributes(&self.payload[ROUTE_HEADER_LEN..]) {
            if !matches!(kind, RTA_TABLE | RTA_CACHEINFO) {
                message.attribute(kind, value);
            }
        }
        message.native_u32(RTA_TABLE, table);
        message
    }
}

fn parse_rule(payload: &[u8]) -> Option<SourceRule> {
    let attributes = payload.get(RULE_HEADER_LEN..)?;
    let address = address_of(find(attributes, FRA_SRC)?)?;
    Some(SourceRule {
        source: Network { address, prefix: *payload.get(2)? },
        table: u32_at(find(attributes, FRA_TABLE)?, 0)?,
    })
}

fn parse_held_route(payload: &[u8], index: u32) -> Option<HeldRoute> {
    let attributes = payload.get(ROUTE_HEADER_LEN..)?;
    let number = |kind| find(attributes, kind).and_then(|value| u32_at(value, 0));
    let is_held = *payload.get(7)? == RTN_UNICAST
        && number(RTA_OIF) == Some(index)
        && number(RTA_TABLE) == Some(RT_TABLE_MAIN);
    is_held.then(|| HeldRoute {
        gateway: find(attributes, RTA_GATEWAY).and_then(address_of),
        source: find(attributes, RTA_PREFSRC).and_then(address_of),
        is_v4: payload[0] == 2,
        scope: payload[6],
        payload: payload.to_vec(),
    })
}

/// Reads a payload as each kind of answer, and writes a route that it holds: for `runtime::fuzz`.
#[cfg(any(test, feature = "fuzzing"))]
pub fn read(payload: &[u8]) -> (Option<SourceRule>, Option<Vec<u8>>) {
    let held = parse_held_route(payload, 1);
    let copy = held.map(|route| route.message(RTM_NEWROUTE, REQUEST | ACK | CREATE | REPLACE, 7).finish(1));
    (parse_rule(payload), copy)
}

fn rule_message(kind: u16, flags: u16, rule: &SourceRule) -> Message {
    let mut header = [0; RULE_HEADER_LEN];
    header[0] = family_of(rule.source.address);
    header[2] = rule.source.prefix;
    header[7] = FR_ACT_TO_TBL;
    let mut message = Message::new(kind, flags, &header);
    put_address(&mut message, FRA_SRC, rule.source.address);
    message.native_u32(FRA_TABLE, rule.table);
    message
}

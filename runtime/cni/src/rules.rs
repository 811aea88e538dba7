//! The plugins' rules in nf_tables: which table they live in, whose they are, and how they go (contract rule 31).
//!
//! A rule belongs to an attachment by its comment. Making an attachment's rules is one transaction that also makes the
//! table; removing the last one removes the table, in a transaction that fails and is tried again when anybody changed
//! the ruleset meanwhile: parallel attachments lose nothing and leave nothing.
//!
//! In: attachments and rules. Out: nothing. Must never: touch a rule that is not of these tables.

use rustix::io::Errno;

use super::error::Error;
use super::plan::Attachment;
use netlink::nft::Base;
use netlink::nft::Batch;
use netlink::nft::COMMENT_LEN_MAX;
use netlink::nft::Expression;
use netlink::nft::Family;
use netlink::nft::FoundRule;
use netlink::nft::NftSocket;
use netlink::nft::Rule;

/// The kernel's answer when the ruleset changed under a transaction. Everybody who meets it lost to somebody who got on,
/// so this many tries are only needed by as many rivals.
const ERESTART: i32 = 85;
const TRIES_MAX: u32 = 1000;

/// A table of ours with its chains.
#[derive(Debug, Clone, Copy)]
pub struct Table {
    /// Its family.
    pub family: Family,
    /// Its name.
    pub name: &'static str,
    /// Its chains, those that are jumped to before those that jump.
    pub chains: &'static [Chain],
}

/// A chain of ours.
#[derive(Debug, Clone, Copy)]
pub struct Chain {
    /// Its name.
    pub name: &'static str,
    /// Where it hooks in; `None` when it is jumped to.
    pub base: Option<Base>,
    /// The rules that it always has.
    pub fixed: Option<fn() -> Vec<Vec<Expression>>>,
    /// Whether a user may put rules of his own there, which keep the table alive.
    pub is_admins: bool,
}

/// Adds an attachment's rules.
///
/// # Errors
/// Code 999, naming the table.
pub fn add(table: &Table, rules: &[Rule]) -> Result<(), Error> {
    if rules.is_empty() {
        return Ok(());
    }
    let failed = |errno: Errno| Error::failed(format!("rules in table {}", table.name), errno);
    let mut socket = NftSocket::open().map_err(failed)?;
    let form = form_of(table);
    let comment = format!("form {:016x}", hash(&form.parts()));
    // A table that is there has its form already, if it is of this one. To make the form anew would have others wait until
    // the kernel has freed the old rules.
    let there = socket.table_comment(table.family, table.name).map_err(failed)?;
    let mut form = Some(form).filter(|_| there.as_ref() != Some(&comment));
    loop {
        let is_there = form.is_none();
        let mut batch = Batch::new(table.family, table.name, None);
        if let Some(form) = form {
            batch.make_table(&comment);
            batch.append(form);
        }
        for rule in rules {
            batch.add_rule(rule);
        }
        match socket.commit(batch) {
            // It went with its last rule meanwhile.
            Err(Errno::NOENT) if is_there => form = Some(form_of(table)),
            other => return other.map_err(failed),
        }
    }
}

/// The chains that a table has, and their fixed rules, anew: those of another form may be there.
fn form_of(table: &Table) -> Batch {
    let mut batch = Batch::new(table.family, table.name, None);
    for chain in table.chains {
        batch.make_chain(chain.name, chain.base);
    }
    for chain in table.chains {
        let Some(fixed) = chain.fixed else { continue };
        batch.flush_chain(chain.name);
        for expressions in fixed() {
            batch.add_rule(&Rule { chain: chain.name, expressions, comment: String::new() });
        }
    }
    batch
}

/// Removes an attachment's rules; none to remove is fine.
///
/// # Errors
/// Code 999, naming the table.
pub fn remove(table: &Table, attachment: &Attachment) -> Result<(), Error> {
    let comment = comment(attachment);
    remove_where(table, &|text| text == comment, &mut |_, _| Ok(()))
}

/// Removes the rules of a network's attachments that are not in `valid`.
///
/// # Errors
/// Code 999, naming the table.
pub fn keep_only(table: &Table, network: &str, valid: &[Attachment]) -> Result<(), Error> {
    remove_where(table, &|text| is_stale(text, network, valid), &mut |_, _| Ok(()))
}

/// Whether rules can be made at all, for STATUS.
///
/// # Errors
/// Code 50 when the kernel has no nf_tables, or doesn't let us.
pub fn available() -> Result<(), Error> {
    NftSocket::open().and_then(|mut socket| socket.generation()).map(drop).map_err(|errno| {
        let message = format!("nf_tables can't be used: {errno}");
        Error::new(super::error::NOT_AVAILABLE, message)
    })
}

/// How many rules an attachment has.
///
/// # Errors
/// Code 999, naming the table.
pub fn count(table: &Table, attachment: &Attachment) -> Result<usize, Error> {
    let failed = |errno: Errno| Error::failed(format!("rules in table {}", table.name), errno);
    let rules = NftSocket::open().and_then(|mut socket| socket.rules(table.family, table.name));
    let comment = comment(attachment);
    Ok(rules.map_err(failed)?.iter().filter(|rule| rule.comment == comment).count())
}

/// What there is to do before rules go; it is told which ones go, and which are left.
type Prepare<'a> = dyn FnMut(&[&FoundRule], &[&FoundRule]) -> Result<(), Error> + 'a;

/// Removes the rules whose comment `is_mine`. Before each try `prepare` is told which rules go and which are left; when
/// anybody changes the ruleset meanwhile, the try fails and the next one is told anew.
///
/// # Errors
/// `prepare`'s; code 999, naming the table.
pub fn remove_where(
    table: &Table,
    is_mine: &dyn Fn(&str) -> bool,
    prepare: &mut Prepare<'_>,
) -> Result<(), Error> {
    let failed = |errno: Errno| Error::failed(format!("rules in table {}", table.name), errno);
    let mut socket = match NftSocket::open() {
        Err(Errno::PROTONOSUPPORT) => return Ok(()), // no nf_tables, no rules
        other => other.map_err(failed)?,
    };
    for _ in 0..TRIES_MAX {
        let rules = socket.rules(table.family, table.name).map_err(failed)?;
        let (mine, others): (Vec<_>, Vec<_>) = rules.iter().partition(|rule| is_mine(&rule.comment));
        prepare(&mine, &others)?;
        if mine.is_empty() {
            return Ok(());
        }
        // Most have nothing to remove, and need no generation; who has finds out whether it is still that of his rules.
        let generation = socket.generation().map_err(failed)?;
        let is_theirs = |rule: &FoundRule| u32::from(rule.generation) == generation & 0xffff;
        if !rules.iter().all(is_theirs) {
            continue;
        }
        let in_use = others.iter().any(|rule| {
            let chain = table.chains.iter().find(|chain| chain.name == rule.chain);
            !rule.comment.is_empty() || chain.is_none_or(|chain| chain.is_admins)
        });
        let mut batch = Batch::new(table.family, table.name, Some(generation));
        if in_use {
            mine.iter().for_each(|rule| batch.delete_rule(rule));
        } else {
            batch.delete_table();
        }
        match socket.commit(batch) {
            Err(errno) if errno.raw_os_error() == ERESTART || errno == Errno::NOENT => {}
            other => return other.map_err(failed),
        }
    }
    Err(failed(Errno::AGAIN))
}

/// What an attachment's rules are found by: hashes, since names may be longer than a comment, and the names to read.
pub fn comment(attachment: &Attachment) -> String {
    let Attachment { network, id, ifname } = attachment;
    let hash = hash(&[id.as_bytes(), b"\0", ifname.as_bytes()]);
    let mut text = format!("{}{hash:016x} {network} {id} {ifname}", network_prefix(network));
    let end = (0..=COMMENT_LEN_MAX.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
    text.truncate(end.unwrap_or(0));
    text
}

/// Whether a comment is that of an attachment of `network` that is not in `valid`.
pub fn is_stale(text: &str, network: &str, valid: &[Attachment]) -> bool {
    text.starts_with(&network_prefix(network)) && !valid.iter().any(|attachment| comment(attachment) == text)
}

fn network_prefix(network: &str) -> String {
    format!("cni:{:016x}:", hash(&[network.as_bytes()]))
}

/// FNV-1a: the same in every build, unlike the standard library's.
pub fn hash(parts: &[&[u8]]) -> u64 {
    parts
        .iter()
        .copied()
        .flatten()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3))
}

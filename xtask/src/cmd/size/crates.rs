//! The static program by crate. In: the program, linked as it ships but with its symbols. Out: bytes of code and data by
//! the crate whose name begins the symbol. Must never: guess: what no symbol covers is listed as just that.

use std::collections::BTreeMap;

use anyhow::{Context, Result};

use crate::artifact::Artifact;
use crate::elf;

/// What the C library and the compiler's own runtime add.
const NOT_RUST: &str = "(C library, compiler)";
/// Implementations for every type.
const BLANKET: &str = "(implementations for any type)";
/// Headers, unwinding tables, strings and other data without a name.
const NO_SYMBOL: &str = "(no symbol: strings, tables, headers)";

/// Bytes by crate. `shipped` is the program without symbols: what the symbols do not cover is counted by it.
pub fn run(with_symbols: &Artifact, shipped: &Artifact) -> Result<BTreeMap<String, u64>> {
    let path = &with_symbols.path;
    let bytes = std::fs::read(path).with_context(|| format!("{}: cannot read", path.display()))?;
    let symbols =
        elf::symbols(&bytes).with_context(|| format!("{}: no ELF program with symbols", path.display()))?;
    let mut sizes: BTreeMap<String, u64> = BTreeMap::new();
    let mut seen = std::collections::BTreeSet::new();
    for elf::Symbol { name, at, size } in symbols {
        // Several names of one place count once.
        if size > 0 && seen.insert(at) {
            *sizes.entry(owner(&name).to_owned()).or_default() += size;
        }
    }
    let named: u64 = sizes.values().sum();
    sizes.insert(NO_SYMBOL.to_owned(), shipped.size.saturating_sub(named));
    Ok(sizes)
}

/// The crate that a mangled name begins with, in either of Rust's ways.
fn owner(name: &str) -> &str {
    if let Some(rest) = name.strip_prefix("_R") {
        return crate_root(rest).unwrap_or(NOT_RUST);
    }
    let Some(rest) = name.strip_prefix("_ZN") else { return NOT_RUST };
    legacy_owner(rest)
}

/// The first crate that a name of RFC 2603 holds: of a function its own, of an implementation the one that wrote it.
fn crate_root(name: &str) -> Option<&str> {
    let mut rest = name;
    loop {
        let tag = rest.bytes().next()?;
        rest = &rest[1..];
        match tag {
            b'C' => break,
            // A path in a namespace, which is a letter.
            b'N' => rest = rest.get(1..)?,
            // A number that tells equal names apart, or a lifetime: up to its underscore.
            b's' | b'L' => rest = rest.split_once('_')?.1,
            _ => {}
        }
    }
    if let Some(number) = rest.strip_prefix('s') {
        rest = number.split_once('_')?.1;
    }
    let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
    let length = rest[..digits].parse().ok()?;
    let name = &rest[digits..];
    name.strip_prefix('_').unwrap_or(name).get(..length)
}

/// `<A as B>::c` counts for A's crate.
fn legacy_owner(rest: &str) -> &str {
    let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
    let path = &rest[digits..];
    // A path that begins with a type is written in escapes; the first plain word in it is the crate.
    let mut plain = path.strip_prefix('_').filter(|path| path.starts_with('$')).unwrap_or(path);
    while let Some(escape) = plain.strip_prefix('$') {
        let Some((_, behind)) = escape.split_once('$') else { break };
        plain = ["mut", "dyn", "const"].iter().find_map(|word| behind.strip_prefix(word)).unwrap_or(behind);
    }
    let length = if std::ptr::eq(plain, path) {
        rest[..digits].parse().unwrap_or(0)
    } else {
        plain.find(['.', '$']).unwrap_or(plain.len())
    };
    match plain.get(..length) {
        // A type parameter.
        Some(name) if name.len() == 1 && name.starts_with(|letter: char| letter.is_ascii_uppercase()) => {
            BLANKET
        }
        Some(name) if !name.is_empty() => name,
        _ => NOT_RUST,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_symbol_belongs_to_the_crate_that_it_begins_with() {
        for (symbol, expected) in [
            ("_ZN4core3fmt9Formatter3pad17h0123456789abcdefE", "core"),
            ("_ZN10serde_json2de5parse17h0123456789abcdefE", "serde_json"),
            ("_ZN68_$LT$alloc..vec..Vec$LT$T$GT$$u20$as$u20$core..fmt..Debug$GT$3fmt17h00E", "alloc"),
            ("_ZN44_$LT$$RF$T$u20$as$u20$core..fmt..Debug$GT$3fmt17h00E", BLANKET),
            ("_ZN50_$LT$base64..Engine$u20$as$u20$core..fmt..Debug$GT$3fmt17h00E", "base64"),
            ("_ZN50_$LT$$RF$mut$u20$std..io..Stdin$GT$3fmt17h00E", "std"),
            ("_RNvNtCs1234_7mycrate3foo3bar", "mycrate"),
            ("_RNvXs_Cs9abcDE_10serde_jsonNtB2_4CoreNtNtCs7_4core3fmt5Debug3fmt", "serde_json"),
            ("_RINvNtC3std3mem8align_ofjE", "std"),
            ("_RNvYRNtCsaB_5outer4TypeNtNtCs7_4core3fmt5Debug3fmt", "outer"),
            ("memcpy", NOT_RUST),
        ] {
            assert_eq!(owner(symbol), expected, "{symbol}");
        }
    }

    #[test]
    fn this_test_program_is_mostly_of_crates_that_it_uses() {
        let path = std::env::current_exe().unwrap();
        let size = path.metadata().unwrap().len();
        let program = Artifact { path, sha256: String::new(), size, key: String::new() };
        let sizes = run(&program, &program).unwrap();
        let size_of = |name: &str| sizes.get(name).copied().unwrap_or_default();
        assert!(["xtask", "core", "serde_json"].into_iter().all(|name| size_of(name) > 1000), "{sizes:?}");
        assert_eq!(sizes.values().sum::<u64>(), size);
    }
}

//! `order`: which functions lie together at the front of the program. In: places that runs executed, as bench/steps.c notes
//! them down. Out: runtime/order.ld, a linker's script of patterns. Must never: name a function in a way that the next
//! compilation changes.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context, Result};

use crate::cli::OrderArgs;
use crate::context::Build;
use crate::elf::{self, Symbol};
use crate::stage::runtime;
use crate::stamp::write_whole;

const HEAD: &str = "\
/* Made by `cargo xtask order`: the functions that `runc run`, `runc exec` and plugins call, so that they lie together and
   few pages of the program are touched (docs/decisions/0019-function-order.md). A name that no function has any more does
   no harm, and a function that is missing here only lies elsewhere. */

SECTIONS
{
    .text.called : {
";

/// How much of a name is written down.
const NAME_LEN_MAX: usize = 160;

const FOOT: &str = "    }
}
INSERT BEFORE .text;
";

/// Writes the script.
pub fn run(build: &Build, args: &OrderArgs) -> Result<()> {
    // Not the one that ships: without symbols the compiler lays it out differently.
    let program = runtime::with_symbols(build)?.path;
    if args.places.is_empty() {
        build.ui.say(
            "order",
            &format!("have steps run {}, and name the files that it writes", program.display()),
        );
        return Ok(());
    }
    let bytes = std::fs::read(&program).with_context(|| format!("{}: cannot read", program.display()))?;
    let symbols = elf::symbols(&bytes)
        .with_context(|| format!("{}: no ELF program with symbols", program.display()))?;
    let mut called = Vec::new();
    for path in &args.places {
        let text =
            std::fs::read_to_string(path).with_context(|| format!("{}: cannot read", path.display()))?;
        let places = places(&text, path)?;
        let patterns: BTreeSet<String> = functions(&symbols, &places).map(pattern).collect();
        // What the first run calls comes first, so that it touches the least.
        let more: Vec<String> = patterns.into_iter().filter(|pattern| !called.contains(pattern)).collect();
        called.extend(more);
    }
    let lines: String = called.iter().map(|pattern| format!("        {pattern}\n")).collect();
    let script = build.layout.root().join(runtime::ORDER);
    write_whole(&script, format!("{HEAD}{lines}{FOOT}").as_bytes())?;
    build.ui.say("order", &format!("{}: {} functions", script.display(), called.len()));
    Ok(())
}

/// A hexadecimal number a line.
fn places(text: &str, path: &Path) -> Result<BTreeSet<u64>> {
    let place = |line: &str| {
        u64::from_str_radix(line, 16).with_context(|| format!("{}: {line:?}: no place", path.display()))
    };
    text.lines().map(place).collect()
}

/// The functions that lie at these places.
fn functions<'a>(symbols: &'a [Symbol], places: &BTreeSet<u64>) -> impl Iterator<Item = &'a Symbol> {
    // One in assembly that does not tell its size is entered at its first place.
    let end = |symbol: &Symbol| symbol.at + if symbol.size == 0 { 1 } else { symbol.size };
    symbols.iter().filter(move |symbol| places.range(symbol.at..end(symbol)).next().is_some())
}

/// The input section of a function, without the hashes of compiler and crates.
fn pattern(Symbol { name, size, .. }: &Symbol) -> String {
    if name.starts_with("_R") {
        // One that another unit of the compiler calls has that unit's hash behind it.
        let name = without_crate_hashes(name.split(".llvm.").next().unwrap_or_default());
        // One that is marked as seldom called lies in .text.unlikely. What is behind that many letters tells hardly any two apart, and some names have a thousand letters.
        return format!("*(.text*.{}*)", &name[..name.len().min(NAME_LEN_MAX)]);
    }
    // musl's functions have sections of their own, but for those in assembly: there a file has one.
    if *size == 0 { format!("*libc.a:{name}.*(.text)") } else { format!("*(.text.{name})") }
}

/// `Cs4ff7e_3std` of RFC 2603 is a crate's hash and its name; the hash becomes a pattern.
fn without_crate_hashes(name: &str) -> String {
    let mut pieces = name.split("Cs");
    let mut pattern = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        let hash = piece.bytes().take_while(u8::is_ascii_alphanumeric).count();
        let rest = piece[hash..].strip_prefix('_');
        let is_crate = rest.is_some_and(|rest| rest.starts_with(|letter: char| letter.is_ascii_digit()));
        pattern += if is_crate { "Cs*" } else { "Cs" };
        pattern += if is_crate { &piece[hash..] } else { piece };
    }
    pattern
}

#[cfg(test)]
mod tests {
    use super::*;

    fn symbol(name: &str, at: u64, size: u64) -> Symbol {
        Symbol { name: name.to_owned(), at, size }
    }

    #[test]
    fn a_pattern_has_no_hash_of_compiler_or_crate() {
        for (name, expected) in [
            ("_RNvMs_NtCsjrHSEGnQ3l9_3std7Context3new", "*(.text*._RNvMs_NtCs*_3std7Context3new*)"),
            ("_RNvNtCs1_4core3fmt.llvm.123", "*(.text*._RNvNtCs*_4core3fmt*)"),
            ("_RNvCs1_7mycrate7NtCs_ok", "*(.text*._RNvCs*_7mycrate7NtCs_ok*)"),
            ("malloc", "*(.text.malloc)"),
        ] {
            assert_eq!(pattern(&symbol(name, 0, 1)), expected);
        }
        assert_eq!(pattern(&symbol("memcpy", 0, 0)), "*libc.a:memcpy.*(.text)");
        let long = format!("_R{}", "x".repeat(1000));
        assert_eq!(pattern(&symbol(&long, 0, 1)), format!("*(.text*.{}*)", &long[..NAME_LEN_MAX]));
    }

    #[test]
    fn a_function_is_called_where_a_place_in_it_was_executed() {
        let symbols = [
            symbol("before", 0, 16),
            symbol("inside", 16, 16),
            symbol("assembly", 32, 0),
            symbol("after", 40, 8),
        ];
        let places = places("1f\n20\n30\n", Path::new("p")).unwrap();
        let names: Vec<_> = functions(&symbols, &places).map(|symbol| symbol.name.as_str()).collect();
        assert_eq!(names, ["inside", "assembly"]);
        assert!(
            super::places("hello\n", Path::new("p")).unwrap_err().to_string().contains("\"hello\": no place")
        );
    }
}

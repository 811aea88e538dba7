//! Writes `src/oci/seccomp/tables.rs` from a Linux source tree.
//!
//! In: the path of an unpacked kernel source (the one that `xtask/sources.toml` pins). Out: the Rust file on standard output.
//! Must never: be needed by a build; the file that it writes is checked in.
//!
//! Run: `cargo run -p runtime --example syscall_tables -- LINUX_SOURCE > runtime/oci/src/seccomp/tables.rs`

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::ExitCode;

/// One table to write: its constant, the kernel's file and the ABI column's values that belong to it
/// (as the `syscall_abis_*` lines of the architecture's Makefile.syscalls and the Makefiles beside the tables say).
const TABLES: &[(&str, &str, &[&str])] = &[
    ("X86_64", "arch/x86/entry/syscalls/syscall_64.tbl", &["common", "64"]),
    ("X32", "arch/x86/entry/syscalls/syscall_64.tbl", &["common", "x32"]),
    ("X86", "arch/x86/entry/syscalls/syscall_32.tbl", &["i386"]),
    ("ARM", "arch/arm/tools/syscall.tbl", &["common", "eabi"]),
    ("AARCH64", "scripts/syscall.tbl", &["common", "64", "renameat", "rlimit", "memfd_secret"]),
    ("MIPS_O32", "arch/mips/kernel/syscalls/syscall_o32.tbl", &["o32"]),
    ("MIPS_N64", "arch/mips/kernel/syscalls/syscall_n64.tbl", &["n64", "common"]),
    ("MIPS_N32", "arch/mips/kernel/syscalls/syscall_n32.tbl", &["n32"]),
    ("PPC", "arch/powerpc/kernel/syscalls/syscall.tbl", &["common", "nospu", "32"]),
    ("PPC64", "arch/powerpc/kernel/syscalls/syscall.tbl", &["common", "nospu", "64"]),
    ("S390", "arch/s390/kernel/syscalls/syscall.tbl", &["common", "32"]),
    ("S390X", "arch/s390/kernel/syscalls/syscall.tbl", &["common", "64"]),
    ("PARISC", "arch/parisc/kernel/syscalls/syscall.tbl", &["common", "32"]),
    ("PARISC64", "arch/parisc/kernel/syscalls/syscall.tbl", &["common", "64"]),
    ("RISCV64", "scripts/syscall.tbl", &["common", "64", "riscv", "rlimit", "memfd_secret"]),
    ("LOONGARCH64", "scripts/syscall.tbl", &["common", "64"]),
    ("M68K", "arch/m68k/kernel/syscalls/syscall.tbl", &["common"]),
    ("SH", "arch/sh/kernel/syscalls/syscall.tbl", &["common"]),
];

/// Calls younger than the pinned kernel that profiles name already. New calls get one number on all these
/// architectures, so they are known by number before the kernel has them; remove a line once the source has it.
const YOUNGER: &[(&str, u16)] = &[
    ("setxattrat", 463),
    ("getxattrat", 464),
    ("listxattrat", 465),
    ("removexattrat", 466),
    ("open_tree_attr", 467),
    ("file_getattr", 468),
    ("file_setattr", 469),
];

fn main() -> ExitCode {
    let Some(source) = std::env::args().nth(1) else {
        eprintln!("usage: syscall_tables LINUX_SOURCE > runtime/oci/src/seccomp/tables.rs");
        return ExitCode::from(2);
    };
    match render(Path::new(&source)) {
        Ok(text) => {
            print!("{text}");
            ExitCode::SUCCESS
        }
        Err(message) => {
            eprintln!("syscall_tables: {message}");
            ExitCode::FAILURE
        }
    }
}

fn render(source: &Path) -> Result<String, String> {
    let mut tables = Vec::new();
    for (constant, file, abis) in TABLES {
        tables.push((constant, read_table(&source.join(file), abis)?));
    }
    let names: BTreeSet<&str> =
        tables.iter().flat_map(|(_, table)| table.keys().map(String::as_str)).collect();
    let mut out = String::from(
        "//! System call names and their numbers on each architecture.\n//!\n\
         //! Generated from the pinned Linux source's `*.tbl` files; do not edit. To make it anew:\n\
         //! `cargo run -p runtime --example syscall_tables -- LINUX_SOURCE > runtime/oci/src/seccomp/tables.rs`\n\n",
    );
    let joined: String = names.iter().copied().collect();
    let mut offsets = vec![0usize];
    for name in &names {
        offsets.push(offsets[offsets.len() - 1] + name.len());
    }
    out += &format!("/// How many names there are.\npub const COUNT: usize = {};\n\n", names.len());
    out += "/// What stands in a number table where the architecture has no such call.\npub const NONE: u16 = u16::MAX;\n\n";
    out += "/// All names in byte order, one behind the other; `NAME_ENDS` says where each ends.\n#[rustfmt::skip]\n";
    out += &format!("pub static NAMES: &str = \"{}\";\n\n", wrap_string(&joined));
    out += "/// The offset in `NAMES` behind each name.\n";
    out += &numbers("NAME_ENDS", offsets[1..].iter().map(|offset| offset.to_string()));
    for (constant, table) in &tables {
        out += &format!("\n/// Numbers on {constant}, in the order of `NAMES`, without the ABI's base.\n");
        out += &numbers(
            constant,
            names.iter().map(|name| match table.get(*name) {
                Some(number) => number.to_string(),
                None => "NONE".to_string(),
            }),
        );
    }
    Ok(out)
}

/// A string literal broken by `\` line ends.
fn wrap_string(text: &str) -> String {
    let chunks: Vec<&str> =
        text.as_bytes().chunks(100).map(|chunk| std::str::from_utf8(chunk).unwrap_or_default()).collect();
    format!("\\\n    {}", chunks.join("\\\n    "))
}

fn numbers(constant: &str, values: impl Iterator<Item = String>) -> String {
    let values: Vec<String> = values.collect();
    let lines: Vec<String> = values.chunks(16).map(|line| format!("    {},\n", line.join(", "))).collect();
    format!("#[rustfmt::skip]\npub static {constant}: [u16; COUNT] = [\n{}];\n", lines.concat())
}

fn read_table(path: &Path, abis: &[&str]) -> Result<BTreeMap<String, u16>, String> {
    let text = std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let mut table = BTreeMap::new();
    for line in text.lines() {
        let mut fields = line.split_whitespace();
        let (Some(number), Some(abi), Some(name)) = (fields.next(), fields.next(), fields.next()) else {
            continue;
        };
        if number.starts_with('#') || !abis.contains(&abi) || is_placeholder(name) {
            continue;
        }
        let number: u16 = number.parse().map_err(|_| format!("{}: {line}: no number", path.display()))?;
        table.insert(name.to_string(), number);
    }
    if table.is_empty() {
        return Err(format!("{}: no entry of the ABIs {abis:?}", path.display()));
    }
    for (name, number) in YOUNGER {
        table.entry(name.to_string()).or_insert(*number);
    }
    Ok(table)
}

/// Slots that the tables keep free under a name.
fn is_placeholder(name: &str) -> bool {
    name.starts_with("unused") || name.starts_with("reserved")
}

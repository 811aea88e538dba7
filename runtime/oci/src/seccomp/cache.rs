//! Compiled filters, kept below the state directory, since compiling docker's profile takes longer than all the rest of a
//! start.
//!
//! In: a section's text. Out: the filter that was made of that very text by this very compiler, or nothing.
//! Must never: fail a container (without the cache the filter is compiled); take a filter from a folder that somebody else
//! may write to; grow without bound.

use std::io::Read;
use std::io::Write;
use std::path::Path;
use std::path::PathBuf;

use rustix::fs::Mode;
use rustix::fs::OFlags;

use super::Filter;
use crate::own_folder;
use spec::seccomp::Text;
use sys::seccomp::Instruction;

/// No container's id: `store::check_id` takes no `@`.
const FOLDER: &str = "@seccomp";
/// A section's file is chosen by its text, and a later one of the same number takes its place.
const FILES: u64 = 32;
/// Numbers in front of the text: what compiled it, lengths of text and program, flags.
const HEADER_BYTES: usize = 8 + 3 * 4;
/// Room for docker's profile: one read(2) and the end.
const USUAL_BYTES: usize = 1 << 15;

/// Changes with the compiler's source: what another one made counts for nothing.
const COMPILER: u64 = {
    let mut sum = 0;
    let mut sources: &[&[u8]] = &[
        include_bytes!("arch.rs"),
        include_bytes!("cache.rs"),
        include_bytes!("mod.rs"),
        include_bytes!("program.rs"),
        include_bytes!("rules.rs"),
        include_bytes!("tables.rs"),
        include_bytes!("../../../spec/src/seccomp.rs"),
    ];
    while let [first, rest @ ..] = sources {
        sum = checksum(sum, first);
        sources = rest;
    }
    sum
};

/// Eight bytes at a time by FNV-1a's rule; it only has to tell accidents apart.
const fn checksum(mut sum: u64, mut bytes: &[u8]) -> u64 {
    sum ^= bytes.len() as u64;
    while let Some((word, rest)) = bytes.split_first_chunk::<8>() {
        sum = (sum ^ u64::from_le_bytes(*word)).wrapping_mul(0x0000_0100_0000_01b3);
        sum ^= sum >> 32;
        bytes = rest;
    }
    while let [byte, rest @ ..] = bytes {
        sum = (sum ^ *byte as u64).wrapping_mul(0x0000_0100_0000_01b3);
        bytes = rest;
    }
    sum
}

/// The compiled filters below one state directory.
#[derive(Debug, Clone)]
pub struct Cache {
    folder: PathBuf,
}

impl Cache {
    /// The cache of the containers below `root`.
    pub fn new(root: &Path) -> Cache {
        Cache { folder: root.join(FOLDER) }
    }

    /// The filter of a section, if it was compiled before.
    pub fn find(&self, text: &Text) -> Option<Filter> {
        let folder = own_folder::open(&self.folder)?;
        let file =
            rustix::fs::openat(&folder, name(text), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).ok()?;
        let mut bytes = Vec::with_capacity(USUAL_BYTES);
        std::fs::File::from(file).read_to_end(&mut bytes).ok()?;
        decode(&bytes, text)
    }

    /// Keeps a filter that was compiled of `text`. One with a listener isn't: it is more than its program.
    pub fn keep(&self, text: &Text, filter: &Filter) {
        if filter.listener().is_none() {
            // For want of space, say; the next start compiles again.
            let _ = self.write(text, filter);
        }
    }

    fn write(&self, text: &Text, filter: &Filter) -> std::io::Result<()> {
        use std::os::unix::fs::DirBuilderExt;
        std::fs::DirBuilder::new().mode(0o700).recursive(true).create(&self.folder)?;
        let Some(folder) = own_folder::open(&self.folder) else { return Ok(()) };
        let (name, temporary) = (name(text), format!("new-{}", std::process::id()));
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&folder, &temporary, flags, Mode::RUSR | Mode::WUSR)?;
        let written = std::fs::File::from(file).write_all(&encode(text, filter));
        match written {
            Ok(()) => Ok(rustix::fs::renameat(&folder, &temporary, &folder, &name)?),
            Err(_) => Ok(rustix::fs::unlinkat(&folder, &temporary, rustix::fs::AtFlags::empty())?),
        }
    }
}

fn name(text: &Text) -> String {
    (checksum(0, text.as_str().as_bytes()) % FILES).to_string()
}

fn encode(text: &Text, filter: &Filter) -> Vec<u8> {
    let text = text.as_str().as_bytes();
    let mut bytes = Vec::with_capacity(HEADER_BYTES + text.len() + 8 * filter.program.len());
    bytes.extend(COMPILER.to_ne_bytes());
    for number in [text.len(), filter.program.len(), filter.flags as usize] {
        bytes.extend((number as u32).to_ne_bytes());
    }
    bytes.extend(text);
    for Instruction { code, jt, jf, k } in &filter.program {
        bytes.extend(code.to_ne_bytes());
        bytes.extend([*jt, *jf]);
        bytes.extend(k.to_ne_bytes());
    }
    bytes
}

/// The filter in a file's bytes, when they are whole and of this text.
fn decode(bytes: &[u8], text: &Text) -> Option<Filter> {
    let (compiler, bytes) = bytes.split_first_chunk::<8>()?;
    let (length, bytes) = bytes.split_first_chunk::<4>()?;
    let (instructions, bytes) = bytes.split_first_chunk::<4>()?;
    let (flags, bytes) = bytes.split_first_chunk::<4>()?;
    let (of, program) = bytes.split_at_checked(u32::from_ne_bytes(*length) as usize)?;
    let whole = program.len() == u32::from_ne_bytes(*instructions) as usize * 8;
    if u64::from_ne_bytes(*compiler) != COMPILER || of != text.as_str().as_bytes() || !whole {
        return None;
    }
    let instruction = |bytes: &[u8; 8]| {
        let [c0, c1, jt, jf, k0, k1, k2, k3] = *bytes;
        Instruction { code: u16::from_ne_bytes([c0, c1]), jt, jf, k: u32::from_ne_bytes([k0, k1, k2, k3]) }
    };
    let program = program.as_chunks::<8>().0.iter().map(instruction).collect();
    Some(Filter { program, flags: u32::from_ne_bytes(*flags), unknown: Vec::new(), listener: None })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn text(errno: u32) -> Text {
        let json = format!(
            r#"{{"defaultAction":"SCMP_ACT_ERRNO","defaultErrnoRet":{errno},"syscalls":[{{"names":["read"],"action":"SCMP_ACT_ALLOW"}}]}}"#
        );
        serde_json::from_str(&json).unwrap()
    }

    fn compiled(text: &Text) -> Filter {
        super::super::compile(&text.read().unwrap()).unwrap()
    }

    /// A state directory of the test's own.
    fn root(name: &str) -> PathBuf {
        let root = std::env::temp_dir().join(format!("coracle-seccomp-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&root);
        root
    }

    #[test]
    fn what_was_kept_is_found_by_its_very_text() {
        let root = root("kept");
        let cache = Cache::new(&root);
        assert_eq!(cache.find(&text(1)), None, "there is no folder yet");
        for errno in 1..=100 {
            let (text, filter) = (text(errno), compiled(&text(errno)));
            cache.keep(&text, &filter);
            assert_eq!(cache.find(&text), Some(filter));
        }
        let files = std::fs::read_dir(root.join(FOLDER)).unwrap().count();
        assert!(files <= FILES as usize, "{files}");
        std::fs::remove_dir_all(root).unwrap();
    }

    #[test]
    fn a_file_of_another_text_or_compiler_or_cut_short_is_no_filter() {
        let (text, other) = (text(1), text(2));
        let whole = encode(&text, &compiled(&text));
        assert_eq!(decode(&whole, &text), Some(compiled(&text)));
        assert_eq!(decode(&whole, &other), None);
        for length in 0..whole.len() {
            assert_eq!(decode(&whole[..length], &text), None, "{length} bytes");
        }
        let mut of_another_compiler = whole.clone();
        of_another_compiler[0] ^= 1;
        assert_eq!(decode(&of_another_compiler, &text), None);
    }

    #[test]
    fn a_folder_that_others_may_write_to_or_a_link_is_not_used() {
        let root = root("others");
        let (cache, text) = (Cache::new(&root), text(1));
        cache.keep(&text, &compiled(&text));
        let folder = root.join(FOLDER);
        for mode in [0o720, 0o702] {
            std::fs::set_permissions(&folder, PermissionsExt::from_mode(mode)).unwrap();
            assert_eq!(cache.find(&text), None, "{mode:o}");
        }
        std::fs::set_permissions(&folder, PermissionsExt::from_mode(0o700)).unwrap();
        assert!(cache.find(&text).is_some());
        std::fs::rename(&folder, root.join("elsewhere")).unwrap();
        std::os::unix::fs::symlink("elsewhere", &folder).unwrap();
        assert_eq!(cache.find(&text), None);
        std::fs::remove_dir_all(root).unwrap();
    }
}

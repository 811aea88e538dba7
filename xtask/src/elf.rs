//! ELF files as far as sizes go. In: the bytes of a 64-bit little-endian file (elf(5)). Out: its sections and symbols. Must never:
//! take a length of the file on trust: what leads out of the bytes is no section.

/// Takes up memory when the program runs.
const ALLOC: u64 = 2;
/// Has no bytes in the file.
const NOBITS: u32 = 8;

/// A section's header, and its bytes.
#[derive(Debug, Clone, Copy)]
pub struct Section<'a> {
    /// What it holds: `sh_type`.
    pub kind: u32,
    /// Another section that belongs to it: `sh_link`.
    pub link: usize,
    flags: u64,
    /// Its content; empty for what is in memory alone.
    pub content: &'a [u8],
}

impl Section<'_> {
    /// Whether it has no bytes in the file.
    pub fn is_in_memory_alone(&self) -> bool {
        self.kind == NOBITS
    }
}

/// All sections, in the file's order; None for what is no such file.
pub fn sections(bytes: &[u8]) -> Option<Vec<Section<'_>>> {
    const HEADER_BYTES: usize = 64;
    if bytes.get(..6)? != b"\x7fELF\x02\x01" {
        return None;
    }
    let table = usize::try_from(u64_at(bytes, 40)?).ok()?;
    let count = usize::from(u16::from_le_bytes(bytes.get(60..62)?.try_into().ok()?));
    let headers = bytes.get(table..)?.chunks_exact(HEADER_BYTES).take(count);
    headers
        .map(|header| {
            let kind = u32::from_le_bytes(header.get(4..8)?.try_into().ok()?);
            let link = u32::from_le_bytes(header.get(40..44)?.try_into().ok()?);
            let (at, size) = (u64_at(header, 24)?, u64_at(header, 32)?);
            let size = if kind == NOBITS { 0 } else { usize::try_from(size).ok()? };
            let content =
                if size == 0 { &[][..] } else { bytes.get(usize::try_from(at).ok()?..)?.get(..size)? };
            Some(Section { kind, link: usize::try_from(link).ok()?, flags: u64_at(header, 8)?, content })
        })
        .collect()
}

/// A named piece of the program's file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Symbol {
    /// As the linker knows it.
    pub name: String,
    /// Its place in memory.
    pub at: u64,
    /// Its bytes; 0 where whoever wrote it in assembly did not say.
    pub size: u64,
}

/// Functions and data that take up space in the file; None without a list of symbols.
pub fn symbols(bytes: &[u8]) -> Option<Vec<Symbol>> {
    const SYMBOL_BYTES: usize = 24;
    const SYMTAB: u32 = 2;
    let sections = sections(bytes)?;
    let symtab = sections.iter().find(|section| section.kind == SYMTAB)?;
    let names = sections.get(symtab.link)?.content;
    let mut found = Vec::new();
    for symbol in symtab.content.chunks_exact(SYMBOL_BYTES) {
        let name = usize::try_from(u32::from_le_bytes(symbol[..4].try_into().ok()?)).ok()?;
        let section = usize::from(u16::from_le_bytes(symbol[6..8].try_into().ok()?));
        // Undefined, absolute, or in memory alone.
        let Some(in_section) = sections.get(section).filter(|_| section != 0) else { continue };
        // Only functions and objects; sections and files are symbols too.
        if in_section.is_in_memory_alone() || !matches!(symbol[4] & 0xf, 1 | 2) {
            continue;
        }
        let end = names.get(name..)?.iter().position(|&byte| byte == 0)?;
        let name = String::from_utf8_lossy(&names[name..name + end]).into_owned();
        found.push(Symbol { name, at: u64_at(symbol, 8)?, size: u64_at(symbol, 16)? });
    }
    Some(found)
}

/// How many bytes of the file end up in what is linked of it: code, constants, tables, data that is not zero.
pub fn linked_bytes(bytes: &[u8]) -> Option<u64> {
    let sections = sections(bytes)?;
    let linked = sections.iter().filter(|section| section.flags & ALLOC != 0);
    Some(linked.map(|section| section.content.len() as u64).sum())
}

/// The little-endian number at a place.
pub fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at.checked_add(8)?)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file of these sections (kind, flags, bytes), its headers at the end.
    fn file(sections: &[(u32, u64, &[u8])]) -> Vec<u8> {
        let mut bytes = vec![0; 64];
        bytes[..6].copy_from_slice(b"\x7fELF\x02\x01");
        let mut headers = Vec::new();
        for (kind, flags, content) in sections {
            let mut header = [0; 64];
            header[4..8].copy_from_slice(&kind.to_le_bytes());
            header[8..16].copy_from_slice(&flags.to_le_bytes());
            header[24..32].copy_from_slice(&(bytes.len() as u64).to_le_bytes());
            header[32..40].copy_from_slice(&(content.len() as u64).to_le_bytes());
            headers.extend(header);
            bytes.extend(*content);
        }
        let table = bytes.len() as u64;
        bytes[40..48].copy_from_slice(&table.to_le_bytes());
        bytes[60..62].copy_from_slice(&u16::try_from(sections.len()).unwrap().to_le_bytes());
        bytes.extend(headers);
        bytes
    }

    #[test]
    fn only_what_is_linked_counts() {
        let made = file(&[(1, 6, b"code"), (1, 0, b"a comment"), (NOBITS, 3, b""), (1, 2, b"const")]);
        assert_eq!(linked_bytes(&made), Some(9));
        assert_eq!(sections(&made).unwrap()[1].content, b"a comment");
    }

    #[test]
    fn what_leads_out_of_the_file_is_no_section() {
        let mut made = file(&[(1, 2, b"code")]);
        let header = made.len() - 64;
        made[header + 32..header + 40].copy_from_slice(&u64::MAX.to_le_bytes());
        assert_eq!(linked_bytes(&made), None);
        assert_eq!(linked_bytes(b"\x7fELF"), None);
    }
}

//! The kernel by the folders of its source. In: a built tree. Out: bytes of each folder's objects that are linked, and the
//! unpacked kernel's size. Must never: estimate: what no object accounts for (names of functions, tables that the linker
//! and objtool make, padding) is in no folder.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::elf;

/// What is linked of the kernel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Folders {
    /// Bytes of the kernel as the boot code unpacks it, padding between its segments included.
    pub unpacked: u64,
    /// Bytes by folder, each without those below it.
    pub folders: BTreeMap<String, u64>,
}

/// Reads the objects that `members` (lines, relative to `tree`) names.
pub fn measure(tree: &Path, members: &str) -> Result<Folders> {
    let unpacked = tree.join("arch/x86/boot/compressed/vmlinux.bin");
    let unpacked =
        unpacked.metadata().with_context(|| format!("{}: cannot look at", unpacked.display()))?.len();
    let mut folders: BTreeMap<String, u64> = BTreeMap::new();
    for member in members.lines().filter(|line| !line.is_empty()) {
        let path = tree.join(member);
        let bytes = std::fs::read(&path).with_context(|| format!("{}: cannot read", path.display()))?;
        let linked = elf::linked_bytes(&bytes).with_context(|| format!("{}: no object", path.display()))?;
        let folder = Path::new(member).parent().unwrap_or(Path::new("")).to_string_lossy().into_owned();
        *folders.entry(folder).or_default() += linked;
    }
    Ok(Folders { unpacked, folders })
}

impl Folders {
    /// The file that `measure`'s result was written to.
    pub fn load(path: &Path) -> Result<Self> {
        let text = std::fs::read(path).with_context(|| format!("{}: cannot read", path.display()))?;
        serde_json::from_slice(&text).with_context(|| format!("{}: not such a list", path.display()))
    }

    /// Bytes by subsystem (the first two folders of a path), the largest first.
    pub fn subsystems(&self) -> Vec<(String, u64)> {
        let mut sums: BTreeMap<String, u64> = BTreeMap::new();
        for (folder, bytes) in &self.folders {
            let name = folder.split('/').take(2).collect::<Vec<_>>().join("/");
            *sums.entry(name).or_default() += bytes;
        }
        let mut sums: Vec<_> = sums.into_iter().collect();
        sums.sort_by(|one, other| other.1.cmp(&one.1).then_with(|| one.0.cmp(&other.0)));
        sums
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subsystems_are_two_folders_deep_and_the_largest_comes_first() {
        let folders = BTreeMap::from([
            ("drivers/net".to_owned(), 5),
            ("drivers/net/ethernet/intel/igb".to_owned(), 70),
            ("mm".to_owned(), 20),
        ]);
        let subsystems = Folders { unpacked: 100, folders }.subsystems();
        let rows: Vec<(&str, u64)> = subsystems.iter().map(|(name, bytes)| (name.as_str(), *bytes)).collect();
        assert_eq!(rows, [("drivers/net", 75), ("mm", 20)]);
    }
}

//! One type per thing built. In: a file in the cache. Out: its path, hash and size, under a name that the compiler
//! tells apart. Must never: hold a file that was not finished and checked.

use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// A finished file with what is known of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Artifact {
    /// Where it lies, absolute.
    pub path: PathBuf,
    /// Lower-case hexadecimal sha256 of its content.
    pub sha256: String,
    /// Bytes.
    pub size: u64,
    /// Key of the stage that made it.
    pub key: String,
}

/// The kernel: bzImage, the configuration it was built with, and what is in it.
#[derive(Debug, Clone)]
pub struct Kernel {
    /// `bzImage`.
    pub image: Artifact,
    /// The final `.config`.
    pub config: Artifact,
    /// `folders.json`: bytes by folder of the source.
    pub folders: Artifact,
}

/// The static BusyBox, and its applet paths (one a line, relative to `/`, as `busybox.links` has them).
#[derive(Debug, Clone)]
pub struct BusyBox {
    /// The program.
    pub program: Artifact,
    /// `busybox.links`.
    pub links: Artifact,
}

/// The static Tini.
#[derive(Debug, Clone)]
pub struct Tini(pub Artifact);

/// iproute2's static `ip`.
#[derive(Debug, Clone)]
pub struct Ip(pub Artifact);

/// Our static program, `coracle`.
#[derive(Debug, Clone)]
pub struct RuntimeProgram {
    /// The program.
    pub program: Artifact,
    /// `crates.json`: name, version and licence of each crate that is compiled into it.
    pub crates: Artifact,
}

/// The compressed cpio archive, and the list of what is in it (JSON, for `size`).
#[derive(Debug, Clone)]
pub struct Initramfs {
    /// `initramfs.cpio.gz`.
    pub archive: Artifact,
    /// `contents.json`: path, kind and bytes of each entry.
    pub contents: Artifact,
}

/// The texts of all licences, `licences.txt`.
#[derive(Debug, Clone)]
pub struct Licences(pub Artifact);

/// The hybrid BIOS+UEFI image.
#[derive(Debug, Clone)]
pub struct Iso(pub Artifact);

/// Lower-case hexadecimal sha256 of `bytes`.
pub fn sha256_bytes(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// Lower-case hexadecimal sha256 and length in bytes of the file at `path`.
pub fn sha256_file(path: &Path) -> Result<(String, u64)> {
    let mut file = std::fs::File::open(path).with_context(|| format!("{}: cannot open", path.display()))?;
    sha256_reader(&mut file).with_context(|| format!("{}: cannot read", path.display()))
}

/// Lower-case hexadecimal sha256 and length in bytes of all that `reader` yields.
pub fn sha256_reader(reader: &mut dyn Read) -> std::io::Result<(String, u64)> {
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 18];
    let mut length = 0;
    loop {
        match reader.read(&mut buffer) {
            Ok(0) => return Ok((hex(&hasher.finalize()), length)),
            Ok(count) => {
                hasher.update(&buffer[..count]);
                length += count as u64;
            }
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Lower-case hexadecimal text of `bytes`.
pub fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

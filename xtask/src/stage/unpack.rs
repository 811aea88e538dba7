//! Tarball -> tree. In: a verified tarball (.tar.gz, .tar.bz2, .tar.xz). Out: the one top folder it holds, unpacked.
//! Must never: write outside the given folder (the tar crate refuses `..` and absolute names), or trust a hash that was
//! checked at another time: the bytes are hashed again while they are unpacked.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};

use crate::artifact::hex;
use crate::stage::fetch::Tarball;

/// Unpacks `tarball` into `into` and returns the path of its top folder.
pub fn run(tarball: &Tarball, into: &Path) -> Result<PathBuf> {
    let subject = || format!("{}: cannot unpack", tarball.path.display());
    std::fs::create_dir_all(into).with_context(|| format!("{}: cannot create", into.display()))?;
    let mut hashing =
        Hashing { inner: File::open(&tarball.path).with_context(subject)?, hasher: Sha256::new() };
    let name = tarball.path.to_string_lossy();
    let unpacked = {
        let decoder: Box<dyn Read + '_> = if name.ends_with(".gz") {
            Box::new(flate2::read::GzDecoder::new(&mut hashing))
        } else if name.ends_with(".bz2") {
            Box::new(bzip2::read::BzDecoder::new(&mut hashing))
        } else if name.ends_with(".xz") {
            Box::new(liblzma::read::XzDecoder::new(&mut hashing))
        } else {
            bail!("{name}: neither .tar.gz, .tar.bz2 nor .tar.xz");
        };
        let mut archive = tar::Archive::new(decoder);
        archive.set_preserve_mtime(true);
        archive.unpack(into)
    };
    // What follows the archive's end marker belongs to the hash as well.
    std::io::copy(&mut hashing, &mut std::io::sink()).with_context(subject)?;
    let found = hex(&hashing.hasher.finalize());
    if found != tarball.sha256 {
        bail!("{name}: has sha256 {found}, expected {}; remove it and run again", tarball.sha256);
    }
    // A damaged file would fail here as well; that its hash is wrong says more.
    unpacked.with_context(subject)?;
    top_folder(into)
}

struct Hashing {
    inner: File,
    hasher: Sha256,
}

impl Read for Hashing {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.hasher.update(&buffer[..count]);
        Ok(count)
    }
}

fn top_folder(dir: &Path) -> Result<PathBuf> {
    let entries: Vec<PathBuf> = std::fs::read_dir(dir)
        .with_context(|| format!("{}: cannot list", dir.display()))?
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .collect();
    match entries.as_slice() {
        [one] if one.is_dir() => Ok(one.clone()),
        _ => bail!("{}: expected one top folder in the tarball, found {}", dir.display(), entries.len()),
    }
}

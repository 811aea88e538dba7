//! Tarball -> tree. In: a verified tarball (.tar.gz, .tar.bz2, .tar.xz). Out: the one top folder it holds, unpacked.
//! Must never: write outside the given folder (the tar crate refuses `..` and absolute names), or trust a hash that was
//! checked at another time: the bytes are hashed again while they are unpacked.

use std::collections::BTreeMap;
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
    let unpacked = {
        let mut archive = tar::Archive::new(decoder(&tarball.path, &mut hashing)?);
        archive.set_preserve_mtime(true);
        archive.unpack(into)
    };
    verify(hashing, tarball)?;
    // A damaged file would fail here as well; that its hash is wrong says more.
    unpacked.with_context(subject)?;
    top_folder(into)
}

/// The files of `tarball` with these names below its top folder, by name; one that is not in it is an error.
pub fn files(tarball: &Tarball, names: &[String]) -> Result<BTreeMap<String, Vec<u8>>> {
    let subject = || format!("{}: cannot unpack", tarball.path.display());
    let mut hashing =
        Hashing { inner: File::open(&tarball.path).with_context(subject)?, hasher: Sha256::new() };
    let mut found = BTreeMap::new();
    {
        let mut archive = tar::Archive::new(decoder(&tarball.path, &mut hashing)?);
        for entry in archive.entries().with_context(subject)? {
            let mut entry = entry.with_context(subject)?;
            let path = entry.path().with_context(subject)?.into_owned();
            let inside: PathBuf = path.components().skip(1).collect();
            let Some(name) = names.iter().find(|name| inside == Path::new(name.as_str())) else { continue };
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).with_context(subject)?;
            found.insert(name.clone(), bytes);
            if found.len() == names.len() {
                break;
            }
        }
    }
    verify(hashing, tarball)?;
    match names.iter().find(|name| !found.contains_key(*name)) {
        Some(name) => bail!("{}: holds no {name}", tarball.path.display()),
        None => Ok(found),
    }
}

fn decoder<'a>(path: &Path, reader: &'a mut Hashing) -> Result<Box<dyn Read + 'a>> {
    let name = path.to_string_lossy();
    Ok(if name.ends_with(".gz") {
        Box::new(flate2::read::GzDecoder::new(reader))
    } else if name.ends_with(".bz2") {
        Box::new(bzip2::read::BzDecoder::new(reader))
    } else if name.ends_with(".xz") {
        Box::new(liblzma::read::XzDecoder::new(reader))
    } else {
        bail!("{name}: neither .tar.gz, .tar.bz2 nor .tar.xz");
    })
}

/// Reads the rest, and refuses a tarball whose bytes were not those of its pin.
fn verify(mut hashing: Hashing, tarball: &Tarball) -> Result<()> {
    let name = tarball.path.display();
    // What follows the archive's end marker belongs to the hash as well.
    std::io::copy(&mut hashing, &mut std::io::sink()).with_context(|| format!("{name}: cannot unpack"))?;
    let found = hex(&hashing.hasher.finalize());
    if found != tarball.sha256 {
        bail!("{name}: has sha256 {found}, expected {}; remove it and run again", tarball.sha256);
    }
    Ok(())
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

/// The one folder in `into`.
pub fn top_folder(dir: &Path) -> Result<PathBuf> {
    let entries: Vec<PathBuf> = std::fs::read_dir(dir)
        .with_context(|| format!("{}: cannot list", dir.display()))?
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .collect();
    match entries.as_slice() {
        [one] if one.is_dir() => Ok(one.clone()),
        _ => bail!("{}: expected one top folder in the tarball, found {}", dir.display(), entries.len()),
    }
}

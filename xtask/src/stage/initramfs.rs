//! Tree -> compressed cpio archive (the kernel's Documentation/driver-api/early-userspace/buffer-format.rst).
//! In: `Rootfs`. Out: initramfs.cpio.gz and the list of what is in it. Must never: need root, or let anything of this
//! machine in: entries are sorted, inode numbers counted, times clamped to the epoch, gzip's header empty.

use std::collections::BTreeMap;
use std::io::Write;

use anyhow::{Context, Result};
use cpio::newc::{Builder, trailer};
use flate2::{Compression, GzBuilder};
use serde::Serialize;

use crate::artifact::{Initramfs, sha256_bytes, sha256_file};
use crate::context::Build;
use crate::stage::rootfs::{Entry, Node, Rootfs};
use crate::stamp::{Inputs, produce};

const FILE_TYPE_FIFO: u32 = 0o010_000;
const FILE_TYPE_CHAR: u32 = 0o020_000;
const FILE_TYPE_FOLDER: u32 = 0o040_000;
const FILE_TYPE_BLOCK: u32 = 0o060_000;
const FILE_TYPE_FILE: u32 = 0o100_000;
const FILE_TYPE_SYMLINK: u32 = 0o120_000;

/// One line of the list of contents.
#[derive(Debug, Serialize)]
struct Content<'a> {
    path: &'a str,
    mode: String,
    bytes: u64,
}

/// Packs the tree.
pub fn run(build: &Build, rootfs: &Rootfs) -> Result<Initramfs> {
    let mut inputs = Inputs::new("initramfs", 1).text("epoch", &build.sources.epoch.to_string());
    for (path, entry) in rootfs.entries() {
        inputs = inputs.text(&format!("/{path}"), &describe(entry)?);
    }
    let [archive, contents] = produce(build, inputs, ["initramfs.cpio.gz", "contents.json"], |shop| {
        let path = shop.out.join("initramfs.cpio.gz");
        let file =
            std::fs::File::create(&path).with_context(|| format!("{}: cannot create", path.display()))?;
        let epoch = u32::try_from(build.sources.epoch)
            .context("sources.toml: epoch: does not fit into cpio's 32 bits")?;
        let mut packer = GzBuilder::new().mtime(0).operating_system(255).write(file, Compression::best());
        pack(rootfs, epoch, &mut packer)?;
        packer.finish().with_context(|| format!("{}: cannot write", path.display()))?;
        let list: Vec<Content> = rootfs
            .entries()
            .map(|(path, entry)| {
                Ok(Content { path, mode: format!("{:o}", entry.mode), bytes: content(entry)?.len() as u64 })
            })
            .collect::<Result<_>>()?;
        std::fs::write(shop.out.join("contents.json"), serde_json::to_vec_pretty(&list)?)
            .context("contents.json: cannot write")
    })?;
    Ok(Initramfs { archive, contents })
}

/// What of an entry goes into the key.
fn describe(entry: &Entry) -> Result<String> {
    let node = match &entry.node {
        Node::File(path) => format!("file {}", sha256_file(path)?.0),
        Node::Bytes(bytes) => format!("file {}", sha256_bytes(bytes)),
        node => format!("{node:?}"),
    };
    Ok(format!("{node} {:o} {}:{}", entry.mode, entry.uid, entry.gid))
}

fn content(entry: &Entry) -> Result<Vec<u8>> {
    match &entry.node {
        Node::File(path) => std::fs::read(path).with_context(|| format!("{}: cannot read", path.display())),
        Node::Bytes(bytes) => Ok(bytes.clone()),
        Node::Symlink(target) => Ok(target.clone().into_bytes()),
        _ => Ok(Vec::new()),
    }
}

/// Writes the archive, uncompressed, to `out`. Names of one file share an inode number; the kernel takes the content
/// from the last of them, so only that one carries it.
fn pack(rootfs: &Rootfs, epoch: u32, out: &mut impl Write) -> Result<()> {
    let groups = Groups::of(rootfs);
    for (index, (path, entry)) in rootfs.entries().enumerate() {
        let own = u32::try_from(index + 1).context("too many files for one archive")?;
        let group = groups.by_path.get(path);
        let (inode, links) = group.map_or((own, 1), |group| (group.inode, group.links));
        let carries = group.is_none_or(|group| group.last == path);
        let source = group.map_or(entry, |group| group.source);
        let bytes = if carries { content(source)? } else { Vec::new() };
        let (kind, major, minor) = match &source.node {
            Node::Folder => (FILE_TYPE_FOLDER, 0, 0),
            Node::File(_) | Node::Bytes(_) | Node::Hardlink(_) => (FILE_TYPE_FILE, 0, 0),
            Node::Symlink(_) => (FILE_TYPE_SYMLINK, 0, 0),
            Node::CharDevice(major, minor) => (FILE_TYPE_CHAR, *major, *minor),
            Node::BlockDevice(major, minor) => (FILE_TYPE_BLOCK, *major, *minor),
            Node::Fifo => (FILE_TYPE_FIFO, 0, 0),
        };
        let size =
            u32::try_from(bytes.len()).with_context(|| format!("/{path}: too big for cpio (4 GiB)"))?;
        let header = Builder::new(path)
            .ino(inode)
            .mode(kind | source.mode)
            .uid(source.uid)
            .gid(source.gid)
            .nlink(if matches!(source.node, Node::Folder) { 2 } else { links })
            .mtime(epoch)
            .rdev_major(major)
            .rdev_minor(minor);
        let mut writer = header.write(&mut *out, size);
        writer.write_all(&bytes).with_context(|| format!("/{path}: cannot write"))?;
        writer.finish().with_context(|| format!("/{path}: cannot write"))?;
    }
    trailer(out).context("cannot write the archive's end")?;
    Ok(())
}

/// Which paths are names of one file.
struct Groups<'a> {
    by_path: BTreeMap<&'a str, Group<'a>>,
}

#[derive(Clone, Copy)]
struct Group<'a> {
    inode: u32,
    links: u32,
    /// The name that carries the content: the last in order.
    last: &'a str,
    source: &'a Entry,
}

impl<'a> Groups<'a> {
    fn of(rootfs: &'a Rootfs) -> Self {
        let mut names: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for (path, entry) in rootfs.entries() {
            if let Node::Hardlink(first) = &entry.node {
                names.entry(first).or_default().push(path);
            }
        }
        let index: BTreeMap<&str, (u32, &Entry)> =
            rootfs.entries().zip(1..).map(|((path, entry), number)| (path, (number, entry))).collect();
        let mut by_path = BTreeMap::new();
        for (first, mut others) in names {
            // A link whose first name is missing would be an empty file; `Rootfs` never makes one.
            let Some(&(inode, source)) = index.get(first) else { continue };
            others.push(first);
            others.sort_unstable();
            let links = u32::try_from(others.len()).unwrap_or(u32::MAX);
            let last = others.last().copied().unwrap_or(first);
            by_path.extend(others.iter().map(|&path| (path, Group { inode, links, last, source })));
        }
        Self { by_path }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree() -> Rootfs {
        let mut rootfs = Rootfs::default();
        let file = |node| Entry { node, mode: 0o755, uid: 0, gid: 0 };
        rootfs.add("usr/bin/coracle", file(Node::Bytes(b"program".to_vec()))).unwrap();
        rootfs.add("usr/bin/runc", file(Node::Hardlink("usr/bin/coracle".into()))).unwrap();
        rootfs
            .add("dev/console", Entry { node: Node::CharDevice(5, 1), mode: 0o600, uid: 0, gid: 5 })
            .unwrap();
        rootfs
    }

    #[test]
    fn hard_links_share_an_inode_and_the_last_carries_the_content() {
        let mut bytes = Vec::new();
        pack(&tree(), 7, &mut bytes).unwrap();
        let mut seen = Vec::new();
        let mut rest = std::io::Cursor::new(bytes);
        loop {
            let reader = cpio::newc::Reader::new(rest).unwrap();
            if reader.entry().is_trailer() {
                break;
            }
            let entry = reader.entry();
            assert_eq!(entry.mtime(), 7);
            seen.push((entry.name().to_owned(), entry.ino(), entry.file_size(), entry.nlink()));
            rest = reader.finish().unwrap();
        }
        let coracle = seen.iter().find(|entry| entry.0 == "usr/bin/coracle").unwrap();
        let runc = seen.iter().find(|entry| entry.0 == "usr/bin/runc").unwrap();
        assert_eq!((coracle.1, coracle.2, coracle.3), (runc.1, 0, 2));
        assert_eq!(runc.2, 7);
        assert_eq!(
            seen.iter().map(|entry| entry.0.as_str()).collect::<Vec<_>>(),
            ["dev", "dev/console", "usr", "usr/bin", "usr/bin/coracle", "usr/bin/runc"]
        );
    }

    #[test]
    fn the_archive_does_not_depend_on_the_order_of_adding() {
        let mut one = Vec::new();
        pack(&tree(), 7, &mut one).unwrap();
        let mut other = Rootfs::default();
        for (path, entry) in tree().entries().collect::<Vec<_>>().into_iter().rev() {
            if entry.node != Node::Folder {
                other.add(path, entry.clone()).unwrap();
            }
        }
        let mut two = Vec::new();
        pack(&other, 7, &mut two).unwrap();
        assert_eq!(one, two);
    }
}

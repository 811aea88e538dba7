//! `NAME=DIR` -> an OCI bundle below /containers/NAME. In: a folder of this machine with config.json and the root file
//! system that it names. Out: entries with the folder's own owners, modes and hard links, and a list of extended
//! attributes that /etc/rc applies at boot (`coracle xattrs`), since the cpio format has no room for them.
//! Must never: follow a symbolic link out of the bundle.

use std::collections::BTreeMap;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Component::{CurDir, Normal};
use std::path::Path;

use anyhow::{Context, Result, bail};

use super::{Entry, Node, Rootfs};
use crate::cli::BundleArg;

/// Extended attributes that /etc/rc applies: one line each, `PATH<tab>NAME<tab>0xHEX`.
pub const XATTR_LIST: &str = "etc/coracle/xattrs";

/// Adds the bundle that `argument` names; `taken` tells that the image has one of that name already. Errors name the
/// subject below the argument; the argument itself is the caller's to name.
pub fn add(rootfs: &mut Rootfs, argument: &BundleArg, taken: bool) -> Result<()> {
    let home = format!("containers/{}", argument.name);
    if taken || rootfs.entries.contains_key(&home) {
        bail!("the image has a /{home} already; choose another name");
    }
    let dir = argument.dir.as_path();
    let config = dir.join("config.json");
    let text = std::fs::read(&config).with_context(|| {
        format!("{}: cannot read; a bundle is a folder with config.json", config.display())
    })?;
    let json: serde_json::Value =
        serde_json::from_slice(&text).with_context(|| format!("{}: is not JSON", config.display()))?;
    let root = json.pointer("/root/path").and_then(|path| path.as_str());
    let root = root.with_context(|| format!("{}: root.path: is missing or no string", config.display()))?;
    let inside = Path::new(root).components().all(|part| matches!(part, Normal(_) | CurDir));
    if !inside || !dir.join(root).is_dir() {
        bail!("{}: root.path: {root:?} is no folder in the bundle", config.display());
    }
    let mut links = BTreeMap::new();
    let mut attributes = String::new();
    add_folder(rootfs, dir, &home, &mut links, &mut attributes)?;
    append_attributes(rootfs, attributes);
    Ok(())
}

fn append_attributes(rootfs: &mut Rootfs, attributes: String) {
    if attributes.is_empty() {
        return;
    }
    rootfs.folder("etc/coracle", 0o755);
    let entry = rootfs
        .entries
        .entry(XATTR_LIST.to_owned())
        .or_insert_with(|| Entry::root(Node::Bytes(Vec::new()), 0o600));
    if let Node::Bytes(bytes) = &mut entry.node {
        bytes.extend_from_slice(attributes.as_bytes());
    }
}

/// Adds `dir` as `inside` and everything below it. `links` knows the first name of each file with several.
fn add_folder(
    rootfs: &mut Rootfs,
    dir: &Path,
    inside: &str,
    links: &mut BTreeMap<(u64, u64), String>,
    attributes: &mut String,
) -> Result<()> {
    add_node(rootfs, dir, inside, links, attributes)?;
    let listing = std::fs::read_dir(dir).with_context(|| format!("{}: cannot list", dir.display()))?;
    let mut paths = Vec::new();
    for item in listing {
        paths.push(item.with_context(|| format!("{}: cannot list", dir.display()))?.path());
    }
    // The first name of a hard-linked file must not depend on the listing's order.
    paths.sort();
    for path in paths {
        let name = path.file_name().and_then(|name| name.to_str());
        let name = name.with_context(|| format!("{}: its name is not UTF-8", path.display()))?;
        let inside = format!("{inside}/{name}");
        let facts = path.symlink_metadata().with_context(|| format!("{}: cannot look at", path.display()))?;
        if facts.is_dir() {
            add_folder(rootfs, &path, &inside, links, attributes)?;
        } else {
            add_node(rootfs, &path, &inside, links, attributes)?;
        }
    }
    Ok(())
}

fn add_node(
    rootfs: &mut Rootfs,
    path: &Path,
    inside: &str,
    links: &mut BTreeMap<(u64, u64), String>,
    attributes: &mut String,
) -> Result<()> {
    let facts = path.symlink_metadata().with_context(|| format!("{}: cannot look at", path.display()))?;
    let kind = facts.file_type();
    let device = || {
        let number = facts.rdev();
        (rustix::fs::major(number), rustix::fs::minor(number))
    };
    let node = if kind.is_dir() {
        Node::Folder
    } else if let Some(first) = links.get(&(facts.dev(), facts.ino())) {
        Node::Hardlink(first.clone())
    } else if kind.is_file() {
        // A file that can't be read would be found out only after everything was built.
        std::fs::File::open(path).with_context(|| format!("{}: cannot read", path.display()))?;
        if facts.nlink() > 1 {
            links.insert((facts.dev(), facts.ino()), inside.to_owned());
        }
        Node::File(path.to_owned())
    } else if kind.is_symlink() {
        let target = path.read_link().with_context(|| format!("{}: cannot read", path.display()))?;
        Node::Symlink(
            target
                .to_str()
                .with_context(|| format!("{}: its target is not UTF-8", path.display()))?
                .to_owned(),
        )
    } else if kind.is_char_device() {
        let (major, minor) = device();
        Node::CharDevice(major, minor)
    } else if kind.is_block_device() {
        let (major, minor) = device();
        Node::BlockDevice(major, minor)
    } else if kind.is_fifo() {
        Node::Fifo
    } else {
        bail!("{}: a socket can't be put into an image; remove it", path.display());
    };
    if !matches!(node, Node::Hardlink(_)) {
        list_attributes(path, inside, attributes)?;
    }
    rootfs.add(inside, Entry { node, mode: facts.mode() & 0o7777, uid: facts.uid(), gid: facts.gid() })
}

/// Notes the extended attributes of `path`; a file system without any has none.
fn list_attributes(path: &Path, inside: &str, attributes: &mut String) -> Result<()> {
    use rustix::io::Errno;
    let subject = || format!("{}: cannot read its extended attributes", path.display());
    let mut names = vec![0_u8; 64 * 1024];
    let length = match rustix::fs::llistxattr(path, &mut names) {
        Ok(length) => length,
        Err(Errno::NOTSUP) => return Ok(()),
        Err(error) => return Err(error).with_context(subject),
    };
    let mut sorted: Vec<&[u8]> =
        names[..length].split(|&byte| byte == 0).filter(|name| !name.is_empty()).collect();
    sorted.sort_unstable();
    for name in sorted {
        let text = std::str::from_utf8(name).with_context(subject)?;
        let mut value = vec![0_u8; 64 * 1024];
        let length = rustix::fs::lgetxattr(path, text, &mut value).with_context(subject)?;
        if inside.contains(['\t', '\n']) {
            bail!("{}: has extended attributes and a tab or newline in its name; rename it", path.display());
        }
        attributes.push_str(&format!("/{inside}\t{text}\t0x{}\n", crate::artifact::hex(&value[..length])));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn bundle() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("rootfs/bin")).unwrap();
        std::fs::write(dir.path().join("config.json"), r#"{"root":{"path":"rootfs"}}"#).unwrap();
        std::fs::write(dir.path().join("rootfs/bin/b"), "program").unwrap();
        std::fs::hard_link(dir.path().join("rootfs/bin/b"), dir.path().join("rootfs/bin/a")).unwrap();
        std::os::unix::fs::symlink("b", dir.path().join("rootfs/bin/c")).unwrap();
        std::fs::set_permissions(dir.path().join("rootfs/bin/b"), std::fs::Permissions::from_mode(0o4711))
            .unwrap();
        dir
    }

    fn web(dir: &Path) -> BundleArg {
        BundleArg { name: "web".to_owned(), dir: dir.to_owned() }
    }

    #[test]
    fn modes_owners_and_links_are_kept() {
        let dir = bundle();
        let mut rootfs = Rootfs::default();
        add(&mut rootfs, &web(dir.path()), false).unwrap();
        let first = &rootfs.entries["containers/web/rootfs/bin/a"];
        assert_eq!((first.mode, first.uid), (0o4711, rustix::process::getuid().as_raw()));
        assert_eq!(
            rootfs.entries["containers/web/rootfs/bin/b"].node,
            Node::Hardlink("containers/web/rootfs/bin/a".into())
        );
        assert_eq!(rootfs.entries["containers/web/rootfs/bin/c"].node, Node::Symlink("b".into()));
    }

    #[test]
    fn extended_attributes_are_listed() {
        let dir = bundle();
        let path = dir.path().join("rootfs/bin/a");
        if rustix::fs::lsetxattr(&path, "user.colour", b"blue", rustix::fs::XattrFlags::empty()).is_err() {
            eprintln!("this file system has no user attributes");
            return;
        }
        let mut rootfs = Rootfs::default();
        add(&mut rootfs, &web(dir.path()), false).unwrap();
        let Node::Bytes(bytes) = &rootfs.entries[XATTR_LIST].node else { panic!("no list") };
        assert_eq!(bytes, b"/containers/web/rootfs/bin/a\tuser.colour\t0x626c7565\n");
    }

    #[test]
    fn what_is_no_bundle_is_refused_with_its_reason() {
        let dir = bundle();
        let dir = dir.path();
        let config = dir.join("config.json");
        let error = |dir: &Path| format!("{:#}", add(&mut Rootfs::default(), &web(dir), false).unwrap_err());
        assert!(error(&dir.join("rootfs")).contains("config.json: cannot read"));
        for (text, word) in [
            ("{", "is not JSON"),
            ("{}", "root.path: is missing"),
            (r#"{"root":{"path":7}}"#, "root.path: is missing or no string"),
            (r#"{"root":{"path":"missing"}}"#, "no folder in the bundle"),
            (r#"{"root":{"path":".."}}"#, "no folder in the bundle"),
            (r#"{"root":{"path":"/"}}"#, "no folder in the bundle"),
        ] {
            std::fs::write(&config, text).unwrap();
            assert!(error(dir).contains(word), "{text}: {}", error(dir));
        }
    }

    #[test]
    fn a_name_is_given_once() {
        let dir = bundle();
        let mut rootfs = Rootfs::default();
        assert!(add(&mut rootfs, &web(dir.path()), true).unwrap_err().to_string().contains("already"));
        add(&mut rootfs, &web(dir.path()), false).unwrap();
        assert!(add(&mut rootfs, &web(dir.path()), false).unwrap_err().to_string().contains("already"));
    }
}

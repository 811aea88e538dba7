//! Two folders that should be the same -> where they differ. In: files. Out: a line for each difference that leads
//! through ISO 9660, FAT, gzip and cpio to the file inside and its first bytes. Must never: call two files the same by
//! anything but all their bytes.

use std::collections::BTreeMap;
use std::io::{Cursor, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::context::Build;
use crate::stamp::remove_tree;

/// What differs between the files of `one` and `other`, but for those called one of `but`.
pub fn folders(build: &Build, one: &Path, other: &Path, but: &[&str]) -> Result<Vec<String>> {
    let room = build.layout.notes().join("differ");
    let result = Differ { build, room: room.clone(), count: 0, lines: Vec::new() }.run(one, other, but);
    remove_tree(&room)?;
    result
}

/// Bytes of each file of a compressed cpio archive, by its path with a leading slash. Names of one file have its bytes once.
pub fn archive_sizes(path: &Path) -> Result<BTreeMap<String, u64>> {
    let name = path.display().to_string();
    let entries = cpio_entries(&name, &gunzip(&name, &read(path)?)?)?;
    Ok(entries.into_iter().map(|(path, (_, content))| (format!("/{path}"), content.len() as u64)).collect())
}

struct Differ<'a> {
    build: &'a Build,
    /// For what is unpacked.
    room: PathBuf,
    count: u32,
    lines: Vec<String>,
}

/// An entry of a cpio archive: what its header says, and its content.
type CpioEntries = BTreeMap<String, (String, Vec<u8>)>;

impl Differ<'_> {
    fn run(mut self, one: &Path, other: &Path, but: &[&str]) -> Result<Vec<String>> {
        let wanted = |tree: BTreeMap<String, PathBuf>| {
            tree.into_iter().filter(|(name, _)| !but.contains(&name.as_str())).collect::<BTreeMap<_, _>>()
        };
        self.trees("", &wanted(tree(one)?), &wanted(tree(other)?))?;
        Ok(self.lines)
    }

    fn trees(
        &mut self,
        prefix: &str,
        one: &BTreeMap<String, PathBuf>,
        other: &BTreeMap<String, PathBuf>,
    ) -> Result<()> {
        for (name, path) in one {
            match other.get(name) {
                None => self.lines.push(format!("{prefix}{name}: only in the first")),
                Some(second) => self.bytes(&format!("{prefix}{name}"), &read(path)?, &read(second)?)?,
            }
        }
        let more = other.keys().filter(|name| !one.contains_key(*name));
        self.lines.extend(more.map(|name| format!("{prefix}{name}: only in the second")));
        Ok(())
    }

    /// Compares two files; what can be opened is, and only when nothing inside differs its own bytes are shown.
    fn bytes(&mut self, name: &str, one: &[u8], other: &[u8]) -> Result<()> {
        if one == other {
            return Ok(());
        }
        let before = self.lines.len();
        let both = |is: fn(&[u8]) -> bool| is(one) && is(other);
        if both(is_iso) {
            self.unpacked(name, one, other, |build, image, to| {
                let xorriso = build.host.require("xorriso")?;
                let mut command = Command::new(xorriso);
                command.args(["-osirrox", "on", "-indev"]).arg(image).args(["-extract", "/"]).arg(to);
                Ok(command)
            })?;
        } else if both(is_fat) {
            self.unpacked(name, one, other, |build, image, to| {
                let mut command = Command::new(build.host.require("mcopy")?);
                command.args(["-s", "-n", "-i"]).arg(image).arg("::/").arg(to);
                Ok(command)
            })?;
        } else if both(|bytes| bytes.starts_with(&[0x1f, 0x8b])) {
            self.bytes(&format!("{name}: gunzipped"), &gunzip(name, one)?, &gunzip(name, other)?)?;
        } else if both(|bytes| bytes.starts_with(b"070701")) {
            self.archives(name, &cpio_entries(name, one)?, &cpio_entries(name, other)?)?;
        }
        if self.lines.len() == before {
            self.lines.push(first_difference(name, one, other));
        }
        Ok(())
    }

    fn unpacked(
        &mut self,
        name: &str,
        one: &[u8],
        other: &[u8],
        unpack: impl Fn(&Build, &Path, &Path) -> Result<Command>,
    ) -> Result<()> {
        self.count += 1;
        let mut trees = Vec::new();
        for (side, bytes) in [("first", one), ("second", other)] {
            let dir = self.room.join(format!("{}-{side}", self.count));
            let (image, to) = (dir.join("image"), dir.join("files"));
            std::fs::create_dir_all(&to).with_context(|| format!("{}: cannot create", to.display()))?;
            std::fs::write(&image, bytes).with_context(|| format!("{}: cannot write", image.display()))?;
            let mut command = unpack(self.build, &image, &to)?;
            let done =
                command.stdin(Stdio::null()).output().with_context(|| format!("{command:?}: cannot run"))?;
            if !done.status.success() {
                bail!("{name}: cannot unpack: {}", String::from_utf8_lossy(&done.stderr).trim());
            }
            make_writable(&to)?;
            trees.push(tree(&to)?);
        }
        self.trees(&format!("{name}: /"), &trees[0], &trees[1])
    }

    fn archives(&mut self, name: &str, one: &CpioEntries, other: &CpioEntries) -> Result<()> {
        for (path, (header, content)) in one {
            let inside = format!("{name}: /{path}");
            let Some((second, bytes)) = other.get(path) else {
                self.lines.push(format!("{inside}: only in the first"));
                continue;
            };
            if header != second {
                self.lines.push(format!("{inside}: {header} and {second}"));
            }
            self.bytes(&inside, content, bytes)?;
        }
        let more = other.keys().filter(|path| !one.contains_key(*path));
        self.lines.extend(more.map(|path| format!("{name}: /{path}: only in the second")));
        Ok(())
    }
}

/// Files below `dir`, by their paths relative to it.
fn tree(dir: &Path) -> Result<BTreeMap<String, PathBuf>> {
    let mut files = BTreeMap::new();
    let mut folders = vec![dir.to_owned()];
    while let Some(folder) = folders.pop() {
        let entries =
            std::fs::read_dir(&folder).with_context(|| format!("{}: cannot list", folder.display()))?;
        for entry in entries {
            let path = entry.with_context(|| format!("{}: cannot list", folder.display()))?.path();
            if path.is_dir() {
                folders.push(path);
            } else {
                files.insert(path.strip_prefix(dir).unwrap_or(&path).display().to_string(), path);
            }
        }
    }
    Ok(files)
}

/// Folders keep the modes that they have in the image; what can't be written can't be removed.
fn make_writable(dir: &Path) -> Result<()> {
    std::fs::set_permissions(dir, PermissionsExt::from_mode(0o700))
        .with_context(|| format!("{}: cannot change its mode", dir.display()))?;
    for entry in std::fs::read_dir(dir).with_context(|| format!("{}: cannot list", dir.display()))?.flatten()
    {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            make_writable(&entry.path())?;
        }
    }
    Ok(())
}

fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).with_context(|| format!("{}: cannot read", path.display()))
}

fn is_iso(bytes: &[u8]) -> bool {
    bytes.get(32_769..32_774) == Some(b"CD001")
}

fn is_fat(bytes: &[u8]) -> bool {
    bytes.get(510..512) == Some(&[0x55, 0xaa]) && bytes.get(54..57) == Some(b"FAT")
}

fn gunzip(name: &str, bytes: &[u8]) -> Result<Vec<u8>> {
    let mut plain = Vec::new();
    flate2::read::GzDecoder::new(bytes)
        .read_to_end(&mut plain)
        .with_context(|| format!("{name}: cannot decompress"))?;
    Ok(plain)
}

fn cpio_entries(name: &str, bytes: &[u8]) -> Result<CpioEntries> {
    let mut entries = BTreeMap::new();
    let mut rest = Cursor::new(bytes);
    loop {
        let mut reader =
            cpio::newc::Reader::new(rest).with_context(|| format!("{name}: cannot read as cpio"))?;
        let entry = reader.entry();
        if entry.is_trailer() {
            return Ok(entries);
        }
        let header = format!(
            "mode {:o} owner {}:{} links {} inode {} time {} device {}:{}",
            entry.mode(),
            entry.uid(),
            entry.gid(),
            entry.nlink(),
            entry.ino(),
            entry.mtime(),
            entry.rdev_major(),
            entry.rdev_minor()
        );
        let path = entry.name().to_owned();
        let mut content = Vec::new();
        reader.read_to_end(&mut content).with_context(|| format!("{name}: /{path}: cannot read"))?;
        entries.insert(path, (header, content));
        rest = reader.finish().with_context(|| format!("{name}: cannot read as cpio"))?;
    }
}

/// Of text the first line, of anything else the first bytes.
fn first_difference(name: &str, one: &[u8], other: &[u8]) -> String {
    const SHOWN_BYTES: usize = 16;
    let at = one.iter().zip(other).take_while(|(one, other)| one == other).count();
    let lengths = if one.len() == other.len() {
        String::new()
    } else {
        format!(" ({} and {} bytes)", one.len(), other.len())
    };
    let line = |bytes: &[u8]| -> Option<String> {
        let text = std::str::from_utf8(bytes).ok().filter(|text| !text.contains('\0'))?;
        let begin = bytes[..at].iter().rposition(|&byte| byte == b'\n').map_or(0, |newline| newline + 1);
        Some(text.get(begin..)?.lines().next().unwrap_or_default().chars().take(120).collect())
    };
    if let (Some(first), Some(second)) = (line(one), line(other)) {
        let number = one[..at].iter().filter(|&&byte| byte == b'\n').count() + 1;
        return format!("{name}: line {number}{lengths}: {first:?} and {second:?}");
    }
    let hex = |bytes: &[u8]| {
        let end = bytes.len().min(at + SHOWN_BYTES);
        crate::artifact::hex(bytes.get(at..end).unwrap_or_default())
    };
    format!("{name}: byte {at}{lengths}: {} and {}", hex(one), hex(other))
}

#[cfg(test)]
mod tests {
    use super::*;
    use cpio::newc::{Builder, trailer};
    use flate2::{Compression, GzBuilder};
    use std::io::Write;

    fn archive(files: &[(&str, &[u8], u32)]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (name, content, mode) in files {
            let mut writer = Builder::new(name).mode(*mode).write(&mut bytes, content.len() as u32);
            writer.write_all(content).unwrap();
            writer.finish().unwrap();
        }
        trailer(&mut bytes).unwrap();
        let mut packer = GzBuilder::new().write(Vec::new(), Compression::fast());
        packer.write_all(&bytes).unwrap();
        packer.finish().unwrap()
    }

    fn build(dir: &Path) -> Build {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let sources = crate::sources::Sources::load(&root.join("xtask/sources.toml")).unwrap();
        Build {
            layout: crate::layout::Layout::new(dir.to_owned(), dir.join("cache")),
            sources,
            host: crate::host::Host::probe(),
            fetch: Default::default(),
            jobs: std::num::NonZeroUsize::MIN,
            incremental: false,
            ui: crate::ui::Ui::new(false),
        }
    }

    fn differences(one: &[(&str, &[u8])], other: &[(&str, &[u8])]) -> Vec<String> {
        let dir = tempfile::tempdir().unwrap();
        for (side, files) in [("one", one), ("other", other)] {
            for (name, bytes) in files {
                let path = dir.path().join(side).join(name);
                std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                std::fs::write(path, bytes).unwrap();
            }
        }
        let build = build(dir.path());
        folders(&build, &dir.path().join("one"), &dir.path().join("other"), &["but"]).unwrap()
    }

    #[test]
    fn what_is_the_same_says_nothing() {
        assert_eq!(differences(&[("a", b"x"), ("but", b"1")], &[("a", b"x"), ("but", b"2")]), [""; 0]);
    }

    #[test]
    fn a_file_on_one_side_alone_is_named() {
        assert_eq!(
            differences(&[("a", b""), ("b", b"")], &[("b", b""), ("c", b"")]),
            ["a: only in the first", "c: only in the second"]
        );
    }

    #[test]
    fn text_shows_its_line_and_bytes_their_offset() {
        assert_eq!(
            differences(
                &[("a", b"same\none\nx\n"), ("b", &[0, 1, 2, 3])],
                &[("a", b"same\ntwo\nx\n"), ("b", &[0, 1, 9])]
            ),
            ["a: line 2: \"one\" and \"two\"", "b: byte 2 (4 and 3 bytes): 0203 and 09"]
        );
    }

    #[test]
    fn an_archive_is_opened() {
        let one = archive(&[("etc/a", b"1", 0o644), ("bin/b", b"\0x", 0o755), ("c", b"", 0o644)]);
        let other = archive(&[("etc/a", b"1", 0o600), ("bin/b", b"\0y", 0o755)]);
        assert_eq!(
            differences(&[("i.gz", &one)], &[("i.gz", &other)]),
            [
                "i.gz: gunzipped: /bin/b: byte 1: 78 and 79",
                "i.gz: gunzipped: /c: only in the first",
                "i.gz: gunzipped: /etc/a: mode 644 owner 0:0 links 1 inode 0 time 0 device 0:0 and mode 600 owner 0:0 links 1 inode 0 time 0 device 0:0",
            ]
        );
        // The same content under another header.
        let mut again = one.clone();
        again[4] ^= 1;
        let said = differences(&[("i.gz", &one)], &[("i.gz", &again)]);
        assert!(said.len() == 1 && said[0].starts_with("i.gz: byte 4: "), "{said:?}");
    }

    #[test]
    fn an_image_is_opened_down_to_the_file_in_its_fat() {
        let host = crate::host::Host::probe();
        let tools = ["xorriso", "mformat", "mcopy"].map(|name| host.find(name));
        let [Some(xorriso), Some(mformat), Some(mcopy)] = tools else {
            eprintln!("skipped: needs xorriso and mtools, as the ISO does");
            return;
        };
        let image = |word: &str| {
            let dir = tempfile::tempdir().unwrap();
            let run = |program: &Path, words: &[&str]| {
                let mut command = Command::new(program);
                let done = command.args(words).current_dir(dir.path()).stdin(Stdio::null()).output().unwrap();
                assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
            };
            std::fs::create_dir(dir.path().join("tree")).unwrap();
            std::fs::write(dir.path().join("program"), word).unwrap();
            run(
                &mformat,
                &["-C", "-i", "tree/efi.img", "-T", "128", "-h", "1", "-s", "1", "-N", "12345678", "::"],
            );
            run(&mcopy, &["-i", "tree/efi.img", "program", "::/PROGRAM"]);
            let date = ["--modification-date=2026110100000000", "--set_all_file_dates", "=1793491200"];
            let words = [&["-as", "mkisofs", "-quiet", "-R", "-o", "out.iso"][..], &date, &["tree"]].concat();
            run(&xorriso, &words);
            std::fs::read(dir.path().join("out.iso")).unwrap()
        };
        let said = differences(&[("x.iso", &image("one"))], &[("x.iso", &image("two"))]);
        assert_eq!(said, ["x.iso: /efi.img: /PROGRAM: line 1: \"one\" and \"two\""]);
    }
}

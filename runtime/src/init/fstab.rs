//! /etc/fstab ([fstab(5)](https://man7.org/linux/man-pages/man5/fstab.5.html)) -> mounts, in its order. In: its text. Out:
//! what is mounted, and a sentence for each line that could not be. Must never: stop at one, or look for a device by label.

use std::ffi::CString;
use std::path::Path;

use rustix::io::Errno;
use rustix::mount::MountFlags;

const PATH: &str = "/etc/fstab";

/// Options that are no file system's own: the flag, and whether it is set.
const FLAGS: [(&str, MountFlags, bool); 17] = [
    ("ro", MountFlags::RDONLY, true),
    ("rw", MountFlags::RDONLY, false),
    ("nosuid", MountFlags::NOSUID, true),
    ("suid", MountFlags::NOSUID, false),
    ("nodev", MountFlags::NODEV, true),
    ("dev", MountFlags::NODEV, false),
    ("noexec", MountFlags::NOEXEC, true),
    ("exec", MountFlags::NOEXEC, false),
    ("sync", MountFlags::SYNCHRONOUS, true),
    ("async", MountFlags::SYNCHRONOUS, false),
    ("noatime", MountFlags::NOATIME, true),
    ("nodiratime", MountFlags::NODIRATIME, true),
    ("relatime", MountFlags::RELATIME, true),
    ("strictatime", MountFlags::STRICTATIME, true),
    ("bind", MountFlags::BIND, true),
    ("rbind", MountFlags::BIND, true),
    ("defaults", MountFlags::empty(), true),
];

/// A line.
#[derive(Debug, PartialEq, Eq)]
struct Line<'a> {
    source: &'a str,
    target: &'a str,
    kind: &'a str,
    flags: MountFlags,
    recursive: bool,
    /// The file system's own options, with commas between them.
    data: String,
}

/// Mounts each line; the reasons of those that could not be.
pub fn mount_all() -> Vec<String> {
    let text = match std::fs::read_to_string(PATH) {
        Ok(text) => text,
        Err(error) => return vec![format!("{PATH}: {error}")],
    };
    text.lines()
        .zip(1..)
        .filter_map(|(line, number)| {
            let done = parse(line).and_then(|line| line.map_or(Ok(()), |line| mount(&line)));
            done.err().map(|reason| format!("{PATH}:{number}: {reason}"))
        })
        .collect()
}

/// None: it asks for nothing.
fn parse(line: &str) -> Result<Option<Line<'_>>, String> {
    let mut fields = line.split_ascii_whitespace();
    let Some(source) = fields.next().filter(|source| !source.starts_with('#')) else { return Ok(None) };
    let (Some(target), Some(kind)) = (fields.next(), fields.next()) else {
        return Err("expected SOURCE TARGET TYPE [OPTIONS]".to_string());
    };
    let mut parsed =
        Line { source, target, kind, flags: MountFlags::empty(), recursive: false, data: String::new() };
    let mut own = Vec::new();
    for word in fields.next().unwrap_or("defaults").split(',') {
        if word == "noauto" {
            return Ok(None);
        }
        parsed.recursive |= word == "rbind";
        match FLAGS.iter().find(|(name, ..)| *name == word) {
            Some((_, flag, set)) => parsed.flags.set(*flag, *set),
            None => own.push(word),
        }
    }
    parsed.data = own.join(",");
    Ok(Some(parsed))
}

fn mount(line: &Line<'_>) -> Result<(), String> {
    let Line { source, target, kind, flags, .. } = *line;
    if !Path::new(target).exists() {
        std::fs::create_dir_all(target).map_err(|error| format!("{target}: cannot make it: {error}"))?;
    }
    let failed = |errno: Errno| format!("{source} ({kind}) at {target}: {errno}");
    if flags.contains(MountFlags::BIND) {
        if line.recursive {
            rustix::mount::mount_bind_recursive(source, target).map_err(failed)?;
        } else {
            rustix::mount::mount_bind(source, target).map_err(failed)?;
        }
        let rest = flags - MountFlags::BIND;
        if rest.is_empty() {
            return Ok(());
        }
        // A bind mount takes no flags when it is made.
        return rustix::mount::mount_remount(target, flags, c"").map_err(failed);
    }
    let data = CString::new(line.data.as_str()).map_err(|_| failed(Errno::INVAL))?;
    rustix::mount::mount(source, target, kind, flags, data.as_c_str()).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_flags_or_the_file_systems_own() {
        let line = parse("tmp\t/tmp  tmpfs nosuid,mode=1777,ro,size=1m,rw 0 0").unwrap().unwrap();
        assert_eq!((line.source, line.target, line.kind), ("tmp", "/tmp", "tmpfs"));
        assert_eq!((line.flags, line.data.as_str()), (MountFlags::NOSUID, "mode=1777,size=1m"));
        let line = parse("/a /b none rbind,ro").unwrap().unwrap();
        assert_eq!((line.flags, line.recursive), (MountFlags::BIND | MountFlags::RDONLY, true));
        let line = parse("proc /proc proc").unwrap().unwrap();
        assert_eq!((line.flags, line.data.as_str()), (MountFlags::empty(), ""));
    }

    #[test]
    fn what_asks_for_nothing_is_left_out() {
        for text in ["", "  ", "# proc /proc proc", "/dev/vda /data ext4 ro,noauto 0 0"] {
            assert_eq!(parse(text), Ok(None), "{text:?}");
        }
    }

    #[test]
    fn a_line_that_says_too_little_is_told() {
        assert!(parse("proc /proc").is_err());
    }

    #[test]
    fn each_line_of_the_image_is_understood() {
        let text = include_str!("../../../rootfs-overlay/etc/fstab");
        let lines: Vec<Line<'_>> = text.lines().filter_map(|line| parse(line).unwrap()).collect();
        assert!(lines.len() > 10);
        // Words that only mount(8) knows would end up here.
        for line in &lines {
            let own = line.data.split(',').filter(|word| !word.is_empty() && !word.contains('='));
            assert_eq!(
                own.collect::<Vec<_>>(),
                if line.kind == "cgroup2" { vec!["nsdelegate"] } else { vec![] }
            );
        }
    }
}

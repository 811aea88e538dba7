//! Builds that are disturbed: bytes flipped in the cache, two at once, a full disk, a kill at any stage. Each ends, by itself
//! or when run again, in the image that an undisturbed build makes.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::Child;

use crate::checkout::{Checkout, ended, linux, own_mounts, sha256, tarball, wait_until};

/// The stages that build something, in their order, each with a file that it makes.
const STAGES: [(&str, &str); 8] = [
    ("kernel", "bzImage"),
    ("busybox", "busybox"),
    ("tini", "tini"),
    ("iproute2", "ip"),
    ("runtime", "coracle"),
    ("initramfs", "initramfs.cpio.gz"),
    ("licences", "licences.txt"),
    ("iso", "coracle.iso"),
];

fn dist(checkout: &Checkout) -> BTreeMap<String, String> {
    let hash = |path: PathBuf| {
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        (name, sha256(&fs::read(path).unwrap()))
    };
    fs::read_dir(checkout.root().join("dist")).unwrap().map(|entry| hash(entry.unwrap().path())).collect()
}

fn undisturbed() -> BTreeMap<String, String> {
    let checkout = Checkout::new();
    checkout.run(&["iso"]).said(0, &[]);
    dist(&checkout)
}

#[test]
fn a_byte_flipped_in_any_artefact_is_noticed_and_the_artefact_made_again() {
    let checkout = Checkout::new();
    checkout.run(&["iso"]).said(0, &[]);
    let before = dist(&checkout);
    for (stage, file) in STAGES {
        let files = checkout.files_in_cache(&format!("built/{stage}"));
        let name = files.iter().find(|path| path.ends_with(file)).unwrap();
        let path = checkout.cache().join("built").join(stage).join(name);
        let whole = fs::read(&path).unwrap();
        let mut bytes = whole.clone();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(&path, bytes).unwrap();
        let noticed = format!("{}: not what was put there; building it again", path.display());
        let run = checkout.run(&["iso"]);
        // Once before the lock is had, once with it.
        assert_eq!((run.code, run.stderr.matches(&noticed).count()), (Some(0), 2), "{}", run.stderr);
        assert_eq!(fs::read(&path).unwrap(), whole, "{stage}");
        assert_eq!(dist(&checkout), before, "{stage}");
    }
}

#[test]
fn of_two_builds_at_once_in_one_checkout_one_waits_and_says_so() {
    let mut checkout = Checkout::new();
    let (begun, go) = (checkout.outside("begun"), checkout.outside("go"));
    let compile = format!(
        "echo x >> {}; while [ ! -e {} ]; do sleep 0.05; done; echo kernel > arch/x86/boot/bzImage",
        begun.display(),
        go.display()
    );
    let mut files = linux(&compile);
    files.push(("COPYING", "The terms of linux.\n".to_owned()));
    checkout.put_source("linux", &tarball(&files));
    let first = checkout.start(&["iso"]);
    wait_until("the compiler's start", || begun.exists());
    let mut second = checkout.start(&["iso"]);
    let mut lines = BufReader::new(second.stderr.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().contains("kernel  waiting: another run is at it")));
    fs::write(&go, "").unwrap();
    lines.for_each(|line| drop(line.unwrap()));
    assert!(first.wait_with_output().unwrap().status.success());
    assert!(second.wait().unwrap().success());
    assert_eq!(fs::read_to_string(&begun).unwrap(), "x\n", "compiled once");
    assert_eq!(dist(&checkout)["coracle.iso"], undisturbed()["coracle.iso"]);
}

#[test]
fn after_a_full_disk_the_next_run_makes_the_same_image() {
    let Some(launcher) = own_mounts() else { return };
    let checkout = Checkout::new();
    let built = checkout.cache().join("built");
    fs::create_dir_all(&built).unwrap();
    for kib in [4, 64, 1024] {
        let script = format!("mount -t tmpfs -o size={kib}k none '{}' && exec \"$@\"", built.display());
        let run = ended(checkout.shell(launcher, &script, &["iso"]));
        assert_eq!(run.code, Some(1), "{}", run.stderr);
        assert!(run.stderr.contains("No space left on device"), "{}", run.stderr);
        assert!(run.stderr.contains("error: stage ") && !run.stderr.contains("panicked"), "{}", run.stderr);
    }
    checkout.run(&["iso"]).said(0, &[]);
    assert_eq!(dist(&checkout), undisturbed());
}

/// Kills a build as soon as it says that `stage` is building.
fn kill_in(checkout: &Checkout, stage: &str) {
    let mut child = checkout.start(&["iso"]);
    let said = format!("{stage}  building");
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().trim_start() == said), "{stage} was never built");
    kill(&mut child);
    // Compilers that it started may still hold the pipe; the group was told, so they end too.
    lines.for_each(|line| drop(line.unwrap()));
}

fn kill(child: &mut Child) {
    let group = rustix::process::Pid::from_child(child);
    // It may have ended in this instant.
    let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
    child.wait().unwrap();
}

#[test]
fn killed_at_any_stage_and_run_again_it_makes_the_same_image() {
    let expected = undisturbed();
    for (stage, _) in STAGES {
        let checkout = Checkout::new();
        kill_in(&checkout, stage);
        checkout.run(&["iso"]).said(0, &[]);
        assert_eq!(dist(&checkout), expected, "killed in {stage}");
        let unfinished = |path: &PathBuf| path.to_string_lossy().contains("unfinished");
        assert!(!checkout.files_in_cache("built").iter().any(unfinished), "killed in {stage}");
    }
}

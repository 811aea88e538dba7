//! The command line and the machine's tools: what is wrong with them is said before anything is built.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use crate::checkout::{Checkout, ended};

/// Runs `words` and expects the exit status and the sentence, and that nothing was begun.
#[track_caller]
fn refused(checkout: &Checkout, words: &[&str], code: i32, sentence: &[&str]) {
    let run = checkout.run(words);
    run.said(code, &["error: "]);
    run.said(code, sentence);
    assert_eq!(run.stdout, "");
    assert!(run.stderr.trim_start().starts_with("error: "), "something was begun:\n{}", run.stderr);
    for begun in ["built", "locks"] {
        assert!(checkout.files_in_cache(begun).is_empty());
    }
    assert!(!checkout.root().join("dist").exists());
}

#[test]
fn an_unknown_flag_or_command_is_named() {
    let checkout = Checkout::new();
    refused(&checkout, &["iso", "--frobnicate"], 2, &["'--frobnicate'"]);
    refused(&checkout, &["frobnicate"], 2, &["'frobnicate'"]);
    refused(&checkout, &["--jobs", "0", "iso"], 2, &["'--jobs <N>'"]);
}

#[test]
fn a_mirror_that_is_not_there_is_named() {
    let words = ["--mirror", "no/such/folder", "fetch"];
    let sentence = "--mirror no/such/folder: neither a folder that exists nor an http(s) address";
    refused(&Checkout::new(), &words, 1, &[sentence]);
}

#[test]
fn a_cache_that_is_a_file_is_named() {
    let checkout = Checkout::new();
    fs::write(checkout.outside("file"), "").unwrap();
    let place = checkout.outside("file").display().to_string();
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_xtask"));
    command.args(["--cache-dir", &place, "kernel"]).current_dir(checkout.root());
    ended(command).said(1, &[&place, "Not a directory"]);
}

#[test]
fn wrong_options_of_qemu_are_refused() {
    let checkout = Checkout::new();
    let folder = checkout.root().display().to_string();
    for (options, code, sentence) in [
        (&["--publish", "nonsense"][..], 2, "'--publish <HOST:GUEST>': expected HOST:GUEST, two TCP ports"),
        (&["--publish", "8080:0"], 2, "two TCP ports from 1 to 65535"),
        (
            &["--publish", "80:1", "--publish", "80:2"],
            1,
            "--publish 80:2: port 80 of this machine is published",
        ),
        (&["--memory", "0"], 2, "'--memory <MIB>': 0 is not in"),
        (&["--cpus", "0"], 2, "'--cpus <N>': 0 is not in 1..=255"),
        (&["--disk", "missing.img"], 1, "--disk missing.img: cannot open the disk image: No such file"),
        (&["--disk", &folder], 1, "is a folder, not a disk image"),
        (&["--share", "missing"], 1, "--share missing: is not a folder that exists"),
        (&["--uefi", "--direct"], 2, "'--direct'"),
        (&["--bundle", "web=missing"], 1, "--bundle web=missing: missing/config.json: cannot read"),
    ] {
        let words: Vec<&str> = ["qemu"].iter().chain(options).copied().collect();
        refused(&checkout, &words, code, &[sentence]);
    }
}

#[test]
fn what_is_no_bundle_is_refused() {
    let checkout = Checkout::new();
    let bundle = |name: &str, config: &str| {
        let dir = checkout.outside(name);
        fs::create_dir_all(dir.join("rootfs")).unwrap();
        fs::write(dir.join("config.json"), config).unwrap();
        dir.display().to_string()
    };
    let good = bundle("good", r#"{"root":{"path":"rootfs"}}"#);
    let (text, empty) = (bundle("text", "hello"), bundle("empty", "{}"));
    let outside = bundle("outside", r#"{"root":{"path":"../good/rootfs"}}"#);
    for (argument, code, sentence) in [
        ("web".to_owned(), 2, "'--bundle <NAME=DIR>': expected NAME=DIR"),
        (format!("../x={good}"), 2, "\"../x\" is not a name"),
        (format!("web={text}"), 1, "config.json: is not JSON"),
        (format!("web={empty}"), 1, "config.json: root.path: is missing"),
        (format!("web={outside}"), 1, "root.path: \"../good/rootfs\" is no folder in the bundle"),
        (format!("mycontainer={good}"), 1, "the image has a /containers/mycontainer already"),
    ] {
        for verb in ["iso", "initramfs", "size"] {
            refused(&checkout, &[verb, "--bundle", &argument], code, &[sentence]);
        }
    }
    let twice = format!("web={good}");
    refused(&checkout, &["iso", "--bundle", &twice, "--bundle", &twice], 1, &["choose another name"]);
}

/// A folder with programs that are no more than `script`.
fn programs(checkout: &Checkout, names: &[&str], script: &str) -> String {
    let dir = checkout.outside("programs");
    fs::create_dir(&dir).unwrap();
    for name in names {
        fs::write(dir.join(name), script).unwrap();
        fs::set_permissions(dir.join(name), fs::Permissions::from_mode(0o755)).unwrap();
    }
    dir.display().to_string()
}

#[test]
fn missing_tools_are_named_all_at_once_with_the_command_that_installs_them() {
    let checkout = Checkout::new();
    let path = programs(&checkout, &["apt-get"], "");
    let with_path = |words: &[&str]| {
        let mut command = checkout.command(words);
        command.env("PATH", &path);
        ended(command)
    };
    let run = with_path(&["iso"]);
    run.said(1, &["error: this machine lacks: gcc, ld, make, flex, bison, bc, perl, zstd, "]);
    run.said(
        1,
        &[" xorriso, mformat\n", "install them with:\n    apt-get install -y --no-install-recommends bc "],
    );
    run.said(1, &["cargo xtask --install-deps"]);
    assert!(checkout.files_in_cache("built").is_empty());
    // Only what the command needs.
    assert!(!with_path(&["tini"]).stderr.contains("flex"));
    let doctor = with_path(&["doctor"]);
    assert_eq!(doctor.code, Some(1));
    for tool in ["gcc", "make", "flex", "xorriso", "qemu-system-x86_64"] {
        assert!(doctor.stdout.contains(&format!("MISSING  {tool}\n")), "{}", doctor.stdout);
    }
    assert!(doctor.stdout.contains("apt-get install -y"), "{}", doctor.stdout);
}

#[test]
fn an_installation_that_fails_is_said() {
    let checkout = Checkout::new();
    let path = programs(&checkout, &["apt-get"], "#!/bin/sh\necho no archive >&2\nexit 100\n");
    let mut command = checkout.command(&["--install-deps", "iso"]);
    command.env("PATH", &path);
    ended(command).said(1, &["no archive", "apt-get failed (exit status: 100); it needs root"]);
}

#[test]
fn without_a_package_manager_tools_are_to_be_installed_by_hand() {
    let checkout = Checkout::new();
    let path = programs(&checkout, &[], "");
    let mut command = checkout.command(&["iso"]);
    command.env("PATH", &path);
    ended(command).said(1, &["this machine lacks: gcc, ld, ", "install them by hand"]);
}

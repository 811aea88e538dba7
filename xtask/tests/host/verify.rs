//! `verify` as a process: two builds that are the same, two that are not, a release's hashes, the record.

use std::fs;
use std::process::Command;

use crate::checkout::{Checkout, linux, tarball};

/// A checkout that git knows, as `verify` needs it.
fn checkout() -> Checkout {
    let checkout = Checkout::new();
    checkout.write(".gitignore", "/dist\n/target\n");
    let done = Command::new("git").args(["init", "--quiet"]).current_dir(checkout.root()).status();
    assert!(done.unwrap().success());
    checkout
}

/// BusyBox that takes `from` into its program.
fn busybox(recipe: &str) -> Vec<u8> {
    let makefile = format!(
        "allnoconfig:\n\ttouch .config\noldconfig:\n\ttrue\nbusybox:\n\t{recipe}\nbusybox.links:\n\techo /bin/sh > $@\n"
    );
    tarball(&[
        ("Config.in", "config STATIC\n\tbool \"static\"\n".to_owned()),
        ("COPYING", "The terms of busybox.\n".to_owned()),
        ("Makefile", makefile),
    ])
}

#[test]
fn two_builds_are_the_same_and_a_release_is_rebuilt() {
    let checkout = checkout();
    checkout.run(&["iso"]).said(0, &[]);
    record(&checkout);
    // A release: as it is, and with one hash that is another.
    let release = checkout.outside("release");
    fs::create_dir(&release).unwrap();
    for name in ["SHA256SUMS", "manifest.json"] {
        fs::copy(checkout.root().join("dist").join(name), release.join(name)).unwrap();
    }
    let sums = release.join("SHA256SUMS");
    let run = checkout.run(&["verify", "--against", sums.to_str().unwrap()]);
    run.said(
        0,
        &[
            "two builds, the same to the bit: coracle.iso sha256 ",
            "otherwise in the second: folder, HOME, TZ",
            "it is the image recorded in xtask/image.toml",
            "this machine rebuilds every file of ",
        ],
    );
    assert!(!run.stderr.contains("taken from the cache"), "{}", run.stderr);
    assert!(!checkout.root().join("target/verify").exists());
    let text = fs::read_to_string(&sums).unwrap();
    let (rest, last) = text.trim_end().rsplit_once('\n').unwrap();
    fs::write(&sums, format!("{rest}\n{}{}\n", "0".repeat(64), &last[64..])).unwrap();
    let manifest = fs::read_to_string(release.join("manifest.json")).unwrap();
    fs::write(release.join("manifest.json"), manifest.replacen("\"gcc\": \"", "\"gcc\": \"other ", 1))
        .unwrap();
    let run = checkout.run(&["verify", "--quick", "--against", sums.to_str().unwrap()]);
    run.said(
        1,
        &["taken from the cache", "does not rebuild", "vmlinuz: 0000", "tools that differ:\n  gcc: other "],
    );
}

/// A move that git was told of, and that is not committed: the second build has the file where it is now, and only there.
#[test]
fn a_file_that_was_moved_is_moved_in_the_second_build_too() {
    let checkout = checkout();
    checkout.write("runtime/oci/src/old.rs", "");
    let git = |words: &[&str]| {
        let mut git = Command::new("git");
        git.args(["-c", "user.name=test", "-c", "user.email=test@example.org"]).args(words);
        assert!(git.current_dir(checkout.root()).status().unwrap().success());
    };
    git(&["add", "--all"]);
    git(&["commit", "--quiet", "--message", "All"]);
    git(&["mv", "runtime/oci/src/old.rs", "runtime/oci/src/new.rs"]);
    checkout.run(&["iso"]).said(0, &[]);
    record(&checkout);
    checkout.run(&["verify"]).said(0, &["two builds, the same to the bit"]);
}

#[test]
fn a_kernel_of_a_kept_tree_enters_the_cache_when_a_clean_one_is_the_same() {
    let mut checkout = checkout();
    let in_cache = |checkout: &Checkout| !checkout.files_in_cache("built/kernel").is_empty();
    checkout.run(&["--incremental", "verify", "--quick", "--record"]).said(0, &["taken from the cache"]);
    assert!(!in_cache(&checkout), "nothing was compared");
    let adopted = "the kernel of the kept tree is that of a clean one, and is in the cache now";
    checkout.run(&["--incremental", "verify"]).said(0, &[adopted]);
    checkout.run(&["kernel", "-v"]).said(0, &["skipped: nothing it is made of changed"]);
    // One that took in what an earlier run left is another than a clean one, and stays out.
    let mut files = linux("echo x >> compiled; cat compiled > arch/x86/boot/bzImage");
    files.push(("COPYING", "The terms of linux.\n".to_owned()));
    checkout.put_source("linux", &tarball(&files));
    checkout.run(&["--incremental", "kernel"]).said(0, &[]);
    checkout.write("kernel-config/20-more.config", "CONFIG_NETFILTER=y\n");
    let before = checkout.files_in_cache("built/kernel");
    let run = checkout.run(&["--incremental", "verify"]);
    run.said(1, &["two builds made different files"]);
    assert_eq!(checkout.files_in_cache("built/kernel"), before);
    remove_second(&run.stderr);
}

#[test]
fn a_build_that_takes_its_circumstances_in_is_told_by_stage_file_and_line() {
    let mut checkout = checkout();
    checkout.put_source("busybox", &busybox("printf '#!/bin/sh\\n# %s\\n' \"$$TMPDIR$$HOME\" > $@"));
    let run = checkout.run(&["verify", "--quick"]);
    run.said(
        1,
        &[
            "error: two builds made different files; the first stage that differs, from the same inputs: busybox\n",
            "coracle.iso: /boot/initramfs.cpio.gz: gunzipped: /usr/lib/coracle/rootfs/bin/sh: line 2",
            "\n  initramfs.cpio.gz: gunzipped: /usr/lib/coracle/rootfs/bin/sh: line 2",
            "the second build lies in ",
        ],
    );
    assert!(!run.stderr.contains("manifest.json: "), "what follows from it is not told: {}", run.stderr);
    remove_second(&run.stderr);
}

/// The second build, which stays for a look where it differs.
fn remove_second(said: &str) {
    let room = said.split("the second build lies in ").nth(1).unwrap().split(';').next().unwrap();
    assert!(std::path::Path::new(room).is_dir());
    fs::remove_dir_all(room).unwrap();
}

#[test]
fn another_image_than_the_recorded_one_is_an_error_unless_other_tools_made_it() {
    let checkout = checkout();
    let remedy = "`cargo xtask verify --quick --record`, and commit the file";
    checkout.run(&["verify", "--quick"]).said(1, &["xtask/image.toml: there is none; ", remedy]);
    record(&checkout);
    let path = checkout.root().join("xtask/image.toml");
    let recorded = fs::read_to_string(&path).unwrap();
    let line = recorded.lines().find(|line| line.starts_with("\"coracle.iso\"")).unwrap();
    let other = recorded.replace(line, &format!("\"coracle.iso\" = \"{}\"", "0".repeat(64)));
    fs::write(&path, other).unwrap();
    checkout
        .run(&["verify", "--quick"])
        .said(1, &["the same tools made another image of the same inputs there:\n  coracle.iso: 0000"]);
    // A change that nobody recorded, and then somebody.
    checkout.write("rootfs-overlay/etc/hostname", "another\n");
    let run = checkout.run(&["verify", "--quick"]);
    run.said(
        1,
        &["this checkout makes another image than the recorded one", "\n  coracle.iso: 0000", remedy],
    );
    record(&checkout);
    checkout.run(&["verify", "--quick"]).said(0, &["it is the image recorded in xtask/image.toml"]);
    // Another compiler there: nothing follows from another image here.
    let recorded = fs::read_to_string(&path).unwrap();
    fs::write(&path, recorded.replacen("gcc = \"", "gcc = \"other ", 1)).unwrap();
    checkout.write("rootfs-overlay/etc/hostname", "a third\n");
    let run = checkout.run(&["verify", "--quick"]);
    run.said(0, &["the image in xtask/image.toml was made by other tools: gcc: other "]);
}

fn record(checkout: &Checkout) {
    checkout.run(&["verify", "--quick", "--record"]).said(0, &["recorded in xtask/image.toml"]);
}

//! What lies beside the image, as a process makes it: hashes, bills of materials, provenance, licences, a signature, and the
//! sources that build the same image again.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::checkout::{Checkout, sha256};

fn dist(checkout: &Checkout) -> BTreeMap<String, Vec<u8>> {
    fs::read_dir(checkout.root().join("dist"))
        .unwrap()
        .map(|entry| {
            let path = entry.unwrap().path();
            (path.file_name().unwrap().to_str().unwrap().to_owned(), fs::read(path).unwrap())
        })
        .collect()
}

fn run(program: &str, words: &[&str], dir: &Path, input: &[u8]) -> bool {
    fs::write(dir.join("../input"), input).unwrap();
    let mut command = Command::new(program);
    let input = fs::File::open(dir.join("../input")).unwrap();
    command.args(words).current_dir(dir).stdin(input).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().unwrap().success()
}

#[test]
fn every_file_of_dist_is_in_the_hashes_and_the_provenance_names_it() {
    let checkout = Checkout::new();
    checkout.run(&["iso"]).said(0, &[]);
    let files = dist(&checkout);
    let sums = String::from_utf8(files["SHA256SUMS"].clone()).unwrap();
    let listed: BTreeMap<&str, &str> =
        sums.lines().map(|line| line.split_once("  ").unwrap()).map(|(hash, name)| (name, hash)).collect();
    let names: Vec<&str> = listed.keys().copied().collect();
    let expected = [
        "coracle",
        "coracle.cdx.json",
        "coracle.iso",
        "coracle.spdx.json",
        "initramfs.cpio.gz",
        "licences.txt",
        "manifest.json",
        "provenance.json",
        "vmlinuz",
    ];
    assert_eq!(names, expected);
    assert_eq!(files.len(), listed.len() + 1);
    assert!(listed.iter().all(|(name, hash)| *hash == sha256(&files[*name])), "{sums}");
    let provenance: serde_json::Value = serde_json::from_slice(&files["provenance.json"]).unwrap();
    let subjects = provenance["subject"].as_array().unwrap();
    assert_eq!(subjects.len(), listed.len() - 1);
    for subject in subjects {
        assert_eq!(subject["digest"]["sha256"], listed[subject["name"].as_str().unwrap()]);
    }
    let manifest: serde_json::Value = serde_json::from_slice(&files["manifest.json"]).unwrap();
    // All that bytes come from or through, and no version unsaid.
    for tool in ["gcc", "ld", "zstd", "awk", "musl", "the kernel's user-space headers", "xorriso", "mformat"]
    {
        assert!(manifest["tools"][tool].as_str().is_some_and(|version| !version.is_empty()), "{tool}");
    }
    let terms = String::from_utf8(files["licences.txt"].clone()).unwrap();
    for name in ["linux", "busybox", "tini", "iproute2"] {
        assert_eq!(terms.matches(&format!("The terms of {name}.")).count(), 1, "{terms}");
    }
}

#[test]
fn a_source_without_its_licence_file_stops_the_image() {
    let checkout = Checkout::new();
    let pins = checkout.sources_toml().replacen("\"COPYING\"", "\"COPYING.elsewhere\"", 1);
    checkout.write("xtask/sources.toml", &pins);
    checkout.run(&["iso"]).said(1, &["stage licences failed", "holds no COPYING.elsewhere"]);
    assert!(!checkout.root().join("dist").exists());
}

#[test]
fn what_sources_gathers_builds_the_same_image_without_a_network() {
    let checkout = Checkout::new();
    assert!(run("git", &["init", "--quiet"], &checkout.root(), b""));
    checkout.write(".gitignore", "/dist\n/target\n");
    checkout.run(&["iso"]).said(0, &[]);
    let (first, out) = (dist(&checkout), checkout.outside("out"));
    let path = out.to_str().unwrap();
    checkout.run(&["sources", "--pinned-only", "--out", path]).said(0, &["complete, but for GRUB's"]);
    assert!(run("sha256sum", &["--check", "--strict", "SHA256SUMS"], &out, b""));
    // Nothing of the first build is left: the tarballs come from there, or not at all.
    fs::remove_dir_all(checkout.cache()).unwrap();
    fs::remove_dir_all(checkout.root()).unwrap();
    fs::create_dir_all(checkout.root()).unwrap();
    let archive = out.join("coracle.tar.gz");
    assert!(run("tar", &["-xzf", archive.to_str().unwrap()], &checkout.root(), b""));
    checkout.run(&["--offline", "iso"]).said(
        1,
        &[
            "source linux 1 is not in the cache, and --offline",
            "source busybox 1 is not in the cache, and --offline",
        ],
    );
    checkout.run(&["--offline", "--mirror", path, "iso"]).said(0, &[]);
    let again = dist(&checkout);
    let different: Vec<&String> = first.keys().filter(|name| first.get(*name) != again.get(*name)).collect();
    assert_eq!(different, [""; 0]);
}

#[test]
fn sources_says_what_it_could_not_gather() {
    let mut checkout = Checkout::new();
    assert!(run("git", &["init", "--quiet"], &checkout.root(), b""));
    checkout.pin("tini", b"never there", &["http://127.0.0.1:9/tini-1.tar.gz"]);
    let out = checkout.outside("out");
    let run = checkout.run(&["--offline", "sources", "--pinned-only", "--out", out.to_str().unwrap()]);
    run.said(1, &["is not complete:", "source tini 1 is not in the cache"]);
    assert!(out.join("linux-1.tar.gz").is_file());
}

#[test]
fn a_signature_holds_for_these_hashes_and_goes_with_them() {
    let checkout = Checkout::new();
    let (root, key) = (checkout.root(), checkout.outside("key"));
    let key = key.to_str().unwrap();
    assert!(run("ssh-keygen", &["-q", "-t", "ed25519", "-N", "", "-f", key], &root, b""));
    checkout.run(&["iso", "--sign", "no-such-key"]).said(1, &["--sign no-such-key: no such file"]);
    checkout.run(&["iso", "--sign", key]).said(0, &["signed: "]);
    let public = fs::read_to_string(format!("{key}.pub")).unwrap();
    fs::write(checkout.outside("signers"), format!("builder {public}")).unwrap();
    let signers = checkout.outside("signers");
    // As the README has it.
    let words = ["-Y", "verify", "-f", signers.to_str().unwrap(), "-I", "builder", "-n", "coracle", "-s"];
    let words: Vec<&str> = words.into_iter().chain(["dist/SHA256SUMS.sig"]).collect();
    let sums = fs::read(root.join("dist/SHA256SUMS")).unwrap();
    assert!(run("ssh-keygen", &words, &root, &sums));
    assert!(!run("ssh-keygen", &words, &root, &[&sums[..], b"x"].concat()));
    checkout.run(&["iso"]).said(0, &[]);
    assert!(root.join("dist/SHA256SUMS.sig").exists(), "the hashes are the same");
    checkout.write("rootfs-overlay/etc/hostname", "another\n");
    checkout.run(&["iso"]).said(0, &[]);
    assert!(!root.join("dist/SHA256SUMS.sig").exists(), "it was for other hashes");
}

//! The stages as a process, over sources of a few lines: why one is skipped or run, a fragment that can't be had, Ctrl-C,
//! a full disk while the ISO is written.

use std::fs;
use std::path::PathBuf;

use crate::checkout::{Checkout, ended, interrupt, linux, own_mounts, sha256, tarball, wait_until};

/// The kernel stage's only file of this name in the cache.
fn in_cache(checkout: &Checkout, stage: &str, name: &str) -> PathBuf {
    let files = checkout.files_in_cache(&format!("built/{stage}"));
    let mut found = files.iter().filter(|file| file.ends_with(name));
    let file = found.next().unwrap_or_else(|| panic!("no {name} in {files:?}"));
    assert!(found.next().is_none(), "{files:?}");
    checkout.cache().join("built").join(stage).join(file)
}

fn kernel_log(checkout: &Checkout) -> String {
    fs::read_to_string(checkout.root().join("target/xtask/log/kernel.log")).unwrap()
}

#[test]
fn each_skip_and_rebuild_says_why() {
    let checkout = Checkout::new();
    checkout.run(&["kernel", "-v"]).said(0, &["because never built here"]);
    checkout.run(&["kernel", "-v"]).said(0, &["skipped: nothing it is made of changed"]);
    checkout.write("kernel-config/20-more.config", "CONFIG_NETFILTER=y\n");
    checkout.run(&["kernel", "-v"]).said(0, &["because kernel-config/20-more.config is new"]);
    checkout.write("kernel-config/20-more.config", "CONFIG_NETFILTER=y\nCONFIG_NFT_FIB_IPV6=y\n");
    checkout.run(&["kernel", "-v"]).said(0, &["because kernel-config/20-more.config changed"]);
    // What was built before is not built again, and without -v nothing is said of it.
    fs::remove_file(checkout.root().join("kernel-config/20-more.config")).unwrap();
    let run = checkout.run(&["kernel"]);
    assert_eq!((run.code, run.stderr.lines().count()), (Some(0), 1), "{}", run.stderr);
}

#[test]
fn what_was_altered_in_the_cache_is_built_again() {
    let checkout = Checkout::new();
    checkout.run(&["kernel"]).said(0, &[]);
    let image = in_cache(&checkout, "kernel", "bzImage");
    fs::write(&image, "kern").unwrap();
    let run = checkout.run(&["kernel"]);
    assert_eq!(run.code, Some(0));
    assert!(run.stderr.contains("not what was put there; building it again"), "{}", run.stderr);
    assert_eq!(fs::read_to_string(&image).unwrap(), "kernel\n");
}

#[test]
fn a_symbol_that_cant_be_had_stops_the_build_before_compiling() {
    let checkout = Checkout::new();
    checkout.write(
        "kernel-config/30-network.config",
        "CONFIG_NETFILTER=y\nCONFIG_NFT_FIB_IPV4=y\nCONFIG_NFT_FIB_IPV6=y\nCONFIG_NFT_FIB_INET=y\n",
    );
    let run = checkout.run(&["kernel"]);
    let expected = "error: stage kernel failed: 2 configuration symbols can't be had as asked:\n\
        kernel-config/30-network.config:2: CONFIG_NFT_FIB_IPV4=y was asked for, and it came out as n\n\
        \x20   NFT_FIB_IPV4 needs NF_TABLES_IPV4, which is n\n\
        kernel-config/30-network.config:4: CONFIG_NFT_FIB_INET=y was asked for, and it came out as n\n\
        \x20   NFT_FIB_INET needs NFT_FIB_IPV4, which is n\n\
        \x20       NFT_FIB_IPV4 needs NF_TABLES_IPV4, which is n\n";
    run.said(1, &[expected]);
    let log = kernel_log(&checkout);
    assert!(log.contains("olddefconfig") && !log.contains("bzImage"), "{log}");
    assert!(checkout.files_in_cache("built").is_empty());
    // The missing link mends it.
    checkout.write("kernel-config/20-more.config", "CONFIG_NF_TABLES_IPV4=y\n");
    checkout.run(&["kernel"]).said(0, &[]);
    assert!(kernel_log(&checkout).contains("bzImage"));
}

#[test]
fn a_recommended_setting_is_followed_or_waived_or_stops_the_build_before_compiling() {
    let checkout = Checkout::new();
    let list = |more: &str| {
        let text = format!("[sources]\nkspp = \"the test\"\n[wanted.kspp]\n64BIT = \"y\"\n{more}");
        checkout.write("xtask/hardening/recommendations.toml", &text);
    };
    list("NETFILTER = \"y\"\n");
    let expected = "error: stage kernel failed: a recommended setting of the kernel is not kept:\n    \
        NETFILTER: y is wanted (kspp), and n is present; ask for `CONFIG_NETFILTER=y` in a fragment of kernel-config/, \
        or say in xtask/hardening/recommendations.toml why it is `waived`\n";
    checkout.run(&["kernel"]).said(1, &[expected]);
    assert!(!kernel_log(&checkout).contains("bzImage"));
    assert!(checkout.files_in_cache("built").is_empty());
    list("NETFILTER = { value = \"y\", waived = \"the test says so\" }\n");
    checkout.run(&["kernel"]).said(0, &[]);
    // A kernel of the cache is judged by the list as it is now.
    list("64BIT_ONLY = \"y\"\n");
    checkout.run(&["kernel"]).said(1, &["64BIT_ONLY: y is wanted (kspp), and n is present"]);
    // What is followed needs no waiver.
    list("NETFILTER = { value = \"n\", waived = \"the test says so\" }\n");
    checkout.run(&["kernel"]).said(1, &["NETFILTER: n is wanted (kspp) and present, yet it is waived"]);
}

#[test]
fn the_table_of_settings_has_everybodys_values() {
    let checkout = Checkout::new();
    checkout.write("xtask/hardening/debian.config", "# Debian, the test\n# CONFIG_64BIT is not set\n");
    let run = checkout.run(&["kernel", "--hardening"]);
    run.said(0, &[]);
    let rows: Vec<Vec<&str>> = run.stdout.lines().map(|line| line.split_whitespace().collect()).collect();
    for expected in [["1", "0", "1", "all"].as_slice(), &["64BIT", "kspp", "y", "y", "n"]] {
        assert!(rows.iter().any(|row| row == expected), "{}", run.stdout);
    }
}

#[test]
fn a_symbol_asked_off_that_came_out_on_stops_the_build_before_compiling() {
    let checkout = Checkout::new();
    let text = "CONFIG_NETFILTER=y\nCONFIG_NFT_FIB_IPV6=y\n# CONFIG_NFT_FIB is not set\n";
    checkout.write("kernel-config/30-network.config", text);
    let expected = "error: stage kernel failed: 1 configuration symbol can't be had as asked:\n\
        kernel-config/30-network.config:3: CONFIG_NFT_FIB=n was asked for, and it came out as y\n\
        \x20   NFT_FIB is selected by NFT_FIB_IPV6\n";
    checkout.run(&["kernel"]).said(1, &[expected]);
    assert!(!kernel_log(&checkout).contains("bzImage"));
}

#[test]
fn a_symbol_that_no_source_defines_is_said_to_be_so() {
    let checkout = Checkout::new();
    checkout.write("kernel-config/30-network.config", "CONFIG_NTF_FIB=y\n");
    // tinyconfig and olddefconfig of the small source keep what they do not know; Kconfig drops it.
    let makefile = "tinyconfig:\n\techo CONFIG_64BIT=y > .config\nolddefconfig:\n\tsed -i /NTF/d .config\n";
    let mut checkout = checkout;
    let files = [("Kconfig", "config 64BIT\n\tbool \"x\"\n".to_owned()), ("Makefile", makefile.to_owned())];
    checkout.put_source("linux", &tarball(&files));
    checkout.run(&["kernel"]).said(1, &["NTF_FIB is defined nowhere in this source: misspelt"]);
}

#[test]
fn a_line_that_is_none_is_named_before_anything_is_unpacked() {
    let checkout = Checkout::new();
    checkout.write("kernel-config/30-network.config", "CONFIG_NETFILTER=y\nNETFILTER_XTABLES\n");
    checkout.run(&["kernel"]).said(1, &["kernel-config/30-network.config:2: ", "expected CONFIG_NAME=value"]);
    assert_eq!(kernel_log(&checkout), "");
}

#[test]
fn a_compiler_that_fails_shows_the_end_of_the_log_and_where_it_lies() {
    let mut checkout = Checkout::new();
    let broken = [("src/tini.c", "int main(void) { return nothing; }\n".to_owned())];
    checkout.put_source("tini", &tarball(&broken));
    let log = checkout.root().join("target/xtask/log/tini.log").display().to_string();
    let run = checkout.run(&["tini"]);
    run.said(1, &["error: stage tini failed: ", "the log's last lines:\n", &format!("the whole log: {log}")]);
    assert!(run.stderr.contains("src/tini.c"), "{}", run.stderr);
    assert!(checkout.files_in_cache("built").is_empty());
}

#[test]
fn a_kept_tree_is_built_in_again_and_nothing_of_it_is_in_the_cache() {
    let mut checkout = Checkout::new();
    // What is left in the tree by one compiler run is there for the next.
    checkout
        .put_source("linux", &tarball(&linux("echo x >> compiled; cat compiled > arch/x86/boot/bzImage")));
    checkout.run(&["--incremental", "kernel"]).said(0, &["unpacking", "in a tree that is kept"]);
    let run = checkout.run(&["--incremental", "kernel", "-v"]);
    run.said(0, &["skipped: nothing it is made of changed"]);
    checkout.write("kernel-config/20-more.config", "CONFIG_NETFILTER=y\n");
    let run = checkout.run(&["--incremental", "kernel"]);
    run.said(0, &["in a tree that is kept"]);
    assert!(!run.stderr.contains("unpacking"), "{}", run.stderr);
    let tree = checkout.root().join("target/xtask/kept/kernel/source/source");
    assert_eq!(fs::read_to_string(tree.join("compiled")).unwrap(), "x\nx\n");
    assert!(checkout.files_in_cache("built").is_empty());
    // Another source begins anew.
    checkout.put_source("linux", &tarball(&linux("echo kernel > arch/x86/boot/bzImage")));
    checkout.run(&["--incremental", "kernel"]).said(0, &["unpacking"]);
    assert!(!tree.join("compiled").exists());
    // What the cache has is taken from there.
    checkout.run(&["kernel"]).said(0, &["kernel  building\n"]);
    fs::remove_dir_all(checkout.root().join("target/xtask/kept")).unwrap();
    checkout.run(&["--incremental", "kernel", "-v"]).said(0, &["skipped: nothing it is made of changed"]);
}

#[test]
fn ctrl_c_in_a_stage_leaves_nothing_that_the_next_run_takes_for_good() {
    let mut checkout = Checkout::new();
    let begun = checkout.outside("begun");
    let compile = format!(
        "echo half > arch/x86/boot/bzImage; [ -e {0} ] || {{ touch {0}; sleep 60; }}; echo whole >> arch/x86/boot/bzImage",
        begun.display()
    );
    checkout.put_source("linux", &tarball(&linux(&compile)));
    let child = checkout.start(&["kernel"]);
    wait_until("the compiler's start", || begun.exists());
    let interrupted = interrupt(child);
    assert_eq!(interrupted.code, None, "a signal ends it: {}", interrupted.stderr);
    let results = |checkout: &Checkout| {
        let files = checkout.files_in_cache("built/kernel");
        files.into_iter().filter(|file| !file.starts_with("unfinished")).count()
    };
    let is_unfinished = |file: &PathBuf| file.to_string_lossy().starts_with("unfinished-");
    assert!(checkout.files_in_cache("built/kernel").iter().all(is_unfinished));
    checkout.run(&["kernel", "-v"]).said(0, &["because never built here"]);
    assert_eq!(fs::read_to_string(in_cache(&checkout, "kernel", "bzImage")).unwrap(), "half\nwhole\n");
    assert!(!checkout.files_in_cache("built/kernel").iter().any(is_unfinished));
    assert_eq!(results(&checkout), 4);
}

#[test]
fn a_full_disk_while_the_iso_is_written_leaves_the_old_one_whole() {
    let checkout = Checkout::new();
    let menu = |comment: &str| {
        checkout.write("grub/grub.cfg", &format!("# {comment}\n{}", include_str!("../../../grub/grub.cfg")));
    };
    let dist = checkout.root().join("dist");
    let (iso, names) = (dist.join("coracle.iso"), || {
        let mut names: Vec<String> = fs::read_dir(&dist)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    });
    // The new image is in the cache, the old one in dist/: only the copy to dist/ is left to do.
    for comment in ["the new menu", "the old menu"] {
        menu(comment);
        checkout.run(&["iso"]).said(0, &[]);
    }
    let (old, all) = (sha256(&fs::read(&iso).unwrap()), names());
    assert!(all.iter().any(|name| name == "coracle.iso") && all.len() == 10, "{all:?}");
    menu("the new menu");
    let failure =
        format!("{}: cannot write; what was there before is untouched; make room there", iso.display());
    // In blocks of 512 bytes: room for notes, not for an image.
    let limited = ended(checkout.shell(&[], "trap '' XFSZ; ulimit -f 256; exec \"$@\"", &["iso"]));
    limited.said(1, &[&failure, "File too large"]);
    assert_eq!((sha256(&fs::read(&iso).unwrap()), names()), (old.clone(), all.clone()));
    if let Some(launcher) = own_mounts() {
        let seen = checkout.outside("seen");
        let script = format!(
            "cp -r dist '{0}' && mount -t tmpfs none dist && cp -r '{0}'/. dist && mount -o remount,size=$(du -sk dist | cut -f 1)k none dist && rm -r '{0}'
             \"$@\"; status=$?; cp -r dist '{0}'; exit $status",
            seen.display()
        );
        ended(checkout.shell(launcher, &script, &["iso"])).said(1, &[&failure, "No space left on device"]);
        assert_eq!(sha256(&fs::read(seen.join("coracle.iso")).unwrap()), old);
        assert_eq!(fs::read_dir(&seen).unwrap().count(), all.len(), "no temporary file is left");
    }
    checkout.run(&["iso"]).said(0, &[]);
    assert_ne!(sha256(&fs::read(&iso).unwrap()), old);
    assert_eq!(names(), all);
}

#[test]
fn an_interrupted_copys_temporary_file_goes_with_the_next_write() {
    let checkout = Checkout::new();
    let notes = checkout.root().join("target/xtask/inputs");
    fs::create_dir_all(&notes).unwrap();
    // No process has this number: the kernel's limit is 2^22.
    let (dead, alive) = (".kernel.json.9999999", format!(".kernel.json.{}", std::process::id()));
    fs::write(notes.join(dead), "{").unwrap();
    fs::write(notes.join(&alive), "{").unwrap();
    checkout.run(&["kernel"]).said(0, &[]);
    assert!(!notes.join(dead).exists());
    assert!(notes.join(&alive).exists(), "another run may be writing it");
}

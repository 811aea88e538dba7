//! Fetching: origins that are down, cut, wrong or slow; mirrors; a full disk; Ctrl-C.

use std::fs;
use std::io::Read;
use std::process::Stdio;
use std::sync::mpsc;

use crate::checkout::{Checkout, ended, interrupt, noise, sha256, wait_until};
use crate::origin::{Answer, Origin, nobody};

const FILE: &str = "tini-1.tar.gz";
const SIZE: usize = 600_000;

/// A checkout in which only Tini is to be had from `urls`.
fn checkout(bytes: &[u8], urls: &[&str]) -> Checkout {
    let mut checkout = Checkout::new();
    checkout.pin("tini", bytes, urls);
    checkout
}

/// Fails unless Tini's tarball is in the cache, whole, and nothing else lies about.
#[track_caller]
fn holds(checkout: &Checkout, bytes: &[u8]) {
    assert!(fs::read(checkout.cached("tini")).unwrap() == bytes, "not the bytes that were pinned");
    assert!(!checkout.part("tini").exists());
}

/// Fails if a tarball of Tini's, whatever its bytes, is in the cache.
#[track_caller]
fn lacks(checkout: &Checkout) {
    assert!(!checkout.cached("tini").exists());
    assert_eq!(checkout.files_in_cache("sources").iter().filter(|file| file.ends_with(FILE)).count(), 0);
}

#[test]
fn without_a_terminal_a_download_is_a_few_short_lines() {
    let bytes = noise(SIZE);
    let origin = Origin::new(&bytes, vec![Answer::Ranged]);
    let checkout = checkout(&bytes, &[&origin.url(FILE)]);
    let first = checkout.run(&["fetch"]);
    first.said(0, &["tini 1: trying http://", "tini: 585.94 KiB at "]);
    assert!(!first.stderr.contains(['\r', '\u{1b}']), "{:?}", first.stderr);
    assert_eq!(first.stdout, "");
    holds(&checkout, &bytes);
    checkout.run(&["fetch", "-v"]).said(0, &["tini 1: in the cache"]);
    assert_eq!(origin.asked(), [None]);
}

#[test]
fn on_a_terminal_a_bar_shows_bytes_and_rate() {
    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
    let bytes = noise(SIZE);
    let (go_on, waits) = mpsc::channel();
    let origin = Origin::new(&bytes, vec![Answer::PauseAfter(SIZE / 2, waits)]);
    let checkout = checkout(&bytes, &[&origin.url(FILE)]);
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&master).unwrap();
    unlockpt(&master).unwrap();
    let size = rustix::termios::Winsize { ws_row: 24, ws_col: 120, ws_xpixel: 0, ws_ypixel: 0 };
    rustix::termios::tcsetwinsize(&master, size).unwrap();
    let name = ptsname(&master, Vec::new()).unwrap();
    let terminal = fs::OpenOptions::new().write(true).open(name.to_str().unwrap()).unwrap();
    let mut command = checkout.command(&["fetch"]);
    let mut child = command.env("TERM", "xterm").stdout(Stdio::null()).stderr(terminal).spawn().unwrap();
    // Its copy of the terminal would keep the reads below from ending.
    drop(command);
    let mut shown = String::new();
    let mut buffer = [0; 4096];
    let mut master = fs::File::from(master);
    let has_bar = |shown: &str| shown.contains("KiB/585.94 KiB") && shown.contains("iB/s");
    // A terminal whose other side is closed gives EIO: the bar never came.
    while !has_bar(&shown) {
        let Ok(count @ 1..) = master.read(&mut buffer) else { panic!("no bar in {shown:?}") };
        shown.push_str(&String::from_utf8_lossy(&buffer[..count]));
    }
    go_on.send(()).unwrap();
    while let Ok(count @ 1..) = master.read(&mut buffer) {
        shown.push_str(&String::from_utf8_lossy(&buffer[..count]));
    }
    assert!(child.wait().unwrap().success(), "{shown}");
    holds(&checkout, &bytes);
}

#[test]
fn a_wrong_hash_shows_both_and_the_next_origin_is_tried() {
    let (bytes, wrong) = (noise(SIZE), b"something else".as_slice());
    let bad = Origin::new(wrong, vec![Answer::Ranged]);
    let good = Origin::new(&bytes, vec![Answer::Ranged]);
    let checkout = checkout(&bytes, &[&bad.url(FILE), &good.url(FILE)]);
    let run = checkout.run(&["fetch"]);
    let expected = format!("wrong hash: expected sha256 {}, got {}", sha256(&bytes), sha256(wrong));
    run.said(0, &[&expected, "thrown away"]);
    assert_eq!((bad.asked().len(), good.asked().len()), (1, 1));
    holds(&checkout, &bytes);
}

#[test]
fn a_wrong_hash_everywhere_never_gets_into_the_cache() {
    let (bytes, wrong) = (noise(SIZE), b"something else".as_slice());
    let bad = Origin::new(wrong, vec![Answer::Ranged]);
    let checkout = checkout(&bytes, &[&bad.url(FILE)]);
    let run = checkout.run(&["fetch"]);
    run.said(1, &[&sha256(&bytes), &sha256(wrong), "error: "]);
    lacks(&checkout);
    assert!(!checkout.part("tini").exists());
}

#[test]
fn when_all_origins_fail_one_error_names_each_with_its_reason_and_what_to_do() {
    let bytes = noise(100);
    let (down, gone) = (nobody(FILE), Origin::new(&bytes, vec![Answer::Status(404)]));
    let checkout = checkout(&bytes, &[&down, &gone.url(FILE)]);
    let run = checkout.run(&["fetch"]);
    let refused = format!("  {down}: no answer: Connection refused (os error 111)\n");
    let answered = format!("  {}: the server answered 404\n", gone.url(FILE));
    let fix = "put tini-1.tar.gz into a folder and name it with --mirror DIR";
    run.said(1, &["error: source tini 1 cannot be had; tried:\n", &refused, &answered, fix]);
    lacks(&checkout);
}

#[test]
fn an_origin_that_is_down_is_named_when_another_one_serves() {
    let bytes = noise(100);
    let (down, good) = (nobody(FILE), Origin::new(&bytes, vec![Answer::Ranged]));
    let checkout = checkout(&bytes, &[&down, &good.url(FILE)]);
    checkout
        .run(&["fetch"])
        .said(0, &[&format!("could not be had from {down}: no answer: Connection refused")]);
    holds(&checkout, &bytes);
}

#[test]
fn one_source_that_fails_does_not_keep_the_others_back() {
    let bytes = noise(100);
    let good = Origin::new(&bytes, vec![Answer::Ranged]);
    let mut checkout = checkout(&bytes, &[&good.url(FILE)]);
    let (busybox, linux) = (nobody("busybox-1.tar.gz"), nobody("linux-1.tar.gz"));
    checkout.pin("busybox", b"b", &[&busybox]);
    checkout.pin("linux", b"l", &[&linux]);
    checkout.run(&["fetch"]).said(1, &["source busybox 1 cannot be had", "source linux 1 cannot be had"]);
    holds(&checkout, &bytes);
}

#[test]
fn a_cut_download_is_resumed_by_the_next_run() {
    let bytes = noise(SIZE);
    let origin = Origin::new(&bytes, vec![Answer::CutAfter(250_000), Answer::Ranged]);
    let checkout = checkout(&bytes, &[&origin.url(FILE)]);
    checkout.run(&["fetch"]).said(1, &["cut after 250000 of 600000 bytes; the next run goes on from there"]);
    lacks(&checkout);
    checkout.run(&["fetch"]).said(0, &["tini: 585.94 KiB at "]);
    assert_eq!(origin.asked(), [None, Some(250_000)]);
    holds(&checkout, &bytes);
}

#[test]
fn a_server_that_knows_no_range_is_downloaded_from_afresh() {
    let bytes = noise(SIZE);
    let origin = Origin::new(&bytes, vec![Answer::CutAfter(250_000), Answer::Whole]);
    let checkout = checkout(&bytes, &[&origin.url(FILE)]);
    assert_eq!(checkout.run(&["fetch"]).code, Some(1));
    checkout.run(&["fetch"]).said(0, &[]);
    assert_eq!(origin.asked(), [None, Some(250_000)]);
    holds(&checkout, &bytes);
}

#[test]
fn a_resumed_file_with_a_wrong_hash_is_thrown_away_and_begun_again() {
    let bytes = noise(SIZE);
    let origin = Origin::new(&bytes, vec![Answer::Ranged]);
    let checkout = checkout(&bytes, &[&origin.url(FILE)]);
    let part = checkout.part("tini");
    fs::create_dir_all(part.parent().unwrap()).unwrap();
    fs::write(&part, vec![0; 1000]).unwrap();
    checkout.run(&["fetch"]).said(0, &["what an earlier run left did not fit; from the start"]);
    assert_eq!(origin.asked(), [Some(1000), None]);
    holds(&checkout, &bytes);
}

#[test]
fn a_part_longer_than_the_file_is_thrown_away_and_begun_again() {
    let bytes = noise(1000);
    let origin = Origin::new(&bytes, vec![Answer::Ranged]);
    let checkout = checkout(&bytes, &[&origin.url(FILE)]);
    let part = checkout.part("tini");
    fs::create_dir_all(part.parent().unwrap()).unwrap();
    fs::write(&part, vec![0; 2000]).unwrap();
    checkout.run(&["fetch"]).said(0, &[]);
    assert_eq!(origin.asked(), [Some(2000), None]);
    holds(&checkout, &bytes);
}

#[test]
fn a_tarball_spoilt_in_the_cache_is_fetched_again() {
    let bytes = noise(1000);
    let origin = Origin::new(&bytes, vec![Answer::Ranged]);
    let checkout = checkout(&bytes, &[&origin.url(FILE)]);
    checkout.run(&["fetch"]).said(0, &[]);
    fs::write(checkout.cached("tini"), &bytes[..500]).unwrap();
    checkout.run(&["fetch"]).said(0, &["not what was put there; removed"]);
    holds(&checkout, &bytes);
}

#[test]
fn ctrl_c_leaves_a_part_that_the_next_run_goes_on_from() {
    let bytes = noise(SIZE);
    let (_go_on, waits) = mpsc::channel();
    let origin = Origin::new(&bytes, vec![Answer::PauseAfter(250_000, waits), Answer::Ranged]);
    let again = Origin::new(&bytes, vec![Answer::Ranged]);
    let mut checkout = checkout(&bytes, &[&origin.url(FILE)]);
    let child = checkout.start(&["fetch"]);
    let part = checkout.part("tini");
    wait_until("250000 bytes", || part.metadata().is_ok_and(|facts| facts.len() == 250_000));
    let interrupted = interrupt(child);
    assert_eq!(interrupted.code, None, "a signal ends it: {}", interrupted.stderr);
    lacks(&checkout);
    // The first origin is still busy with its pause.
    checkout.pin("tini", &bytes, &[&again.url(FILE)]);
    checkout.run(&["fetch"]).said(0, &["tini: 585.94 KiB at "]);
    assert_eq!(again.asked(), [Some(250_000)]);
    holds(&checkout, &bytes);
}

#[test]
fn offline_with_an_empty_cache_says_so_and_asks_nobody() {
    let bytes = noise(100);
    let origin = Origin::new(&bytes, vec![Answer::Ranged]);
    let checkout = checkout(&bytes, &[&origin.url(FILE)]);
    for words in [&["--offline", "fetch"][..], &["--offline", "--mirror", "http://127.0.0.1:9", "fetch"]] {
        let expected = "error: source tini 1 is not in the cache, and --offline without --mirror DIR leaves nothing to try\n\
             put tini-1.tar.gz into a folder and name it with --mirror DIR, or run again without --offline\n";
        checkout.run(words).said(1, &[expected]);
    }
    assert_eq!(origin.asked(), []);
    lacks(&checkout);
}

#[test]
fn a_mirror_folder_serves_offline() {
    let bytes = noise(1000);
    let checkout = checkout(&bytes, &[&nobody(FILE)]);
    let mirror = checkout.outside("mirror");
    fs::create_dir(&mirror).unwrap();
    let words = ["--offline", "--mirror", mirror.to_str().unwrap(), "fetch"];
    let missing = format!("{}: cannot open: No such file", mirror.join(FILE).display());
    checkout.run(&words).said(1, &[&missing, "or run again without --offline"]);
    fs::write(mirror.join(FILE), b"something else").unwrap();
    checkout.run(&words).said(1, &["wrong hash"]);
    lacks(&checkout);
    fs::write(mirror.join(FILE), &bytes).unwrap();
    checkout.run(&words).said(0, &[]);
    holds(&checkout, &bytes);
}

#[test]
fn a_mirror_address_comes_before_the_origins() {
    let bytes = noise(1000);
    let origin = Origin::new(&bytes, vec![Answer::Ranged]);
    let mirror = Origin::new(&bytes, vec![Answer::Ranged]);
    let checkout = checkout(&bytes, &[&origin.url(FILE)]);
    checkout.run(&["--mirror", &mirror.url(""), "fetch"]).said(0, &[]);
    assert_eq!((mirror.asked().len(), origin.asked().len()), (1, 0));
    holds(&checkout, &bytes);
}

#[test]
fn a_file_that_can_grow_no_further_stops_the_fetch_and_loses_nothing() {
    let bytes = noise(SIZE);
    let origin = Origin::new(&bytes, vec![Answer::Ranged]);
    let other = Origin::new(&bytes, vec![Answer::Ranged]);
    let checkout = checkout(&bytes, &[&origin.url(FILE), &other.url(FILE)]);
    // In blocks of 512 bytes. With the signal ignored the write fails with EFBIG, as on a full disk with ENOSPC.
    let script = "trap '' XFSZ; ulimit -f 512; exec \"$@\"";
    let part = checkout.part("tini").display().to_string();
    let run = ended(checkout.shell(&[], script, &["fetch"]));
    run.said(
        1,
        &[&part, "File too large", "make room there", "--cache-dir DIR", "source tini 1 can't be kept"],
    );
    assert_eq!(other.asked(), [], "another origin would not help");
    lacks(&checkout);
    checkout.run(&["fetch"]).said(0, &[]);
    assert_eq!(origin.asked(), [None, Some(512 * 512)]);
    holds(&checkout, &bytes);
}

#[test]
fn a_full_disk_stops_the_fetch() {
    let bytes = noise(SIZE);
    let origin = Origin::new(&bytes, vec![Answer::Ranged]);
    let checkout = checkout(&bytes, &[&origin.url(FILE)]);
    let Some(launcher) = crate::checkout::own_mounts() else { return };
    let partial = checkout.part("tini").parent().unwrap().to_owned();
    fs::create_dir_all(&partial).unwrap();
    let script = format!("mount -t tmpfs -o size=256k none '{}' && exec \"$@\"", partial.display());
    let run = ended(checkout.shell(launcher, &script, &["fetch"]));
    run.said(1, &["No space left on device", "make room there", "--cache-dir DIR"]);
    lacks(&checkout);
    checkout.run(&["fetch"]).said(0, &[]);
    holds(&checkout, &bytes);
}

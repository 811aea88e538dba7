//! How the program begins (`sys::start`), seen from outside while it waits for its standard input. In: the program, by a
//! plugin's name. Out: verdicts. Must never: need root.

#![allow(clippy::unwrap_used)] // helpers of tests are tests

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// `loopback`, called by a shell that closes what `closed` says, once it waits for its configuration.
fn waiting(folder: &Path, closed: &str) -> Child {
    let name = folder.join("loopback");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_coracle"), &name).unwrap();
    let child = Command::new("sh")
        .args(["-c", &format!("exec \"$0\" {closed}"), name.to_str().unwrap()])
        .envs([("CNI_COMMAND", "ADD"), ("CNI_CONTAINERID", "box"), ("CNI_NETNS", "/proc/self/ns/net")])
        .envs([("CNI_IFNAME", "lo"), ("CNI_PATH", "/nowhere")])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let call = format!("/proc/{}/syscall", child.id());
    // read(2) or poll(2), of the standard input or of a list of files.
    let waits = |text: String| text.starts_with("0 0x0 ") || text.starts_with("7 ");
    let is_it = || fs::read_to_string(format!("/proc/{}/comm", child.id())).unwrap() == "loopback\n";
    while !(is_it() && fs::read_to_string(&call).is_ok_and(waits)) {
        std::thread::sleep(Duration::from_millis(5));
    }
    child
}

#[test]
fn a_standard_file_that_is_closed_is_opened_before_another_gets_its_number() {
    let folder = own_folder();
    let mut child = waiting(&folder, ">&- 2>&-");
    let files = ["1", "2"].map(|fd| fs::read_link(format!("/proc/{}/fd/{fd}", child.id())));
    child.kill().unwrap();
    child.wait().unwrap();
    fs::remove_dir_all(folder).unwrap();
    assert!(
        files.iter().all(|file| file.as_ref().is_ok_and(|file| file == Path::new("/dev/null"))),
        "{files:?}"
    );
}

#[test]
fn a_closed_pipe_is_an_error_and_no_signal() {
    let folder = own_folder();
    let mut child = waiting(&folder, "");
    let status = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    fs::remove_dir_all(folder).unwrap();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:\t")).unwrap();
    let pipe = 1 << (libc::SIGPIPE - 1);
    assert_ne!(u64::from_str_radix(ignored, 16).unwrap() & pipe, 0, "{status}");
}

/// A folder of this test's own.
fn own_folder() -> std::path::PathBuf {
    static NUMBER: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
    let number = NUMBER.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let folder = std::env::temp_dir().join(format!("coracle-start-{}-{number}", std::process::id()));
    fs::create_dir(&folder).unwrap();
    folder
}

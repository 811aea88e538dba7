//! Filters and limits against the real kernel: what is asked for has to bite.
//!
//! In: a machine with cgroup v2 at /sys/fs/cgroup, root, BusyBox or the like: the VM. Out: verdicts.
//! Must never: run on a developer's machine by accident, so all are ignored; in the VM they run with
//! `limits_in_vm --ignored --test-threads=1`.

#![allow(clippy::unwrap_used)] // helpers of tests are tests

use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use std::sync::mpsc;
use std::time::Duration;
use std::time::Instant;

use runtime::oci::cgroup::Cgroup;
use runtime::oci::cgroup::CgroupPlan;
use runtime::oci::cgroup::Event;
use runtime::oci::cgroup::Facts;
use runtime::oci::report::Error;
use runtime::oci::seccomp;
use runtime::spec::Resources;
use rustix::io::Errno;

const SIGKILL: i32 = 9;
const SIGSYS: i32 = 31;

/// Runs `action` in a thread of its own under the profile; processes that it starts inherit the filter.
fn under<T: Send>(profile: &str, action: impl FnOnce() -> T + Send) -> T {
    let filter = seccomp::compile(&serde_json::from_str(profile).unwrap()).unwrap();
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            rustix::thread::set_no_new_privs(true).unwrap();
            assert!(filter.install().unwrap().is_none());
            action()
        });
        thread.join().unwrap()
    })
}

fn status(command: &str) -> std::process::ExitStatus {
    Command::new("sh").args(["-c", command]).stderr(Stdio::null()).status().unwrap()
}

#[test]
#[ignore = "runs in the VM"]
fn a_denied_call_fails_with_its_errno() {
    let profile = r#"{"defaultAction":"SCMP_ACT_ALLOW","architectures":["SCMP_ARCH_X86_64","SCMP_ARCH_X86"],
        "syscalls":[{"names":["mkdir","mkdirat"],"action":"SCMP_ACT_ERRNO"},
                    {"names":["rmdir","unlinkat"],"action":"SCMP_ACT_ERRNO","errnoRet":95},
                    {"names":["sethostname"],"action":"SCMP_ACT_LOG"}]}"#;
    let answers = under(profile, || {
        (
            rustix::fs::mkdir("/tmp/denied", 0o755.into()).unwrap_err(),
            rustix::fs::rmdir("/tmp/denied").unwrap_err(),
            rustix::system::sethostname(b"logged").is_ok(),
        )
    });
    assert_eq!(answers, (Errno::PERM, Errno::OPNOTSUPP, true));
    assert!(rustix::fs::mkdir("/tmp/allowed", 0o755.into()).is_ok(), "the filter holds in its thread alone");
}

#[test]
#[ignore = "runs in the VM"]
fn arguments_decide_in_all_64_bits() {
    let profile = r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["lseek"],"action":"SCMP_ACT_ERRNO","errnoRet":95,
        "args":[{"index":1,"value":4294967297,"op":"SCMP_CMP_GE"}]}]}"#;
    let file = std::fs::File::create("/tmp/seek").unwrap();
    let answers = under(profile, || {
        [0, 1, 0xffff_ffff, 0x1_0000_0000, 0x1_0000_0001, 0x2_0000_0000]
            .map(|offset| rustix::fs::seek(&file, rustix::fs::SeekFrom::Start(offset)).map(drop))
    });
    assert_eq!(answers, [Ok(()), Ok(()), Ok(()), Ok(()), Err(Errno::OPNOTSUPP), Err(Errno::OPNOTSUPP)]);
}

#[test]
#[ignore = "runs in the VM"]
fn kill_process_kills() {
    let profile = r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mkdir","mkdirat"],"action":"SCMP_ACT_KILL_PROCESS"}]}"#;
    let status = under(profile, || Command::new("mkdir").arg("/tmp/killed").status().unwrap());
    assert_eq!(status.signal(), Some(SIGSYS));
}

#[test]
#[ignore = "runs in the VM"]
fn an_allow_list_with_unknown_names_runs_a_shell_and_hides_new_calls() {
    let names: Vec<String> = (0..).map_while(name_of_call).collect();
    assert!(names.len() > 300, "{}", names.len());
    let profile = format!(
        r#"{{"defaultAction":"SCMP_ACT_ERRNO","architectures":["SCMP_ARCH_X86_64","SCMP_ARCH_X86","SCMP_ARCH_X32"],
        "syscalls":[{{"names":{},"action":"SCMP_ACT_ALLOW"}},{{"names":["not_a_call"],"action":"SCMP_ACT_ALLOW"}}]}}"#,
        serde_json::to_string(&names).unwrap()
    );
    assert!(under(&profile, || status("ls / > /dev/null && true")).success());
}

/// Names for an allow-list: those that /proc/kallsyms shows.
fn name_of_call(at: usize) -> Option<String> {
    static NAMES: std::sync::OnceLock<Vec<String>> = std::sync::OnceLock::new();
    let names = NAMES.get_or_init(|| {
        let symbols = std::fs::read_to_string("/proc/kallsyms").unwrap();
        let calls =
            symbols.lines().filter_map(|line| line.split_whitespace().nth(2)?.strip_prefix("__x64_sys_"));
        let mut names: Vec<String> = calls.map(str::to_string).collect();
        for (kernel, user) in
            [("newstat", "stat"), ("newfstat", "fstat"), ("newlstat", "lstat"), ("newuname", "uname")]
        {
            names.extend(names.contains(&kernel.to_string()).then(|| user.to_string()));
        }
        names
    });
    names.get(at).cloned()
}

#[test]
#[ignore = "runs in the VM"]
fn notify_gives_a_listener_that_hears_the_call() {
    let profile = r#"{"defaultAction":"SCMP_ACT_ALLOW","listenerPath":"/run/listener",
        "syscalls":[{"names":["mkdir","mkdirat"],"action":"SCMP_ACT_NOTIFY"}]}"#;
    let filter = seccomp::compile(&serde_json::from_str(profile).unwrap()).unwrap();
    assert!(filter.listener().is_some());
    let (sender, receiver) = mpsc::channel();
    let caller = std::thread::spawn(move || {
        rustix::thread::set_no_new_privs(true).unwrap();
        sender.send(filter.install().unwrap().unwrap()).unwrap();
        rustix::fs::mkdir("/tmp/asked", 0o755.into())
    });
    let listener = receiver.recv().unwrap();
    let mut poll = [rustix::event::PollFd::new(&listener, rustix::event::PollFlags::IN)];
    let limit = rustix::event::Timespec { tv_sec: 10, tv_nsec: 0 };
    assert_eq!(rustix::event::poll(&mut poll, Some(&limit)), Ok(1), "the call did not arrive");
    drop(listener); // without a listener the call fails
    assert_eq!(caller.join().unwrap(), Err(Errno::NOSYS));
}

/// A cgroup of its own for each test, that goes at its end.
struct Box(Cgroup);

impl Box {
    fn new(name: &str, resources: &str) -> Box {
        Box(create(name, resources).unwrap_or_else(|error| panic!("{error}")))
    }

    /// Starts a shell in the cgroup.
    fn start(&self, command: &str) -> Child {
        let procs = self.0.path().join("cgroup.procs");
        let command = format!("echo $$ > {} && {command}", procs.display());
        Command::new("sh").args(["-c", &command]).stdin(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    }

    fn file(&self, name: &str) -> String {
        std::fs::read_to_string(self.0.path().join(name)).unwrap().trim().to_string()
    }
}

impl Drop for Box {
    fn drop(&mut self) {
        self.0.kill_all().unwrap();
        self.0.remove().unwrap();
        assert!(!self.0.path().exists());
    }
}

fn create(name: &str, resources: &str) -> Result<Cgroup, Error> {
    let resources: Resources = serde_json::from_str(resources).unwrap();
    let path = format!("/limits-test/{name}");
    CgroupPlan::resolve(Some(&path), name, Some(&resources), &Facts::probe()?)?.create(false)
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !holds() {
        assert!(Instant::now() < deadline, "never: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
#[ignore = "runs in the VM"]
fn a_fork_bomb_is_stopped() {
    let cgroup = Box::new("pids", r#"{"pids":{"limit":12}}"#);
    let mut bomb = cgroup.start("bomb() { bomb | bomb & }; bomb; sleep 60");
    let refused = || cgroup.file("pids.events").strip_prefix("max ").is_some_and(|count| count != "0");
    until("the kernel refuses a fork", refused);
    assert!(cgroup.0.all_procs().unwrap().len() <= 12);
    cgroup.0.kill_all().unwrap();
    bomb.wait().unwrap();
    until("all are dead", || cgroup.0.all_procs().unwrap().is_empty());
}

#[test]
#[ignore = "runs in the VM"]
fn a_memory_hog_is_killed() {
    let cgroup = Box::new("memory", r#"{"memory":{"limit":16777216,"swap":16777216,"reservation":4194304}}"#);
    assert_eq!(cgroup.file("memory.max"), "16777216");
    assert_eq!(cgroup.file("memory.low"), "4194304");
    let mut watch = cgroup.0.watch().unwrap();
    let mut hog = cgroup.start("exec dd if=/dev/zero of=/dev/null bs=64M count=1");
    let mut saw_oom = false;
    while !saw_oom {
        match watch.next(Duration::from_secs(20)).unwrap() {
            Event::Oom => saw_oom = true,
            // Before the shell is in.
            Event::Empty => std::thread::sleep(Duration::from_millis(10)),
            Event::Nothing => panic!("no OOM kill is told of"),
        }
    }
    assert_eq!(hog.wait().unwrap().signal(), Some(SIGKILL));
    assert_eq!(cgroup.0.oom_kill_count().unwrap(), 1);
    assert_eq!(cgroup.0.stats().unwrap().memory.event_count.oom_kill, 1);
    assert_eq!(watch.next(Duration::from_secs(5)).unwrap(), Event::Empty);
}

#[test]
#[ignore = "runs in the VM"]
fn a_busy_loop_is_throttled() {
    let cgroup =
        Box::new("cpu", r#"{"cpu":{"quota":10000,"period":100000,"shares":2048,"burst":5000,"cpus":"0"}}"#);
    assert_eq!(cgroup.file("cpu.max"), "10000 100000");
    assert_eq!(cgroup.file("cpu.max.burst"), "5000");
    assert_eq!(cgroup.file("cpuset.cpus"), "0");
    let mut busy = cgroup.start("x=$(head -c 3000000 /dev/zero | tr '\\0' x); while :; do :; done");
    until("the loop is throttled", || cgroup.0.stats().unwrap().cpu.throttling.throttled_periods > 2);
    let stats = cgroup.0.stats().unwrap();
    assert!(stats.cpu.usage.total > 0 && stats.pids.current > 0, "{stats:?}");
    // Raised while it runs, one half at a time.
    let update = |json: &str| cgroup.0.update(&serde_json::from_str(json).unwrap(), None);
    update(r#"{"cpu":{"period":200000}}"#).unwrap();
    assert_eq!(cgroup.file("cpu.max"), "10000 200000");
    update(r#"{"cpu":{"quota":-1}}"#).unwrap();
    assert_eq!(cgroup.file("cpu.max"), "max 200000");
    update(r#"{"pids":{"limit":7},"memory":{"limit":33554432}}"#).unwrap();
    assert_eq!(
        (cgroup.file("pids.max"), cgroup.file("memory.max")),
        ("7".to_string(), "33554432".to_string())
    );
    update(r#"{"cpu":{"quota":-1}}"#).unwrap();
    until("the shell has its string", || cgroup.0.stats().unwrap().memory.usage.usage > 2_000_000);
    let error = update(r#"{"memory":{"limit":65536,"checkBeforeUpdate":true}}"#).unwrap_err().to_string();
    assert!(error.contains("rejecting memory limit 65536"), "{error}");
    assert_eq!(cgroup.file("memory.max"), "33554432");
    cgroup.0.kill_all().unwrap();
    busy.wait().unwrap();
}

#[test]
#[ignore = "runs in the VM"]
fn devices_not_allowed_are_refused() {
    let cgroup = Box::new(
        "devices",
        r#"{"devices":[{"allow":false,"access":"rwm"},{"allow":true,"type":"c","major":1,"minor":3,"access":"rw"},
            {"allow":true,"type":"c","major":1,"access":"m"},{"allow":false,"type":"c","major":1,"minor":8,"access":"m"}]}"#,
    );
    let answer = |command: &str| cgroup.start(command).wait().unwrap().success();
    assert!(answer("true > /dev/null"));
    assert!(!answer("head -c 1 /dev/zero"), "reading 1:5");
    assert!(!answer("true > /dev/zero"), "writing 1:5");
    assert!(!answer("head -c 0 /dev/vda"), "a block device");
    assert!(answer("mknod /tmp/zero c 1 5 && rm -f /tmp/zero"));
    assert!(!answer("mknod /tmp/random c 1 8"), "taken out of the range");
    assert!(!answer("mknod /tmp/tty c 5 0"), "outside the range");
    assert!(status("head -c 1 /dev/zero > /dev/null").success(), "outside the cgroup all is as before");
}

#[test]
#[ignore = "runs in the VM"]
fn a_frozen_cgroup_stands_still_and_goes_on() {
    let cgroup = Box::new("freezer", "{}");
    let mut child = cgroup.start("while :; do :; done");
    until("it runs", || cgroup.0.stats().unwrap().cpu.usage.total > 0);
    assert!(!cgroup.0.is_frozen().unwrap());
    cgroup.0.freeze().unwrap();
    assert!(cgroup.0.is_frozen().unwrap());
    // What ran up to the stop is counted a moment later.
    std::thread::sleep(Duration::from_millis(100));
    let used = cgroup.0.stats().unwrap().cpu.usage.total;
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(cgroup.0.stats().unwrap().cpu.usage.total, used);
    let error = create("freezer", "{}").unwrap_err().to_string();
    assert!(error.contains("frozen"), "{error}");
    cgroup.0.thaw().unwrap();
    until("it goes on", || cgroup.0.stats().unwrap().cpu.usage.total > used);
    let error = create("freezer", "{}").unwrap_err().to_string();
    assert!(error.contains("not empty: 1 process"), "{error}");
    // Killing reaches frozen processes too.
    cgroup.0.freeze().unwrap();
    cgroup.0.kill_all().unwrap();
    assert_eq!(child.wait().unwrap().signal(), Some(SIGKILL));
}

#[test]
#[ignore = "runs in the VM"]
fn a_create_that_fails_leaves_nothing() {
    let before = listing();
    let error = create("a/b/c", r#"{"unified":{"memory.max":"lots"}}"#).unwrap_err().to_string();
    assert!(
        error.contains("linux.resources.unified.memory.max") && error.contains("invalid argument"),
        "{error}"
    );
    assert_eq!(listing(), before);
    let error = create("a/b/c", r#"{"cpu":{"cpus":"0-9999"}}"#).unwrap_err().to_string();
    assert!(error.contains("linux.resources.cpu.cpus"), "{error}");
    assert_eq!(listing(), before);
    let error = create("a/b/c", r#"{"unified":{"memory.nonsense":"1"}}"#).unwrap_err().to_string();
    assert!(error.contains("no such file or directory"), "{error}");
    assert_eq!(listing(), before);
}

fn listing() -> Vec<String> {
    let found = Command::new("find").args(["/sys/fs/cgroup", "-type", "d"]).output().unwrap();
    let mut lines: Vec<String> =
        String::from_utf8(found.stdout).unwrap().lines().map(str::to_string).collect();
    lines.sort();
    lines
}

#[test]
#[ignore = "runs in the VM"]
fn removal_takes_what_lies_below_and_waits_for_the_dying() {
    let cgroup = create("tree", "{}").unwrap();
    let below = cgroup.path().join("one/two");
    std::fs::create_dir_all(&below).unwrap();
    std::fs::create_dir(cgroup.path().join("three")).unwrap();
    let mut child = Command::new("sh")
        .args(["-c", &format!("echo $$ > {}/cgroup.procs; sleep 60; true", below.display())])
        .spawn()
        .unwrap();
    until("it is in", || cgroup.all_procs().unwrap().len() == 2);
    assert_eq!(cgroup.below("one/two").unwrap().procs().unwrap().len(), 2);
    assert_eq!(cgroup.below("/").unwrap().path(), cgroup.path());
    assert!(cgroup.below("one/../../x").is_err() && cgroup.below("four").is_err());
    assert!(cgroup.procs().unwrap().is_empty());
    let error = cgroup.remove().unwrap_err().to_string();
    assert!(error.contains("one/two"), "{error}");
    cgroup.kill_all().unwrap();
    cgroup.remove().unwrap();
    assert!(!cgroup.path().exists());
    child.wait().unwrap();
    // Everything succeeds when it is gone already.
    cgroup.remove().unwrap();
    cgroup.kill_all().unwrap();
    cgroup.thaw().unwrap();
    assert!(!cgroup.is_frozen().unwrap());
    assert!(cgroup.all_procs().unwrap().is_empty());
    assert_eq!(cgroup.oom_kill_count().unwrap(), 0);
    assert!(Cgroup::open(Path::new("/sys/fs/cgroup/limits-test/tree")).unwrap().is_none());
}

#[test]
#[ignore = "runs in the VM"]
fn a_cgroup_that_is_there_is_taken_over() {
    let first = create("again", r#"{"devices":[{"allow":false}],"pids":{"limit":5}}"#).unwrap();
    let cgroup = Box::new("again", r#"{"pids":{"limit":6}}"#);
    drop(first);
    assert_eq!(cgroup.file("pids.max"), "6");
    assert!(
        cgroup.start("true > /dev/null").wait().unwrap().success(),
        "the first one's device filter is gone"
    );
}

#[test]
#[ignore = "runs in the VM"]
fn a_delegated_cgroup_belongs_to_its_owner() {
    use std::os::unix::fs::MetadataExt;
    let cgroup = Box::new("delegated", r#"{"pids":{"limit":5}}"#);
    cgroup.0.delegate(rustix::fs::Uid::from_raw(1234)).unwrap();
    let owner = |name: &str| std::fs::metadata(cgroup.0.path().join(name)).unwrap().uid();
    assert_eq!((owner("."), owner("cgroup.procs"), owner("cgroup.subtree_control")), (1234, 1234, 1234));
    assert_eq!(owner("pids.max"), 0, "its limits are not its own to change");
}

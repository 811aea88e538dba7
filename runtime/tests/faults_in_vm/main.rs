//! The runtime killed, or given an error, at its system calls one after the other: nothing may be left, nothing may be
//! weaker. And what many containers leave.
//!
//! In: the VM with `runc` and its example bundles; `CORACLE_FAULTS=STRIDE,OFFSET` tries only every STRIDE-th call.
//! Out: verdicts. Must never: run on a developer's machine by accident, so all are ignored; in the VM they run with
//! `faults_in_vm --ignored --test-threads=1`.

#![allow(clippy::unwrap_used)] // helpers of tests are tests

#[allow(dead_code)] // faults_in_vm and kills_in_vm each use a part of it
mod tracer;
mod world;

use std::path::Path;
use std::process::Command;
use std::process::Output;
use std::process::Stdio;
use std::time::Duration;
use std::time::Instant;

use nix::errno::Errno;
use serde_json::json;

use tracer::Fault;
use tracer::Injection;
use tracer::Outcome;
use tracer::Whose;

const BUNDLE: &str = "/tmp/faults";
const BOX: &str = "box";
/// One of these for each call in turn.
const ERRORS: [Errno; 5] = [Errno::ENOMEM, Errno::ENOSPC, Errno::EMFILE, Errno::EINTR, Errno::EACCES];
/// What `runc` is called with in each of the four commands, and what has to be done before.
const CREATE: Case = Case { before: &[], words: &["runc", "create", "--bundle", BUNDLE, BOX] };
const START: Case = Case { before: &[CREATE.words], words: &["runc", "start", BOX] };
const EXEC: Case = Case { before: &[CREATE.words, START.words], words: &["runc", "exec", BOX, "/bin/true"] };
const DELETE: Case = Case { before: &[CREATE.words], words: &["runc", "delete", "--force", BOX] };
const RUN: Case = Case { before: &[], words: &["runc", "run", "--detach", "--bundle", BUNDLE, BOX] };

struct Case {
    before: &'static [&'static [&'static str]],
    words: &'static [&'static str],
}

/// A bundle that asks for something of every kind, and runs for long.
fn make_bundle() {
    std::fs::create_dir_all(BUNDLE).unwrap();
    let path = Path::new(BUNDLE).join("config.json");
    let _ = std::fs::remove_file(&path);
    do_it(&["runc", "spec", "--bundle", BUNDLE]);
    let mut spec: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    spec["process"]["terminal"] = json!(false);
    spec["process"]["args"] = json!(["/bin/sleep", "1000"]);
    spec["process"]["user"] = json!({ "uid": 1000, "gid": 1000, "additionalGids": [10, 20], "umask": 23 });
    spec["process"]["oomScoreAdj"] = json!(100);
    spec["root"]["path"] = json!("/containers/mycontainer/rootfs");
    spec["linux"]["sysctl"] = json!({ "kernel.shm_rmid_forced": "1" });
    spec["linux"]["resources"]["memory"] = json!({ "limit": 64 << 20 });
    spec["linux"]["resources"]["pids"] = json!({ "limit": 32 });
    spec["linux"]["resources"]["cpu"] = json!({ "quota": 50_000, "period": 100_000 });
    spec["linux"]["seccomp"] = json!({ "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{ "names": ["keyctl", "add_key"], "action": "SCMP_ACT_ERRNO" }] });
    std::fs::write(&path, spec.to_string()).unwrap();
}

fn call(words: &[&str]) -> Output {
    // Files, not pipes: a container that is left keeps them open.
    let file = |name: &str| std::fs::File::create(format!("/tmp/faults.{name}")).unwrap();
    let status = Command::new(words[0])
        .args(&words[1..])
        .stdin(Stdio::null())
        .stdout(file("out"))
        .stderr(file("err"))
        .status()
        .unwrap();
    let read = |name: &str| std::fs::read(format!("/tmp/faults.{name}")).unwrap();
    Output { status, stdout: read("out"), stderr: read("err") }
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn do_it(words: &[&str]) {
    let output = call(words);
    assert!(output.status.success(), "{words:?}: {}", text(&output));
}

/// Which calls of so many are tried.
fn tried(calls: usize) -> impl Iterator<Item = usize> {
    let given = std::env::var("CORACLE_FAULTS").unwrap_or("1,0".to_string());
    let (stride, offset) = given.split_once(',').unwrap();
    let (stride, offset): (usize, usize) = (stride.parse().unwrap(), offset.parse().unwrap());
    (1 + offset % stride..=calls).step_by(stride)
}

/// Waits until the container runs its program, and tells what keeps it in; none if it does not come to that.
fn walls_of_running() -> Option<String> {
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(20) {
        let state: serde_json::Value = serde_json::from_slice(&call(&["runc", "state", BOX]).stdout).ok()?;
        let pid = u32::try_from(state["pid"].as_u64()?).ok()?;
        if std::fs::read_to_string(format!("/proc/{pid}/comm")).ok()? == "sleep\n" {
            return Some(world::walls(pid));
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    None
}

/// Tries `fault` at the calls of the case, and lets `judge` say what is wrong after each.
fn try_all(
    case: &Case,
    whose: Whose,
    fault: impl Fn(usize) -> Fault,
    judge: impl Fn(&Outcome, &mut Vec<String>),
) {
    make_bundle();
    let before = world::traces();
    case.before.iter().for_each(|words| do_it(words));
    let calm = tracer::run(case.words, None);
    assert_eq!(calm.status, Some(0), "{}", calm.stderr);
    do_it(&["runc", "delete", "--force", BOX]);
    let calls = match whose {
        Whose::Runtime => calm.runtime_calls,
        Whose::Child => calm.child_calls,
        Whose::Messages => calm.messages,
    };
    let (mut hits, mut wrong) = (0, Vec::new());
    for nth in tried(calls) {
        case.before.iter().for_each(|words| do_it(words));
        let injection = Injection { whose, nth, fault: fault(nth) };
        let outcome = tracer::run(case.words, Some(injection));
        hits += usize::from(outcome.hit.is_some());
        let mut here = Vec::new();
        if outcome.hit.is_some() {
            judge(&outcome, &mut here);
        }
        let listed = call(&["runc", "list"]);
        if !listed.status.success() || !listed.stderr.is_empty() {
            here.push(format!("list: {}", text(&listed)));
        }
        let deleted = call(&["runc", "delete", "--force", BOX]);
        if !deleted.status.success() || !deleted.stderr.is_empty() {
            here.push(format!("delete --force: {}", text(&deleted)));
        }
        let left = world::left_since(&before);
        let clean = left.is_empty();
        here.extend(left.into_iter().map(|trace| format!("left: {trace}")));
        wrong.extend(here.into_iter().map(|what| format!("{injection:?}, call {:?}: {what}", outcome.hit)));
        // What is left once is left at all that follows.
        if !clean || wrong.len() >= 40 {
            break;
        }
    }
    println!("{calls} calls, {hits} tried");
    assert!(hits > 0, "{calls} calls, none tried");
    assert!(wrong.is_empty(), "{} calls\n{}", calls, wrong.join("\n"));
}

fn kill_all(case: &Case) {
    try_all(
        case,
        Whose::Runtime,
        |_| Fault::Kill,
        |outcome, wrong| {
            if outcome.status.is_some() {
                wrong.push(format!("it ended by itself: {outcome:?}"));
            }
        },
    );
}

/// A command that failed has to say why, once; and what it has begun has to be gone without `delete`.
fn fail_all(case: &Case, whose: Whose, judge: impl Fn(&mut Vec<String>)) {
    make_bundle();
    let before = world::traces();
    let fault = |nth: usize| Fault::Error(ERRORS[nth % ERRORS.len()]);
    try_all(case, whose, fault, |outcome, wrong| match outcome.status {
        Some(0) => judge(wrong),
        status => {
            let lines = outcome.stderr.lines().count();
            if status.is_none() || lines != 1 || outcome.stderr.contains("internal error") {
                wrong.push(format!("status {status:?}, said {:?}", outcome.stderr));
            }
            if case.before.is_empty() {
                let left = world::left_since(&before);
                wrong.extend(left.into_iter().map(|trace| format!("left after the error: {trace}")));
            }
        }
    });
}

/// A container that was made although a call failed has to be as closed as any.
fn fail_all_making(case: &Case, whose: Whose) {
    make_bundle();
    let start = |wrong: &mut Vec<String>| {
        if case.words[1] == "create" {
            let started = call(START.words);
            if !started.status.success() {
                wrong.push(format!("start: {}", text(&started)));
            }
        }
    };
    do_it(case.words);
    start(&mut Vec::new());
    let expected = walls_of_running().unwrap();
    assert!(expected.contains("NoNewPrivs:\t1") && expected.contains("net own: true"), "{expected}");
    do_it(&["runc", "delete", "--force", BOX]);
    fail_all(case, whose, |wrong| {
        start(wrong);
        match walls_of_running() {
            None => wrong.push("it was made and does not run".to_string()),
            Some(walls) if walls != expected => {
                wrong.push(format!("other walls:\n{}", difference(&expected, &walls)))
            }
            Some(_) => {}
        }
    });
}

fn difference(expected: &str, got: &str) -> String {
    let lines = |of: &str, without: &str, sign: &str| -> Vec<String> {
        of.lines()
            .filter(|line| !without.lines().any(|other| other == *line))
            .map(|line| format!("{sign}{line}"))
            .collect()
    };
    [lines(expected, got, "-"), lines(got, expected, "+")].concat().join("\n")
}

#[test]
#[ignore = "runs in the VM"]
fn killed_in_create() {
    kill_all(&CREATE);
}

#[test]
#[ignore = "runs in the VM"]
fn killed_in_run() {
    kill_all(&RUN);
}

#[test]
#[ignore = "runs in the VM"]
fn killed_in_start() {
    kill_all(&START);
}

#[test]
#[ignore = "runs in the VM"]
fn killed_in_exec() {
    kill_all(&EXEC);
}

#[test]
#[ignore = "runs in the VM"]
fn killed_in_delete() {
    kill_all(&DELETE);
}

#[test]
#[ignore = "runs in the VM"]
fn errors_in_create() {
    fail_all_making(&CREATE, Whose::Runtime);
}

#[test]
#[ignore = "runs in the VM"]
fn errors_in_the_child_of_create() {
    fail_all_making(&CREATE, Whose::Child);
}

#[test]
#[ignore = "runs in the VM"]
fn errors_in_start() {
    fail_all(&START, Whose::Runtime, |_| {});
}

#[test]
#[ignore = "runs in the VM"]
fn errors_in_exec() {
    fail_all(&EXEC, Whose::Runtime, |_| {});
}

#[test]
#[ignore = "runs in the VM"]
fn errors_in_the_child_of_exec() {
    fail_all(&EXEC, Whose::Child, |_| {});
}

#[test]
#[ignore = "runs in the VM"]
fn errors_in_delete() {
    fail_all(&DELETE, Whose::Runtime, |_| {});
}

#[test]
#[ignore = "runs in the VM"]
fn many_at_once_and_many_made_at_once() {
    make_bundle();
    let before = world::traces();
    let ids: Vec<String> = (0..200).map(|number| format!("many{number}")).collect();
    for half in ids.chunks(50) {
        std::thread::scope(|scope| {
            for id in half {
                scope.spawn(move || {
                    let words = ["create", "--bundle", BUNDLE, id];
                    let status =
                        Command::new("runc").args(words).stdin(Stdio::null()).stdout(Stdio::null()).status();
                    assert!(status.unwrap().success(), "{id}");
                });
            }
        });
    }
    let listed = call(&["runc", "list", "-q"]);
    assert_eq!(String::from_utf8(listed.stdout).unwrap().lines().count(), ids.len());
    ids.iter().for_each(|id| do_it(&["runc", "delete", "--force", id]));
    assert_eq!(world::left_since(&before), Vec::<String>::new());
}

#[test]
#[ignore = "runs in the VM"]
fn cycles_leave_the_machine_as_it_was() {
    let cycles: u32 = std::env::var("CORACLE_CYCLES").map_or(100, |cycles| cycles.parse().unwrap());
    make_bundle();
    let cycle = || {
        do_it(RUN.words);
        do_it(&["runc", "delete", "--force", BOX]);
    };
    // The first ones fill the kernel's caches.
    (0..20).for_each(|_| cycle());
    let (before, memory) = (world::traces(), used_kib());
    (0..cycles).for_each(|_| cycle());
    assert_eq!(world::left_since(&before), Vec::<String>::new());
    // A leak of one page in each cycle, or of what a namespace takes in every tenth, is more than this. The kernel frees
    // namespaces and cgroups behind the runtime's back, on a busy machine a while later; a leak stays.
    let limit = 4 * u64::from(cycles) + 2048;
    let deadline = Instant::now() + Duration::from_secs(60);
    let grown = loop {
        let grown = used_kib().saturating_sub(memory);
        if grown < limit || Instant::now() > deadline {
            break grown;
        }
        std::thread::sleep(Duration::from_millis(500));
    };
    assert!(grown < limit, "{grown} KiB more are used after {cycles} cycles, expected less than {limit}");
}

/// Memory that can't be had back, in KiB, from /proc/meminfo.
fn used_kib() -> u64 {
    std::fs::write("/proc/sys/vm/drop_caches", "3").unwrap();
    let text = std::fs::read_to_string("/proc/meminfo").unwrap();
    let field = |name: &str| -> u64 {
        let line = text.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    };
    field("MemTotal:") - field("MemAvailable:")
}

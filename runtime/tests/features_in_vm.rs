//! Features of the specification against the real kernel, by the shipped `runc`: what config.json asks for has to hold
//! in the container.
//!
//! In: the image: `runc`, the example root, BusyBox. Out: verdicts. Must never: run on a developer's machine by
//! accident, so all are ignored; in the VM they run with `features_in_vm --ignored --test-threads=1`.

#![allow(clippy::unwrap_used)] // helpers of tests are tests

use std::path::Path;
use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;
use serde_json::json;

const ROOTFS: &str = "/containers/mycontainer/rootfs";

/// A container's bundle, which goes with everything that was made of it.
struct Bundle {
    id: String,
    folder: PathBuf,
}

/// What a command said, both streams together, and its exit status.
#[derive(Debug, PartialEq)]
struct Said {
    text: String,
    status: Option<i32>,
}

fn run(command: &mut Command) -> Said {
    let output = command.output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    Said { text: String::from_utf8(text).unwrap().trim_end().to_string(), status: output.status.code() }
}

fn sh(script: &str) -> String {
    let said = run(Command::new("sh").args(["-c", script]));
    assert_eq!(said.status, Some(0), "{script}: {}", said.text);
    said.text
}

/// runc's default, with `script` as its program, changed by `patch` as RFC 7396 has it, but that lists are lengthened.
fn bundle(id: &str, script: &str, patch: Value) -> Bundle {
    let mut spec: Value = serde_json::from_str(include_str!("../src/oci/cli/default.json")).unwrap();
    merge(
        &mut spec,
        json!({"process": {"terminal": false, "args": null, "capabilities": null}, "root": {"path": ROOTFS}}),
    );
    merge(&mut spec, json!({"process": {"args": ["sh", "-c", script]}}));
    merge(&mut spec, patch);
    let folder = Path::new("/tmp").join(id);
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("config.json"), spec.to_string()).unwrap();
    Bundle { id: id.to_string(), folder }
}

fn merge(into: &mut Value, patch: Value) {
    match (into, patch) {
        (Value::Object(into), Value::Object(patch)) => {
            for (key, value) in patch {
                if value.is_null() {
                    into.remove(&key);
                } else {
                    merge(into.entry(key).or_insert(Value::Null), value);
                }
            }
        }
        (Value::Array(into), Value::Array(patch)) => into.extend(patch),
        (into, patch) => *into = patch,
    }
}

impl Bundle {
    /// `runc VERB FLAGS... ID`.
    fn runc(&self, verb: &str, flags: &[&str]) -> Said {
        let mut command = Command::new("runc");
        run(command.arg(verb).args(flags).arg(&self.id).current_dir(&self.folder))
    }

    /// The output of a container that has to succeed.
    fn output(&self) -> String {
        let said = self.runc("run", &[]);
        assert_eq!(said.status, Some(0), "{}", said.text);
        said.text
    }

    /// The error of a container that has to fail.
    fn error(&self) -> String {
        let said = self.runc("run", &[]);
        assert_eq!(said.status, Some(1), "{}", said.text);
        said.text
    }

    fn start(&self) {
        // The container keeps the streams that it gets, so they must not be pipes that somebody waits for.
        let mut command = Command::new("runc");
        command.args(["run", "-d", &self.id]).current_dir(&self.folder);
        let null = || std::process::Stdio::null();
        assert!(command.stdin(null()).stdout(null()).status().unwrap().success());
    }

    /// The output of `runc exec ID sh -c SCRIPT`.
    fn exec(&self, script: &str) -> String {
        let said = run(Command::new("runc").args(["exec", &self.id, "sh", "-c", script]));
        assert_eq!(said.status, Some(0), "{}", said.text);
        said.text
    }

    /// The output of `runc exec --process FILE ID`.
    fn exec_process(&self, process: Value) -> String {
        let file = self.folder.join("process.json");
        std::fs::write(&file, process.to_string()).unwrap();
        let said = self.runc("exec", &["--process", file.to_str().unwrap()]);
        assert_eq!(said.status, Some(0), "{}", said.text);
        said.text
    }
}

impl Drop for Bundle {
    fn drop(&mut self) {
        self.runc("delete", &["--force"]);
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

#[test]
#[ignore = "runs in the VM"]
fn schedules_hold_for_the_container_and_for_exec() {
    let patch = json!({"process": {"scheduler": {"policy": "SCHED_BATCH", "nice": 7},
        "ioPriority": {"class": "IOPRIO_CLASS_BE", "priority": 3}}});
    let container = bundle("schedule", "sleep 1000", patch);
    container.start();
    let ask = "chrt -p $P; ionice -p $P; cut -d' ' -f19 /proc/$P/stat";
    let is_batch = |text: String| {
        assert!(text.contains("SCHED_BATCH") && text.ends_with("best-effort: prio 3\n7"), "{text}");
    };
    is_batch(container.exec(&format!("P=1; {ask}")));
    is_batch(container.exec(&format!("P=$$; {ask}")));
    let text = container.exec_process(
        json!({"args": ["sh", "-c", format!("P=$$; {ask}")], "cwd": "/", "env": ["PATH=/bin:/usr/bin:/sbin:/usr/sbin"],
        "scheduler": {"policy": "SCHED_RR", "priority": 5, "flags": ["SCHED_FLAG_RESET_ON_FORK"]},
        "ioPriority": {"class": "IOPRIO_CLASS_IDLE"}}),
    );
    assert!(text.contains("SCHED_RR") && text.contains("priority: 5") && text.contains("\nidle"), "{text}");
}

#[test]
#[ignore = "runs in the VM"]
fn a_deadline_needs_all_processors() {
    let scheduler =
        json!({"policy": "SCHED_DEADLINE", "runtime": 420_000, "deadline": 1_000_000, "period": 1_000_000});
    let patch = json!({"process": {"scheduler": scheduler}, "linux": {"resources": {"cpu": {"cpus": "0"}}}});
    let error = bundle("deadline", "true", patch).error();
    assert!(error.contains("process scheduler can't be used together with AllowedCPUs"), "{error}");
    let patch = json!({"process": {"scheduler": scheduler}});
    assert!(bundle("deadline", "exec chrt -p $$", patch).output().contains("SCHED_DEADLINE"));
}

#[test]
#[ignore = "runs in the VM"]
fn exec_has_its_own_processors_and_the_container_not_its_callers() {
    let list = "grep Cpus_allowed_list: /proc/self/status | cut -f2";
    let all = sh(list);
    assert_eq!(all, "0-1", "this case needs two processors");
    let patch = json!({"process": {"execCPUAffinity": {"initial": "0", "final": "1"}}});
    let container = bundle("affinity", &format!("{list} > /dev/shm/first; sleep 1000"), patch);
    let start = format!(
        "cd {} && taskset 1 runc run -d affinity > /dev/null 2>&1 < /dev/null",
        container.folder.display()
    );
    sh(&start);
    assert_eq!(sh(&format!("taskset 1 runc exec affinity sh -c '{list}; cat /dev/shm/first'")), "1\n0-1");
    let process = json!({"args": ["sh", "-c", list], "cwd": "/", "env": ["PATH=/bin:/usr/bin"],
        "execCPUAffinity": {"initial": "1"}});
    assert_eq!(container.exec_process(process), all, "without a final list it has all");
}

#[test]
#[ignore = "runs in the VM"]
fn execution_domains_and_their_flags_hold_for_exec_too() {
    let patch = json!({"linux": {"personality": {"domain": "LINUX32", "flags": ["ADDR_NO_RANDOMIZE"]}}});
    let container = bundle("personality", "sleep 1000", patch);
    container.start();
    assert_eq!(
        container.exec("uname -m; cat /proc/1/personality /proc/self/personality"),
        "i686\n00040008\n00040008"
    );
}

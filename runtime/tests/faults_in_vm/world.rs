//! What a container can leave behind, and what keeps it in. In: the machine. Out: values to compare.
//! Must never: change anything.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;
use std::time::Instant;

/// How long what was killed may take to be gone.
const SETTLES_WITHIN: Duration = Duration::from_secs(20);

/// Processes, cgroups, mounts, state folders: one line each.
pub fn traces() -> BTreeSet<String> {
    let mut traces = BTreeSet::new();
    folders(Path::new("/sys/fs/cgroup"), "cgroup", &mut traces);
    folders(Path::new("/run/runc"), "state", &mut traces);
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    traces.extend(mounts.lines().map(|line| format!("mount {line}")));
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let pid = entry.file_name().into_string().unwrap();
        // Services of the machine come and go in its root cgroup; what a runtime starts is its program or in a cgroup.
        let Ok(program) = std::fs::read_link(entry.path().join("exe")) else { continue };
        let cgroup = std::fs::read_to_string(entry.path().join("cgroup")).unwrap_or_default();
        let ours = program.ends_with("runc") || program.to_string_lossy().contains("coracle");
        if cgroup.trim() != "0::/" || ours {
            traces.insert(format!("process {pid} {} {}", program.display(), cgroup.trim()));
        }
    }
    traces
}

fn folders(at: &Path, kind: &str, traces: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(at).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            traces.insert(format!("{kind} {}", entry.path().display()));
            folders(&entry.path(), kind, traces);
        }
    }
}

/// What is there now and was not `before`; empty as soon as nothing is.
pub fn left_since(before: &BTreeSet<String>) -> Vec<String> {
    let begun = Instant::now();
    loop {
        let left: Vec<String> = traces().difference(before).cloned().collect();
        if left.is_empty() || begun.elapsed() > SETTLES_WITHIN {
            return left;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// What keeps the process `pid` in: ids, capabilities, filters, limits, mounts, namespaces.
pub fn walls(pid: u32) -> String {
    let read = |file: &str| std::fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
    let status = read("status");
    let kept = ["Uid", "Gid", "Groups", "Cap", "NoNewPrivs", "Seccomp:", "Seccomp_filters"];
    let status = status.lines().filter(|line| kept.iter().any(|key| line.starts_with(key)));
    let mut walls: Vec<String> = status.map(str::to_string).collect();
    walls.extend(["oom_score_adj", "limits", "uid_map", "gid_map", "sessionid", "personality"].map(read));
    walls.extend(read("mountinfo").lines().map(without_numbers));
    for kind in ["cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts"] {
        let of = |who: &str| std::fs::read_link(format!("/proc/{who}/ns/{kind}")).unwrap_or_default();
        walls.push(format!("{kind} own: {}", of(&pid.to_string()) != of("self")));
    }
    let cgroup = read("cgroup");
    let cgroup = Path::new("/sys/fs/cgroup").join(cgroup.trim().trim_start_matches("0::/"));
    for file in ["memory.max", "pids.max", "cpu.max"] {
        walls.push(format!("{file} {}", std::fs::read_to_string(cgroup.join(file)).unwrap_or_default()));
    }
    for file in ["proc/sys/kernel/shm_rmid_forced", "etc/hostname"] {
        walls.push(format!("{file} {}", read(&format!("root/{file}"))));
    }
    walls.join("\n")
}

/// A line of mountinfo without ids, which differ from one container to the next (proc_pid_mountinfo(5)).
fn without_numbers(line: &str) -> String {
    let fields = line.split(' ').skip(3);
    let fields = fields.map(|field| if field.contains(':') && !field.contains('/') { "-" } else { field });
    fields.collect::<Vec<_>>().join(" ")
}

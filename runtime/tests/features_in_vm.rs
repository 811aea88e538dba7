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
    let mut spec: Value = serde_json::from_str(include_str!("../oci/src/cli/default.json")).unwrap();
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

#[test]
#[ignore = "runs in the VM"]
fn a_copied_up_tmpfs_begins_with_what_the_root_has() {
    let container = bundle(
        "copyup",
        "ls -l /data/folder | tail -n 1; cat /data/folder/file /data/link; stat -c %a /data; echo more > /data/new",
        json!({"mounts": [{"destination": "/data", "type": "tmpfs", "source": "tmpfs", "options": ["tmpcopyup"]}]}),
    );
    let root = own_root(&container);
    sh(&format!(
        "cd {root} && mkdir -p data/folder && echo text > data/folder/file && chmod 640 data/folder/file && \
         chown 7:8 data/folder/file && ln -s folder/file data/link && chmod 1770 data"
    ));
    let output = container.output();
    assert!(output.starts_with("-rw-r-----    1 7        8 "), "{output}");
    assert!(output.ends_with("file\ntext\ntext\n1770"), "{output}");
    assert!(!Path::new(&root).join("data/new").exists(), "the root itself was changed");
}

/// Gives the bundle a root of its own: the example's files, linked.
fn own_root(bundle: &Bundle) -> String {
    let root = bundle.folder.join("rootfs").display().to_string();
    sh(&format!("cp -a {ROOTFS} {root}"));
    let config = bundle.folder.join("config.json");
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, text.replace(&format!("\"{ROOTFS}\""), &format!("\"{root}\""))).unwrap();
    root
}

fn maps(container: u32, host: u32, size: u32) -> Value {
    json!([{"containerID": container, "hostID": host, "size": size}])
}

#[test]
#[ignore = "runs in the VM"]
fn idmapped_mounts_show_other_owners() {
    sh(
        "rm -rf /tmp/idmap-source; mkdir -p /tmp/idmap-source/below; touch /tmp/idmap-source/file; chown 5:6 /tmp/idmap-source/file",
    );
    sh("mount -t tmpfs tmpfs /tmp/idmap-source/below; touch /tmp/idmap-source/below/file");
    let ask = "cd /mnt/map; stat -c %u:%g file below/file";
    let mount = |options: Value, uids: Value, gids: Value| {
        let mut mount = json!({"destination": "/mnt/map", "source": "/tmp/idmap-source", "options": options});
        if !uids.is_null() {
            merge(&mut mount, json!({"uidMappings": uids, "gidMappings": gids}));
        }
        json!({"mounts": [{"destination": "/mnt", "type": "tmpfs", "source": "tmpfs"}, mount]})
    };
    let shown = |patch: Value| bundle("idmap", ask, patch).output();
    let plain = mount(json!(["rbind"]), maps(0, 1000, 100), maps(0, 2000, 100));
    assert_eq!(shown(plain), "1005:2006\n0:0", "the mount below keeps its owners");
    let recursive = mount(json!(["rbind", "ridmap"]), maps(0, 1000, 100), maps(0, 2000, 100));
    assert_eq!(shown(recursive), "1005:2006\n1000:2000");
    let user = json!({"linux": {"namespaces": [{"type": "user"}], "uidMappings": maps(0, 100_000, 1000),
        "gidMappings": maps(0, 100_000, 1000)}});
    let mut of_the_container = mount(json!(["rbind", "idmap"]), Value::Null, Value::Null);
    merge(&mut of_the_container, user);
    assert_eq!(shown(of_the_container), "5:6\n65534:65534");
    let error = bundle("idmap", "true", mount(json!(["bind"]), maps(0, 0, 1), json!([]))).error();
    assert!(error.contains("need both uidMappings and gidMappings"), "{error}");
    sh("umount /tmp/idmap-source/below; rm -r /tmp/idmap-source");
}

#[test]
#[ignore = "runs in the VM"]
fn a_user_namespace_can_be_joined_by_its_path() {
    let user = json!({"linux": {"namespaces": [{"type": "user"}], "uidMappings": maps(0, 100_000, 1000),
        "gidMappings": maps(0, 100_000, 1000)}});
    let owner = bundle("user-owner", "sleep 1000", user);
    owner.start();
    let pid = sh("runc state user-owner | sed -n 's/.*\"pid\": \\([0-9]*\\).*/\\1/p'");
    let path = format!("/proc/{pid}/ns/user");
    let join = json!({"linux": {"namespaces": [{"type": "user", "path": path}]}});
    let guest =
        bundle("user-guest", "echo $$; id -u; touch /dev/shm/file; hostname; sleep 1000", join.clone());
    assert_eq!(bundle("user-once", "echo $$; id -u; hostname", join.clone()).output(), "1\n0\nrunc");
    guest.start();
    let namespaces = "for kind in user pid mnt net uts ipc cgroup; do readlink /proc/self/ns/$kind; done";
    let (inside, outside) = (guest.exec(namespaces), owner.exec(namespaces));
    let same = inside.lines().zip(outside.lines()).filter(|(one, other)| one == other).count();
    assert_eq!(same, 1, "only the user namespace is shared: {inside} {outside}");
    assert_eq!(guest.exec("stat -c %u /dev/shm/file"), "0");
    let root = "stat -c %u /proc/$(runc state user-guest | sed -n 's/.*\"pid\": \\([0-9]*\\).*/\\1/p')/root/dev/shm/file";
    assert_eq!(sh(root), "100000");
    let mut other = join;
    merge(&mut other, json!({"linux": {"uidMappings": maps(0, 7, 1), "gidMappings": maps(0, 7, 1)}}));
    let error = bundle("user-other", "true", other).error();
    assert!(error.contains("linux.uidMappings: they are not those of the user namespace"), "{error}");
}

#[test]
#[ignore = "runs in the VM"]
fn a_user_namespace_has_devices_that_the_host_has_not() {
    let device = |path: &str, owner: u32| {
        json!({"path": path, "type": "c", "major": 1, "minor": 3,
        "fileMode": 0o640, "uid": owner, "gid": 11})
    };
    let user = |devices: Value| {
        json!({"linux": {"namespaces": [{"type": "user"}], "devices": devices,
        "uidMappings": maps(0, 100_000, 1000), "gidMappings": maps(0, 100_000, 1000)}})
    };
    // The host's ttyS0 is another device; its folder `deeper` is not there.
    let devices = json!([device("/dev/own", 10), device("/dev/ttyS0", 0), device("/dev/deeper/own", 999)]);
    let places = "/dev/own /dev/ttyS0 /dev/deeper/own";
    let ask = format!(
        "stat -c '%F %t:%T %a %u:%g' {places}; for file in {places}; do echo gone > $file && echo written; done"
    );
    let mounts = sh("cat /proc/mounts");
    let container = bundle("user-devices", &ask, user(devices));
    let of = |owner: u32| format!("character special file 1:3 640 {owner}:11\n");
    assert_eq!(container.output(), of(10) + &of(0) + &of(999) + "written\nwritten\nwritten");
    let error = bundle("user-devices-refused", "true", user(json!([device("/dev/own", 1000)]))).error();
    assert!(error.contains("/dev/own: its owner, 1000:11, is not mapped in the user namespace"), "{error}");
    assert_eq!(sh("cat /proc/mounts"), mounts, "a mount was left behind");
}

/// Such a configuration has a bind mount, of /sys, which nobody but the user's own process can open for it; and only as root of
/// the container's user namespace may the user's exec join its pid namespace.
#[test]
#[ignore = "runs in the VM"]
fn a_plain_user_runs_what_spec_rootless_writes() {
    use std::os::unix::process::CommandExt;
    const USER: u32 = 1000;
    let folder = Path::new("/tmp/plain");
    std::fs::create_dir_all(folder).unwrap();
    std::os::unix::fs::chown(folder, Some(USER), Some(USER)).unwrap();
    let runc = |words: &[&str]| {
        let mut command = Command::new("runc");
        command.args(words).current_dir(folder).env("XDG_RUNTIME_DIR", folder).uid(USER).gid(USER);
        run(&mut command)
    };
    let done = |said: &Said| assert_eq!(said.status, Some(0), "{}", said.text);
    done(&runc(&["spec", "--rootless"]));
    let path = folder.join("config.json");
    let mut config: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    let script = "tr -s ' ' < /proc/self/uid_map; grep -c ' /sys sysfs ro,' /proc/self/mounts";
    config["process"]["terminal"] = json!(false);
    config["process"]["args"] = json!(["sh", "-c", script]);
    config["root"]["path"] = json!("/containers/shell/rootfs");
    std::fs::write(&path, config.to_string()).unwrap();
    let said = runc(&["run", "plain"]);
    done(&said);
    assert_eq!(said.text.trim(), "0 1000 1\n1");
    assert_eq!(runc(&["list", "-q"]).text, "", "it is gone");
    // Exec joins the user namespace before all others.
    config["process"]["args"] = json!(["sleep", "1000"]);
    std::fs::write(&path, config.to_string()).unwrap();
    run(Command::new("sh")
        .args(["-c", "exec runc run -d plain > out 2>&1 < /dev/null"])
        .current_dir(folder)
        .env("XDG_RUNTIME_DIR", folder)
        .uid(USER)
        .gid(USER));
    let script = "tr -s ' ' < /proc/self/uid_map; cat /proc/1/comm; test $$ -gt 1 && id -u; exit 7";
    let said = runc(&["exec", "plain", "sh", "-c", script]);
    assert_eq!((said.text.trim(), said.status), ("0 1000 1\nsleep\n0", Some(7)));
    done(&runc(&["delete", "--force", "plain"]));
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
#[ignore = "runs in the VM"]
fn recursive_attributes_hold_for_the_mounts_below() {
    sh(
        "mkdir -p /tmp/below; mount -t tmpfs top /tmp/below; mkdir /tmp/below/sub; mount -t tmpfs low /tmp/below/sub",
    );
    let ask = "grep ' /mnt' /proc/self/mounts | grep -v ' /mnt tmpfs' | cut -d' ' -f1,4 | cut -d, -f1-4";
    let with = |options: Value| {
        let mounts = json!([{"destination": "/mnt", "type": "tmpfs", "source": "tmpfs"},
            {"destination": "/mnt/it", "source": "/tmp/below", "options": options}]);
        bundle("recursive", ask, json!({"mounts": mounts})).output()
    };
    let flags = |text: String| -> Vec<Vec<String>> {
        let words =
            |line: &str| line.split([' ', ',']).filter(|word| !word.is_empty()).map(str::to_string).collect();
        text.lines().map(words).collect()
    };
    for (options, on_top, below) in [
        (json!(["rbind", "rro", "rnosuid", "rnodev"]), true, true),
        (json!(["rbind", "ro", "nosuid", "nodev"]), true, false),
    ] {
        let shown = flags(with(options));
        let has =
            |line: &[String]| ["ro", "nosuid", "nodev"].iter().all(|flag| line.contains(&flag.to_string()));
        assert_eq!((shown[0][0].as_str(), has(&shown[0])), ("top", on_top), "{shown:?}");
        assert_eq!((shown[1][0].as_str(), has(&shown[1])), ("low", below), "{shown:?}");
    }
    sh("umount /tmp/below/sub /tmp/below; rmdir /tmp/below");
}

#[test]
#[ignore = "runs in the VM"]
fn the_root_has_the_propagation_that_was_asked_for() {
    for (word, tag) in
        [("shared", "shared:"), ("rshared", "shared:"), ("unbindable", "unbindable"), ("private", "")]
    {
        // What stands between the options of the mount and the dash (proc_pid_mountinfo(5)).
        let ask = "sed -n 's/^[0-9]* [0-9]* [0-9:]* [^ ]* \\/ [^ ]* \\(.*\\)- .*/\\1/p' /proc/self/mountinfo | head -n 1";
        let shown = bundle("propagation", ask, json!({"linux": {"rootfsPropagation": word}})).output();
        if tag.is_empty() {
            assert_eq!(shown.trim(), "", "{word}");
        } else {
            assert!(shown.starts_with(tag), "{word}: {shown}");
        }
    }
}

/// Takes one container process state, as listeners do it: by one recvmsg(2), fd and text. Answers the first call by closing
/// the fd, so that it fails with ENOSYS.
fn listen_once(listener: std::os::unix::net::UnixListener) -> std::thread::JoinHandle<Value> {
    std::thread::spawn(move || {
        use rustix::net::RecvAncillaryMessage;
        let (connection, _) = listener.accept().unwrap();
        let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = rustix::net::RecvAncillaryBuffer::new(&mut space);
        let mut text = [0; 4096];
        let mut into = [std::io::IoSliceMut::new(&mut text)];
        let flags = rustix::net::RecvFlags::CMSG_CLOEXEC;
        let received = rustix::net::recvmsg(&connection, &mut into, &mut control, flags).unwrap();
        let fd = control.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
            _ => None,
        });
        let fd = fd.unwrap();
        let mut poll = [rustix::event::PollFd::new(&fd, rustix::event::PollFlags::IN)];
        let limit = rustix::event::Timespec { tv_sec: 20, tv_nsec: 0 };
        assert_eq!(rustix::event::poll(&mut poll, Some(&limit)), Ok(1), "no call arrived");
        serde_json::from_slice(&text[..received.bytes]).unwrap()
    })
}

#[test]
#[ignore = "runs in the VM"]
fn a_listener_hears_the_calls_of_the_container_and_of_exec() {
    let path = "/tmp/seccomp-listener";
    for no_new_privileges in [false, true] {
        let _ = std::fs::remove_file(path);
        let patch = json!({"process": {"noNewPrivileges": no_new_privileges}, "annotations": {"org.x": "y"},
            "linux": {"seccomp": {"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": path, "listenerMetadata": "meta",
                "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_NOTIFY"}]}}});
        let container = bundle("notify", "mkdir /dev/shm/new 2> /dev/shm/error; sleep 1000", patch);
        assert!(container.error().contains("failed to connect with seccomp agent"), "nobody listens yet");
        let socket = std::os::unix::net::UnixListener::bind(path).unwrap();
        let listener = listen_once(socket.try_clone().unwrap());
        container.start();
        let state = listener.join().unwrap();
        assert_eq!((&state["fds"], &state["metadata"]), (&json!(["seccompFd"]), &json!("meta")));
        assert_eq!(
            (&state["state"]["id"], &state["state"]["status"]),
            (&json!("notify"), &json!("creating"))
        );
        assert_eq!(
            (&state["state"]["pid"], &state["state"]["annotations"]["org.x"]),
            (&state["pid"], &json!("y"))
        );
        let listener = listen_once(socket);
        let output = container.exec("mkdir /dev/shm/other 2>&1; cat /dev/shm/error");
        assert_eq!(output.matches("Function not implemented").count(), 2, "{output}");
        let exec = listener.join().unwrap();
        assert_eq!((&exec["state"]["status"], &exec["state"]["pid"]), (&json!("running"), &state["pid"]));
        assert_ne!(exec["pid"], state["pid"]);
    }
}

/// Until the listener has its fd, the process may only call what no listener is asked about: it says so by write(2), which
/// no filter may notify of, and asks for no memory.
#[test]
#[ignore = "runs in the VM"]
fn a_listener_may_hear_the_calls_of_the_handshake() {
    let path = "/tmp/seccomp-listener-all";
    let _ = std::fs::remove_file(path);
    let socket = std::os::unix::net::UnixListener::bind(path).unwrap();
    let names = ["sendto", "sendmsg", "writev", "brk", "mmap", "munmap", "openat"];
    let rules = json!([{"names": names, "action": "SCMP_ACT_NOTIFY"}]);
    let seccomp = json!({"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": path, "syscalls": rules});
    let container = bundle("notify-all", "true", json!({"linux": {"seccomp": seccomp}}));
    let listener = listen_once(socket);
    // The listener lets the first call fail, so the container does not start; it would hang if nobody heard the call.
    let error = container.error();
    listener.join().unwrap();
    assert!(error.contains("unable to start container process"), "{error}");
}

#[test]
#[ignore = "runs in the VM"]
fn readiness_is_handed_on_to_the_service_manager() {
    use std::os::unix::fs::MetadataExt;
    use std::os::unix::net::UnixDatagram;
    let address = "/tmp/service-manager";
    let manager = UnixDatagram::bind(address).unwrap();
    manager.set_read_timeout(Some(std::time::Duration::from_secs(30))).unwrap();
    let hear = || {
        let mut message = [0; 64];
        let length = manager.recv(&mut message).unwrap();
        String::from_utf8_lossy(&message[..length]).into_owned()
    };
    for (id, verbs) in [("ready-run", vec!["run -d"]), ("ready-start", vec!["create", "start"])] {
        let container = bundle(id, "stat -c %i $NOTIFY_SOCKET > /dev/shm/socket; sleep 1000", json!({}));
        let (last, first) = verbs.split_last().unwrap();
        let runc = |verb: &str| {
            let null = std::process::Stdio::null;
            let mut command = Command::new("runc");
            command.args(verb.split(' ')).arg(id).env("NOTIFY_SOCKET", address);
            command.current_dir(&container.folder).stdin(null()).stdout(null()).spawn().unwrap()
        };
        for verb in first {
            assert!(runc(verb).wait().unwrap().success());
        }
        let mut starting = runc(last);
        // The program runs; whoever started it waits for its word.
        let seen =
            sh(&format!("until runc exec {id} cat /dev/shm/socket 2> /dev/null | grep .; do sleep 1; done"));
        let socket = format!("/run/runc/{id}/notify/notify.sock");
        assert_eq!(seen, std::fs::metadata(&socket).unwrap().ino().to_string());
        assert_eq!(starting.try_wait().unwrap(), None);
        UnixDatagram::unbound().unwrap().send_to(b"STATUS=up\nREADY=1", &socket).unwrap();
        let pid = sh(&format!("runc state {id} | sed -n 's/.*\"pid\": \\([0-9]*\\).*/\\1/p'"));
        assert_eq!([hear(), hear(), hear()], ["READY=1\n", &format!("MAINPID={pid}\n"), "BARRIER=1"]);
        assert!(starting.wait().unwrap().success());
    }
    std::fs::remove_file(address).unwrap();
}

#[test]
#[ignore = "runs in the VM"]
fn network_devices_move_with_their_addresses() {
    sh("ip link add nd0 type dummy; ip link add nd1 type dummy; ip addr add 169.254.169.13/32 dev nd0; \
        ip addr add fd00::7/64 dev nd0");
    let patch = json!({"linux": {"netDevices": {"nd0": {"name": "wan"}, "nd1": {}}}});
    let container = bundle("devices", "sleep 1000", patch);
    container.start();
    let shown = container.exec("ip -o addr show wan; ip -o link show nd1; ip -o link show lo");
    for part in ["inet 169.254.169.13/32", "inet6 fd00::7/64", "nd1: <BROADCAST,NOARP,UP", "lo: <LOOPBACK,UP"]
    {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    assert_eq!(sh("ip -o link | grep -c nd[01] || true"), "0");
    let error = bundle("devices-none", "true", json!({"linux": {"netDevices": {"nd0": {}}}})).error();
    assert!(error.contains("move into the container the network device nd0: no such device"), "{error}");
}

#[test]
#[ignore = "runs in the VM"]
fn memory_policies_hold_or_are_refused_by_a_kernel_without_nodes() {
    let patch = json!({"linux": {"memoryPolicy": {"mode": "MPOL_INTERLEAVE", "nodes": "0"}}});
    let container = bundle("policy", "head -n 1 /proc/self/numa_maps | cut -d' ' -f2", patch);
    if Path::new("/proc/self/numa_maps").exists() {
        assert_eq!(container.output(), "interleave:0");
    } else {
        assert!(container.error().contains("linux.memoryPolicy: this kernel has no memory nodes"));
    }
}

#[test]
#[ignore = "runs in the VM"]
fn landlock_rules_of_the_annotation_hold_for_exec_too() {
    let rules = json!({"read": ["/bin", "/usr", "/sbin", "/proc", "/dev/null"], "write": ["/dev/shm"], "bindTcp": [80]});
    for no_new_privileges in [false, true] {
        let patch = json!({"annotations": {"org.coracle.landlock": rules.to_string()},
            "process": {"noNewPrivileges": no_new_privileges}});
        let container = bundle("landlock", "sleep 1000", patch);
        container.start();
        let try_all = "echo a > /dev/shm/file && cat /dev/shm/file; ls /etc 2>&1; \
            echo b 2>&1 > /dev/mqueue/x; for port in 80 81; do nc -l -p $port 2>&1 & sleep 1; kill $!; done; true";
        let said = container.exec(try_all);
        assert!(said.starts_with("a\n"), "{said}");
        assert_eq!(
            said.matches("ermission denied").count(),
            3,
            "folder, file and port 81, not port 80: {said}"
        );
    }
    let wrong = json!({"annotations": {"org.coracle.landlock": "{\"reed\": []}"}});
    assert!(
        bundle("landlock-wrong", "true", wrong).error().contains("annotations.org.coracle.landlock: reed")
    );
}

#[test]
#[ignore = "runs in the VM"]
fn what_this_kernel_lacks_is_refused_by_its_field() {
    let error = |patch: Value| bundle("lacking", "true", patch).error();
    let selinux = error(json!({"process": {"selinuxLabel": "system_u:system_r:container_t:s0"}}));
    assert!(
        selinux.contains("process.selinuxLabel: selinux label is specified in config, but selinux"),
        "{selinux}"
    );
    let mounts = error(json!({"linux": {"mountLabel": "system_u:object_r:container_file_t:s0"}}));
    assert!(mounts.contains("linux.mountLabel: selinux label is specified"), "{mounts}");
    let apparmor = error(json!({"process": {"apparmorProfile": "docker-default"}}));
    assert!(apparmor.contains("unable to apply apparmor profile"), "{apparmor}");
    let unconfined = json!({"process": {"apparmorProfile": "unconfined"}});
    assert_eq!(bundle("lacking", "echo fine", unconfined).output(), "fine");
    let rdt = error(json!({"linux": {"intelRdt": {"closID": "gold"}}}));
    assert!(
        rdt.contains("linux.intelRdt: intelRdt is specified in config, but Intel RDT is not enabled"),
        "{rdt}"
    );
    assert!(!Path::new("/run/runc/lacking").exists() && !Path::new("/sys/fs/cgroup/lacking").exists());
}

#[test]
#[ignore = "runs in the VM"]
fn a_stream_that_is_the_null_device_is_the_containers_own() {
    let container = bundle("null", "sleep 1000", json!({}));
    container.start();
    let devices = container.exec("stat -L -c %d /proc/1/fd/0 /proc/1/fd/1 /dev/null");
    let devices: Vec<&str> = devices.lines().collect();
    assert!(devices.len() == 3 && devices.iter().all(|device| *device == devices[2]), "{devices:?}");
}

#[test]
#[ignore = "runs in the VM"]
fn features_are_told_and_criu_is_missed() {
    let features: Value = serde_json::from_str(&sh("runc features")).unwrap();
    assert_eq!(
        (&features["ociVersionMax"], &features["linux"]["cgroup"]["v2"]),
        (&json!("1.3.0"), &json!(true))
    );
    let container = bundle("checkpoint", "sleep 1000", json!({}));
    container.start();
    let said = container.runc("checkpoint", &["--image-path", "/tmp/image", "--leave-running"]);
    assert_eq!(said.status, Some(1));
    assert!(said.text.contains("criu was not found in $PATH"), "{}", said.text);
    assert_eq!(container.exec("echo still there"), "still there");
    let said = sh("cd /tmp/checkpoint; mkdir -p /tmp/image; echo '[]' > /tmp/image/descriptors.json; \
                   runc restore -d --image-path /tmp/image again 2>&1; runc list -q; ls /sys/fs/cgroup");
    assert!(said.contains("criu was not found in $PATH"), "{said}");
    assert!(!said.lines().any(|line| line == "again"), "nothing is left: {said}");
}

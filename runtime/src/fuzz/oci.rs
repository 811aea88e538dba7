//! The OCI runtime's targets: config.json, process.json, resources.json, seccomp sections, state.json, words.
//!
//! In: bytes. Out: nothing, or a panic. Must never: touch the machine.

use std::path::Component;
use std::path::Path;

use super::nulls;
use cni::ports;
use oci::cgroup::CgroupPlan;
use oci::cgroup::Facts;
use oci::cgroup::devices;
use oci::cgroup::limits;
use oci::cgroup::limits::InForce;
use oci::cli::exec;
use oci::cli::update;
use oci::plan::Plan;
use oci::seccomp::oracle;
use oci::seccomp::oracle::Choices;
use oci::seccomp::oracle::Random;
use oci::store;
use oci::store::Container;
use oci::store::Record;
use oci::store::Status;
use oci::topic::process;
use spec::Process;
use spec::Seccomp;
use spec::Spec;

/// A host that has everything, so that nothing is refused for want of it.
fn facts() -> Facts {
    let controllers = ["cpuset", "cpu", "io", "memory", "hugetlb", "pids", "rdma", "misc"];
    Facts {
        mount: "/sys/fs/cgroup".into(),
        hybrid: false,
        controllers: controllers.map(str::to_string).to_vec(),
        own: "/user.slice/x.scope".into(),
        manager: None,
    }
}

/// config.json -> Plan.
pub fn config(input: &[u8]) {
    nulls::check(input);
    let Ok(spec) = spec::parse::<Spec>("config.json", input) else { return };
    same_again(&spec);
    let Ok(plan) = Plan::resolve(&spec, "box", Path::new("/bundle"), &facts(), None) else { return };
    let cgroup = plan.cgroup.path();
    assert!(cgroup.starts_with("/sys/fs/cgroup") && is_plain(&cgroup), "{}", cgroup.display());
    assert!(cgroup != Path::new("/sys/fs/cgroup"), "the container's cgroup is the root");
    devices::compile(&plan.cgroup.devices);
    check_program(&plan.process);
}

/// `exec --process` -> what is run.
pub fn process(input: &[u8]) {
    nulls::check(input);
    let Ok(process) = spec::parse::<Process>("process.json", input) else { return };
    same_again(&process);
    let own = oci::cli::spec::default_spec().process;
    let completed = exec::completed(process.clone(), own.as_ref());
    // What is said in the file is what holds.
    assert_eq!(
        (&completed.args, &completed.env, &completed.user),
        (&process.args, &process.env, &process.user)
    );
    for process in [process, completed] {
        if let Ok(plan) = process::plan(&process) {
            check_program(&plan);
        }
    }
}

fn check_program(plan: &process::ProcessPlan) {
    assert!(!plan.args.is_empty() && plan.cwd.is_absolute());
    let mut names: Vec<&[u8]> = Vec::new();
    for variable in &plan.env {
        let name = variable.to_bytes().split(|byte| *byte == b'=').next().unwrap_or_default();
        assert!(!name.is_empty() && name.len() < variable.to_bytes().len(), "{variable:?}");
        names.push(name);
    }
    let all = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), all, "a variable comes twice: {:?}", plan.env);
}

/// `update -r` -> what is written to which file.
pub fn resources(input: &[u8]) {
    nulls::check(input);
    let Ok(resources) = update::from_json("standard input", input) else { return };
    same_again(&resources);
    let in_force =
        InForce { cpu_quota: Some("50000".to_string()), memory: Some(1 << 30), swap: Some(1 << 20) };
    for in_force in [InForce::default(), in_force] {
        for setting in limits::settings(&resources, &in_force).unwrap_or_default() {
            let file = &setting.file;
            assert!(!file.contains(['/', '\0']) && file.contains('.'), "{setting:?}");
            assert!(!file.starts_with('.'), "{setting:?}");
            // The kernel takes one line in a write.
            assert!(!setting.value.contains(['\n', '\0']), "{setting:?}");
        }
    }
    if let Ok(plan) = CgroupPlan::resolve(None, "box", Some(&resources), &facts()) {
        devices::compile(&plan.devices);
    }
}

/// How many calls of an architecture are asked for: of many inputs each a little.
const NUMBERS_MAX: usize = 16;

/// A `seccomp` section as JSON, or choices that make one: the compiled filter means what the rules say.
pub fn seccomp(input: &[u8]) {
    let mut choices = Bytes(input);
    let native = choices.pick(&oracle::ALL_ARCHES);
    let profile = match choices.0 {
        json @ [b'{', ..] => match spec::parse::<Seccomp>("seccomp", json) {
            Ok(profile) => profile,
            Err(_) => return,
        },
        _ => oracle::profile(&mut choices),
    };
    let seed = input.iter().fold(7, |seed: u64, byte| seed.wrapping_mul(31).wrapping_add(u64::from(*byte)));
    // One that can't be compiled has been told why.
    let _ = oracle::compare(&profile, native, &mut Random::new(seed), NUMBERS_MAX);
}

/// Choices by the bytes at hand; 0 when there are no more.
struct Bytes<'a>(&'a [u8]);

impl Choices for Bytes<'_> {
    fn next(&mut self) -> u64 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        u64::from(*first)
    }

    /// Every other value is a whole number of the input's.
    fn value(&mut self) -> u64 {
        let ends = [0, 1, 2, 0xff, 0x7fff_ffff, 0x8000_0000, 0xffff_fffe, 0xffff_ffff];
        match (self.next(), self.0.split_at_checked(8)) {
            (128.., Some((number, rest))) => {
                self.0 = rest;
                number.iter().fold(0, |value, byte| (value << 8) | u64::from(*byte))
            }
            (first, _) => (ends[(first % 8) as usize] << 32) | ends[(first / 8 % 8) as usize],
        }
    }
}

/// state.json -> what `state`, `list` and hooks tell; and /proc/PID/stat, which says whether the process is still there.
pub fn state(input: &[u8]) {
    nulls::check(input);
    let _ = store::parse_stat(&String::from_utf8_lossy(input));
    let Ok(record) = spec::parse::<Record>("state.json", input) else { return };
    let text = spec::text("state.json", &record).unwrap_or_else(|error| panic!("{error}"));
    let again: Record = spec::parse("state.json", &text).unwrap_or_else(|error| panic!("{error}"));
    let text_again = spec::text("state.json", &again).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(String::from_utf8_lossy(&text), String::from_utf8_lossy(&text_again));
    let container = Container { record, folder: "/run/runc/box".into() };
    for status in [Status::Creating, Status::Running, Status::Stopped] {
        let told = container.hook_state(status);
        assert!(
            serde_json::from_slice::<serde_json::Value>(&told).is_ok(),
            "{}",
            String::from_utf8_lossy(&told)
        );
    }
}

/// `exec --user`, container ids, `update --memory`, `cni attach --publish`: each line one word.
pub fn words(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    for word in text.lines() {
        let user = exec::parse_user(word).ok().map(|user| (user.uid, user.gid));
        assert_eq!(user, plain_user(word), "--user {word:?}");
        if store::check_id(word).is_ok() {
            let components: Vec<Component<'_>> = Path::new(word).components().collect();
            assert!(matches!(components[..], [Component::Normal(_)]), "id {word:?}");
        }
        if let Ok(bytes) = update::parse_bytes(word) {
            assert!(bytes >= -1 && (bytes != -1 || word == "-1"), "{word:?}: {bytes}");
            let whole = word.strip_suffix(['k', 'K']).unwrap_or(word).parse::<i64>();
            let unit = if word.ends_with(['k', 'K']) { 1024 } else { 1 };
            assert!(whole.is_err() || whole == Ok(bytes / unit), "{word:?}: {bytes}");
        }
        if let Ok(mapping) = ports::parse(word) {
            for key in ["hostPort", "containerPort"] {
                assert!(matches!(mapping[key].as_u64(), Some(1..=65535)), "{word:?}: {mapping}");
            }
        }
    }
}

/// What `--user` may be, said once more.
fn plain_user(word: &str) -> Option<(u32, u32)> {
    let number = |word: &str| {
        if word.is_empty() || word.chars().any(|letter| !letter.is_ascii_digit()) {
            return None;
        }
        let digits = word.trim_start_matches('0');
        let value = if digits.is_empty() { 0 } else { digits.parse::<u128>().ok()? };
        u32::try_from(value).ok().filter(|value| *value < u32::MAX)
    };
    let parts: Vec<&str> = word.split(':').collect();
    match parts[..] {
        [uid] => Some((number(uid)?, 0)),
        [uid, gid] => Some((number(uid)?, number(gid)?)),
        _ => None,
    }
}

/// What was read is read again from what is written of it.
fn same_again<T: serde::Serialize + for<'a> serde::Deserialize<'a> + PartialEq + std::fmt::Debug>(value: &T) {
    let text = spec::text("again", value).unwrap_or_else(|error| panic!("{error}"));
    let again: T = spec::parse("again", &text).unwrap_or_else(|error| panic!("{error}: {value:?}"));
    assert_eq!(*value, again);
}

fn is_plain(path: &Path) -> bool {
    path.components().all(|part| matches!(part, Component::RootDir | Component::Normal(_)))
}

//! The state directory: one folder a container, `<root>/<id>`. In: an id. Out: what was noted down of a container, and
//! its status, derived from its process and the exec fifo. Must never: store a status, or write a file in place.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::path::PathBuf;

use rustix::fs::Mode;
use rustix::io::Errno;
use rustix::process::Pid;
use serde::Deserialize;
use serde::Serialize;

use super::cgroup::Cgroup;
use super::cgroup::systemd::Unit;
use super::report::Error;
use super::report::Fails;
use super::seccomp::Cache;
use spec::Spec;

/// An id is a folder's name, and part of others.
const ID_BYTES_MAX: usize = 255;
const RECORD: &str = "state.json";
const CGROUP_LINK: &str = "cgroup";
/// The fifo on which a container's process waits for `start`.
pub const FIFO: &str = "exec.fifo";
/// What a container's folder holds.
pub const FILES: [&str; 3] = [RECORD, CGROUP_LINK, FIFO];

/// All containers below one root.
#[derive(Debug, Clone)]
pub struct Store {
    root: PathBuf,
    /// Whether its containers are those of a caller without privileges.
    pub rootless: bool,
    /// Whether systemd makes the cgroups of new ones.
    pub systemd: bool,
}

/// What is noted down of a container when it is made, and never changes after.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record<S = Spec> {
    /// Its id.
    pub id: String,
    /// Its first process, in the runtime's pid namespace.
    pub pid: i32,
    /// When that process started, in clock ticks since boot: a pid alone is no identity (proc_pid_stat(5), field 22).
    pub start_time: u64,
    /// Its bundle, absolute.
    pub bundle: PathBuf,
    /// Its root file system, absolute.
    pub rootfs: PathBuf,
    /// RFC 3339, UTC, with nanoseconds.
    pub created: String,
    /// Its cgroup's folder; empty: it has none of its own, as a rootless container may.
    pub cgroup: PathBuf,
    /// The unit that has made it; empty: the runtime has.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub unit: String,
    /// Whether the user's systemd has that unit.
    #[serde(default)]
    pub is_user_unit: bool,
    /// Its configuration, as it was then.
    pub spec: S,
}

/// As much of a configuration as is told of a container.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Outline {
    oci_version: String,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
}

/// A configuration, whole or in part.
pub trait Configuration: for<'a> Deserialize<'a> {
    /// `ociVersion`
    fn oci_version(&self) -> &str;
    /// `annotations`
    fn annotations(&self) -> &BTreeMap<String, String>;
}

impl Configuration for Spec {
    fn oci_version(&self) -> &str {
        &self.oci_version
    }
    fn annotations(&self) -> &BTreeMap<String, String> {
        &self.annotations
    }
}

impl Configuration for Outline {
    fn oci_version(&self) -> &str {
        &self.oci_version
    }
    fn annotations(&self) -> &BTreeMap<String, String> {
        &self.annotations
    }
}

/// Status of a container (runtime.md, "State"), and runc's paused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// It is being made.
    Creating,
    /// Its process waits for `start`.
    Created,
    /// Its program runs.
    Running,
    /// It is frozen.
    Paused,
    /// Its process has ended.
    Stopped,
}

impl std::fmt::Display for Status {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.pad(match self {
            Status::Creating => "creating",
            Status::Created => "created",
            Status::Running => "running",
            Status::Paused => "paused",
            Status::Stopped => "stopped",
        })
    }
}

/// What `state` and `list -f json` print, and hooks get: runc's fields.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct State<'a> {
    oci_version: &'a str,
    id: &'a str,
    pid: i32,
    status: String,
    bundle: &'a Path,
    rootfs: &'a Path,
    created: &'a str,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    annotations: &'a BTreeMap<String, String>,
    /// Who has made it; hooks are not told.
    #[serde(skip_serializing_if = "Option::is_none")]
    owner: Option<&'a str>,
}

impl Store {
    /// The containers below `root`.
    pub fn new(root: PathBuf, rootless: bool) -> Store {
        Store { root, rootless, systemd: false }
    }

    /// The filters that were compiled for its containers.
    pub fn filters(&self) -> Cache {
        Cache::new(&self.root)
    }

    fn make_root(&self) -> Result<(), Error> {
        fs::DirBuilder::new().mode(0o700).recursive(true).create(&self.root).step("make", self.root.display())
    }

    /// Makes the folder of a new container; it is empty and nobody else's.
    ///
    /// # Errors
    /// An id that is none, or in use.
    pub fn claim(&self, id: &str) -> Result<PathBuf, Error> {
        check_id(id)?;
        let folder = self.root.join(id);
        let make = || fs::DirBuilder::new().mode(0o700).create(&folder);
        let made = match make() {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                self.make_root()?;
                make()
            }
            made => made,
        };
        match made {
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
                Err(Error::new(format!("container with given ID already exists: {id}")))
            }
            done => done.step("make", folder.display()).map(|()| folder),
        }
    }

    /// The folder of a container, whether it is there or not.
    ///
    /// # Errors
    /// An id that is none.
    pub fn folder(&self, id: &str) -> Result<PathBuf, Error> {
        check_id(id)?;
        Ok(self.root.join(id))
    }

    /// A container that is there.
    ///
    /// # Errors
    /// It is not.
    pub fn open(&self, id: &str) -> Result<Container, Error> {
        self.find(id)?.ok_or_else(|| Error::new(format!("container does not exist: {id}")))
    }

    /// A container, or None when it is not there, or is only just being made.
    ///
    /// # Errors
    /// Its record can't be read.
    pub fn find(&self, id: &str) -> Result<Option<Container>, Error> {
        self.look_up(id)
    }

    fn look_up<S: Configuration>(&self, id: &str) -> Result<Option<Container<S>>, Error> {
        let folder = self.folder(id)?;
        let path = folder.join(RECORD);
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error)
                if matches!(
                    error.kind(),
                    std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory
                ) =>
            {
                return Ok(None);
            }
            Err(error) => return Err(error).step("read", path.display()),
        };
        let record = spec::parse(&path.display().to_string(), &text).map_err(|error| {
            Error::new(format!("{error}; remove {} if no process of the container is left", folder.display()))
        })?;
        Ok(Some(Container { record, folder }))
    }

    /// All containers, by id. One whose record can't be read is reported beside them.
    ///
    /// # Errors
    /// The folder can't be listed.
    pub fn all(&self) -> Result<(Vec<Container<Outline>>, Vec<Error>), Error> {
        let mut ids: Vec<String> = match fs::read_dir(&self.root) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            entries => entries
                .step("list", self.root.display())?
                .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
                .filter(|name| check_id(name).is_ok())
                .collect(),
        };
        ids.sort();
        let (mut containers, mut errors) = (Vec::new(), Vec::new());
        for id in ids {
            match self.look_up(&id) {
                Ok(container) => containers.extend(container),
                Err(error) => errors.push(error),
            }
        }
        Ok((containers, errors))
    }
}

/// Letters, digits and `_+-.` name a container, as in runc; `.` and `..` don't.
pub fn check_id(id: &str) -> Result<(), Error> {
    let problem = if id.is_empty() {
        return Err(Error::new("container ID cannot be empty"));
    } else if id.len() > ID_BYTES_MAX {
        format!("it has {} bytes, expected at most {ID_BYTES_MAX}", id.len())
    } else if id == "."
        || id == ".."
        || !id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_+-.".contains(&byte))
    {
        "expected letters, digits and any of _ + - .".to_string()
    } else {
        return Ok(());
    };
    let shown: String = id.chars().take(40).collect();
    let dots = if shown.len() < id.len() { "..." } else { "" };
    Err(Error::new(format!("invalid container ID format: {shown}{dots}: {problem}")))
}

/// A container that was made.
#[derive(Debug)]
pub struct Container<S = Spec> {
    /// What is noted down of it.
    pub record: Record<S>,
    /// Its state folder.
    pub folder: PathBuf,
}

impl Container {
    /// The unit that has made its cgroup, if systemd was asked to.
    pub fn unit(&self) -> Option<Unit> {
        let Record { unit, is_user_unit, .. } = &self.record;
        (!unit.is_empty()).then(|| Unit { name: unit.clone(), is_user: *is_user_unit })
    }

    /// Notes which process is its first; in memory, until `save`.
    ///
    /// # Errors
    /// It is gone.
    pub fn note_process(&mut self, pid: Pid) -> Result<(), Error> {
        self.record.pid = pid.as_raw_nonzero().get();
        // Without it the container could not be told from whatever has its pid later.
        self.record.start_time = process_stat(self.record.pid)?.start_time;
        Ok(())
    }

    /// Notes a new container down, whole or not at all.
    ///
    /// # Errors
    /// The folder can't be written.
    pub fn save(&self) -> Result<(), Error> {
        let path = self.folder.join(RECORD);
        let text = spec::text(&path.display().to_string(), &self.record)?;
        let temporary = self.folder.join("state.json.new");
        fs::write(&temporary, text).and_then(|()| fs::rename(&temporary, &path)).step("write", path.display())
    }

    /// The state as hooks read it.
    pub fn hook_state(&self, status: Status) -> Vec<u8> {
        // A struct of strings and numbers always becomes JSON.
        serde_json::to_vec(&self.state(status, None)).unwrap_or_default()
    }
}

impl<S: Configuration> Container<S> {
    /// The fifo on which its process waits for `start`.
    pub fn fifo(&self) -> PathBuf {
        self.folder.join(FIFO)
    }

    /// Its first process, if that is still the same one.
    pub fn process(&self) -> Option<Pid> {
        let stat = process_stat(self.record.pid).ok()?;
        let ended = matches!(stat.state, b'Z' | b'X');
        if ended || stat.start_time != self.record.start_time { None } else { Pid::from_raw(self.record.pid) }
    }

    /// Its status, from the kernel.
    pub fn status(&self) -> Status {
        if self.process().is_none() {
            return Status::Stopped;
        }
        let frozen = Cgroup::open(&self.record.cgroup)
            .ok()
            .flatten()
            .is_some_and(|cgroup| cgroup.is_frozen().unwrap_or(false));
        if frozen {
            Status::Paused
        } else if self.fifo().exists() {
            Status::Created
        } else {
            Status::Running
        }
    }

    /// Who has made it: the owner of its folder. Nobody, if it was deleted just now.
    pub fn owner(&self, users: &Users) -> String {
        rustix::fs::lstat(&self.folder).map_or_else(|_| String::new(), |facts| users.name(facts.st_uid))
    }

    /// What is told of it, with `status`.
    pub fn state<'a>(&'a self, status: Status, owner: Option<&'a str>) -> State<'a> {
        let record = &self.record;
        State {
            oci_version: record.spec.oci_version(),
            id: &record.id,
            pid: if status == Status::Stopped { 0 } else { record.pid },
            status: status.to_string(),
            bundle: &record.bundle,
            rootfs: &record.rootfs,
            created: &record.created,
            annotations: record.spec.annotations(),
            owner,
        }
    }
}

/// Names of users.
#[derive(Debug, Default)]
pub struct Users {
    passwd: String,
}

impl Users {
    /// Reads /etc/passwd; where there is none, users have numbers.
    pub fn read() -> Users {
        Users { passwd: fs::read_to_string("/etc/passwd").unwrap_or_default() }
    }

    /// A user's name, or its number where it has none.
    pub fn name(&self, uid: u32) -> String {
        let name = self.passwd.lines().find_map(|line| {
            let mut fields = line.split(':');
            let name = fields.next()?;
            (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_string())
        });
        name.unwrap_or_else(|| uid.to_string())
    }
}

/// Three fields of /proc/PID/stat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProcessStat {
    /// R, S, D, Z, ...
    pub state: u8,
    /// The device number of its controlling terminal, 0 for none.
    pub terminal: u32,
    /// Clock ticks since boot.
    pub start_time: u64,
}

/// Reads /proc/PID/stat.
///
/// # Errors
/// There is no such process, or it can't be looked at.
pub fn process_stat(pid: i32) -> Result<ProcessStat, Error> {
    let path = format!("/proc/{pid}/stat");
    let text = sys::kernel_file::read(&path).step("read", &path)?;
    parse_stat(&text).ok_or_else(|| Error::new(format!("{path}: it is not as proc_pid_stat(5) has it")))
}

/// The name, field 2, is in parentheses and may itself hold some, and spaces.
pub fn parse_stat(text: &str) -> Option<ProcessStat> {
    let rest = &text[text.rfind(')')? + 1..];
    let fields: Vec<&str> = rest.split_whitespace().collect();
    Some(ProcessStat {
        state: *fields.first()?.as_bytes().first()?,
        terminal: fields.get(4)?.parse().ok()?,
        start_time: fields.get(19)?.parse().ok()?,
    })
}

/// Notes down which cgroup a container that is only just being made has: as a link, which is there whole or not at all.
///
/// # Errors
/// symlink(2)'s.
pub fn note_cgroup(folder: &Path, cgroup: &Path) -> Result<(), Error> {
    let link = folder.join(CGROUP_LINK);
    rustix::fs::symlink(cgroup, &link).step("make", link.display())
}

/// The cgroup that was noted down in a container's state folder, if it came to that.
pub fn noted_cgroup(folder: &Path) -> Option<PathBuf> {
    fs::read_link(folder.join(CGROUP_LINK)).ok()
}

/// Notes down which unit systemd is about to be asked for, and its cgroup. Other containers may be in one of that name.
///
/// # Errors
/// symlink(2)'s.
pub fn note_unit(folder: &Path, unit: &Unit, cgroup: &Path) -> Result<(), Error> {
    let link = folder.join(unit_link(unit.is_user));
    rustix::fs::symlink(cgroup, &link).step("make", link.display())
}

/// The unit that was asked for, if nobody knows what came of it.
pub fn noted_unit(folder: &Path) -> Option<(Unit, PathBuf)> {
    [false, true].into_iter().find_map(|is_user| {
        let cgroup = fs::read_link(folder.join(unit_link(is_user))).ok()?;
        let name = cgroup.file_name()?.to_str()?.to_string();
        Some((Unit { name, is_user }, cgroup))
    })
}

/// Takes that note away, since the cgroup is noted down.
pub fn forget_unit(folder: &Path, unit: &Unit) {
    let _ = rustix::fs::unlink(folder.join(unit_link(unit.is_user)));
}

fn unit_link(is_user: bool) -> &'static str {
    if is_user { "user-unit" } else { "unit" }
}

/// Makes the fifo on which a container's process waits for `start`.
///
/// # Errors
/// mkfifo(3)'s.
pub fn make_fifo(path: &Path) -> Result<(), Errno> {
    rustix::fs::mkfifoat(rustix::fs::CWD, path, Mode::from_raw_mode(0o622))
}

/// This moment, RFC 3339 in UTC with nanoseconds.
pub fn now() -> String {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let (year, month, day) = date(since.as_secs() / 86_400);
    let seconds = since.as_secs() % 86_400;
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:09}Z", since.subsec_nanos())
}

/// This moment, RFC 3339 in UTC, to the second: the log's form.
pub fn now_seconds() -> String {
    let now = now();
    format!("{}Z", now.split('.').next().unwrap_or_default())
}

/// Days since 1970 as a date of the Gregorian calendar, by counting in years that begin in March.
fn date(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (year_of_era + era * 400 + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_plain_names() {
        for good in ["a", "testcont", "a.b_c+d-e", "0", &"x".repeat(255)] {
            assert!(check_id(good).is_ok(), "{good}");
        }
        for bad in ["", ".", "..", "../x", "a/b", "a b", "a\n", "\u{e4}", &"x".repeat(256)] {
            let message = check_id(bad).unwrap_err().to_string();
            assert!(message.len() < 160 && message.contains("container ID"), "{message}");
        }
    }

    #[test]
    fn a_folder_is_claimed_once() {
        let root = std::env::temp_dir().join(format!("coracle-store-{}", std::process::id()));
        let store = Store::new(root.clone(), false);
        store.claim("box").unwrap();
        assert!(store.claim("box").unwrap_err().to_string().contains("already exists"));
        assert!(store.find("box").unwrap().is_none());
        assert!(store.open("box").unwrap_err().to_string().contains("does not exist"));
        fs::remove_dir_all(root).unwrap();
    }

    #[test]
    fn a_name_with_parentheses_does_not_shift_fields() {
        let text = "7 (a) b (c) S 1 7 7 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 4711 1 1 1";
        assert_eq!(parse_stat(text), Some(ProcessStat { state: b'S', terminal: 0, start_time: 4711 }));
        assert_eq!(parse_stat("nonsense"), None);
    }

    #[test]
    fn users_have_names_or_numbers() {
        let users =
            Users { passwd: "root:x:0:0:root:/root:/bin/sh\nbroken\nme:x:1000:1000::/:\n".to_string() };
        assert_eq!([0, 1000, 7].map(|uid| users.name(uid)), ["root", "me", "7"]);
    }

    #[test]
    fn dates_are_the_calendars() {
        assert_eq!(date(0), (1970, 1, 1));
        assert_eq!(date(19_782), (2024, 2, 29));
        assert_eq!(date(20_758), (2026, 11, 1));
    }
}

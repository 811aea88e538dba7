//! Shares of cache and memory bandwidth (Intel RDT; Documentation/arch/x86/resctrl.rst). In: `linux.intelRdt`. Out: a
//! group of the resctrl file system with the container's process in it. Must never: remove a group that has a name of its
//! own: others may use it.

use std::path::Path;
use std::path::PathBuf;

use rustix::process::Pid;

use super::mounts;
use crate::report::Error;
use crate::report::Fails;
use crate::undo::Undo;
use spec::Spec;
use spec::linux::IntelRdt;

/// A checked section.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    name: String,
    /// The container's id, which names its monitoring group.
    id: String,
    /// Whether the group is the container's own, and goes with it.
    is_own: bool,
    /// What a group that is there already has to have.
    schema: String,
    /// What is written whether it is there or not.
    schemata: String,
    monitors: bool,
}

/// Checks the section of the container `id`; None where there is none.
///
/// # Errors
/// A name that is no folder's; schemas of the wrong kind.
pub fn plan(spec: &Spec, id: &str) -> Result<Option<Group>, Error> {
    let Some(wanted) = spec.linux.as_ref().and_then(|linux| linux.intel_rdt.as_ref()) else {
        return Ok(None);
    };
    let wrong = |field: &str, text: &str, expected: &str| {
        Err(Error::spec(format!("linux.intelRdt.{field}"), format!("{text:?}: expected {expected}")))
    };
    let IntelRdt { clos_id, schemata, l3_cache_schema, mem_bw_schema, enable_monitoring } = wanted;
    if clos_id.contains(['/', '\n', '\0']) || matches!(clos_id.as_str(), "." | "..") {
        return wrong("closID", clos_id, "a folder's name");
    }
    if !l3_cache_schema.is_empty()
        && !l3_cache_schema.starts_with("L3")
        && !l3_cache_schema.starts_with("MB:")
    {
        return wrong("l3CacheSchema", l3_cache_schema, "a schema like L3:0=f0;1=f");
    }
    if !mem_bw_schema.is_empty() && (!mem_bw_schema.starts_with("MB:") || mem_bw_schema.contains('\n')) {
        return wrong("memBwSchema", mem_bw_schema, "a schema like MB:0=20;1=70");
    }
    Ok(Some(Group {
        name: if clos_id.is_empty() { id.to_string() } else { clos_id.clone() },
        id: id.to_string(),
        is_own: clos_id.is_empty(),
        schema: combined(l3_cache_schema, mem_bw_schema),
        schemata: schemata.iter().map(|line| format!("{line}\n")).collect(),
        monitors: *enable_monitoring,
    }))
}

/// Both schemas as lines: a bandwidth of its own replaces that among the cache's lines.
fn combined(l3_cache: &str, mem_bw: &str) -> String {
    let lines = l3_cache.lines().filter(|line| mem_bw.is_empty() || !line.starts_with("MB:"));
    let lines = lines.chain(Some(mem_bw)).filter(|line| !line.is_empty());
    lines.map(|line| format!("{line}\n")).collect()
}

/// Where the resctrl file system is mounted.
///
/// # Errors
/// Nowhere.
pub fn root() -> Result<PathBuf, Error> {
    let text = sys::kernel_file::read("/proc/self/mountinfo").step("read", "/proc/self/mountinfo")?;
    root_of(&text).ok_or_else(|| {
        Error::spec(
            "linux.intelRdt",
            "intelRdt is specified in config, but Intel RDT is not enabled: no resctrl file system is mounted \
             (mount -t resctrl resctrl /sys/fs/resctrl)",
        )
    })
}

fn root_of(mountinfo: &str) -> Option<PathBuf> {
    mounts::mounted(mountinfo).find(|mounted| mounted.kind == "resctrl").map(|mounted| mounted.place)
}

impl Group {
    /// Makes the group below `root` where it is missing, and puts `pid` into it; notes down how to take that back.
    ///
    /// # Errors
    /// Each names the file; a group that is there with other shares; none left (ENOSPC).
    pub fn enter(&self, root: &Path, pid: Pid, undo: &mut Undo) -> Result<(), Error> {
        let folder = root.join(&self.name);
        let asks = !self.schema.is_empty() || !self.schemata.is_empty();
        let exists = folder.is_dir();
        if !exists && !self.is_own && !asks {
            return Err(Error::spec(
                "linux.intelRdt.closID",
                format!("{} does not exist, and there is no schema to make it with", folder.display()),
            ));
        }
        let group = self.clone();
        let own_root = root.to_path_buf();
        undo.push(move || drop(group.remove(&own_root)));
        if !exists {
            std::fs::create_dir(&folder).step("make the resctrl group", folder.display())?;
        }
        if exists && !self.is_own && !self.schema.is_empty() {
            self.compare(&folder)?;
        } else {
            write_schemata(&folder, &self.schema)?;
        }
        write_schemata(&folder, &self.schemata)?;
        let mut tasks = vec![folder.join("tasks")];
        if self.monitors {
            let monitor = folder.join("mon_groups").join(&self.id);
            std::fs::create_dir(&monitor).step("make the monitoring group", monitor.display())?;
            tasks.push(monitor.join("tasks"));
        }
        for path in tasks {
            std::fs::write(&path, pid.as_raw_nonzero().to_string()).step("write", path.display())?;
        }
        Ok(())
    }

    /// A group that others made has to have the shares that are asked for.
    fn compare(&self, folder: &Path) -> Result<(), Error> {
        let path = folder.join("schemata");
        let text = std::fs::read_to_string(&path).step("read", path.display())?;
        let there: Vec<String> = text.lines().map(|line| line.split_whitespace().collect()).collect();
        match self.schema.lines().find(|line| !there.iter().any(|there| there == line)) {
            None => Ok(()),
            Some(line) => Err(Error::spec(
                "linux.intelRdt",
                format!(
                    "{line}: {} has other shares; make them equal, or leave the schemas out",
                    path.display()
                ),
            )),
        }
    }

    /// Removes what is the container's own.
    ///
    /// # Errors
    /// rmdir(2)'s; what is gone already is fine.
    pub fn remove(&self, root: &Path) -> Result<(), Error> {
        let folder = root.join(&self.name);
        let own = if self.is_own {
            folder
        } else if self.monitors {
            folder.join("mon_groups").join(&self.id)
        } else {
            return Ok(());
        };
        match std::fs::remove_dir(&own) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            done => done.step("remove the resctrl group", own.display()),
        }
    }

    /// Changes the shares (`update`).
    ///
    /// # Errors
    /// write(2)'s: EINVAL for a schema that the machine can't have; its own words are in `info/last_cmd_status`.
    pub fn update(&self, root: &Path, l3_cache: &str, mem_bw: &str) -> Result<(), Error> {
        write_schemata(&root.join(&self.name), &combined(l3_cache, mem_bw))
    }
}

fn write_schemata(folder: &Path, lines: &str) -> Result<(), Error> {
    if lines.is_empty() {
        return Ok(());
    }
    let path = folder.join("schemata");
    std::fs::write(&path, lines).step("write", path.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(json: &str) -> Result<Group, Error> {
        let spec = format!(r#"{{"ociVersion":"1.3.0","linux":{{"intelRdt":{json}}}}}"#);
        plan(&spec::parse("config.json", spec.as_bytes()).unwrap(), "box").map(Option::unwrap)
    }

    /// A folder that stands for the resctrl file system; rmdir there takes files along, which a real folder does not.
    struct Root(PathBuf);

    impl Root {
        fn new(name: &str) -> Root {
            let path = std::env::temp_dir().join(format!("coracle-rdt-{name}-{}", std::process::id()));
            let _ = std::fs::remove_dir_all(&path);
            std::fs::create_dir(&path).unwrap();
            Root(path)
        }

        fn read(&self, path: &str) -> String {
            std::fs::read_to_string(self.0.join(path)).unwrap_or_default()
        }

        fn enter(&self, group: &Group) -> Result<(), Error> {
            let mut undo = Undo::default();
            let done = group.enter(&self.0, Pid::from_raw(7).unwrap(), &mut undo);
            undo.keep();
            done
        }
    }

    impl Drop for Root {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn a_container_without_a_class_gets_a_group_of_its_own() {
        let root = Root::new("own");
        let group = of(r#"{"l3CacheSchema":"L3:0=f\nMB:0=10","memBwSchema":"MB:0=20"}"#).unwrap();
        root.enter(&group).unwrap();
        assert_eq!(
            (root.read("box/schemata"), root.read("box/tasks")),
            ("L3:0=f\nMB:0=20\n".into(), "7".into())
        );
        group.update(&root.0, "L3:0=3", "").unwrap();
        assert_eq!(root.read("box/schemata"), "L3:0=3\n");
        for file in ["schemata", "tasks"] {
            std::fs::remove_file(root.0.join("box").join(file)).unwrap();
        }
        group.remove(&root.0).unwrap();
        assert!(!root.0.join("box").exists());
    }

    #[test]
    fn a_class_that_is_there_has_to_have_the_shares_and_stays() {
        let root = Root::new("class");
        std::fs::create_dir_all(root.0.join("gold/mon_groups")).unwrap();
        std::fs::write(root.0.join("gold/schemata"), "    L3:0=f\n    MB:0=  20\n").unwrap();
        let good = of(r#"{"closID":"gold","memBwSchema":"MB:0=20","enableMonitoring":true}"#).unwrap();
        std::fs::create_dir_all(root.0.join("gold/mon_groups")).unwrap();
        root.enter(&good).unwrap();
        assert_eq!(root.read("gold/mon_groups/box/tasks"), "7");
        let other = of(r#"{"closID":"gold","memBwSchema":"MB:0=30"}"#).unwrap();
        assert!(root.enter(&other).unwrap_err().to_string().contains("has other shares"));
        of(r#"{"closID":"gold"}"#).unwrap().remove(&root.0).unwrap();
        assert!(root.0.join("gold").exists());
        let missing = of(r#"{"closID":"silver"}"#).unwrap();
        assert!(root.enter(&missing).unwrap_err().to_string().contains("does not exist"));
    }

    #[test]
    fn names_and_schemas_are_checked() {
        for (json, field) in [
            (r#"{"closID":"a/b"}"#, "linux.intelRdt.closID:"),
            (r#"{"closID":".."}"#, "linux.intelRdt.closID:"),
            (r#"{"l3CacheSchema":"0=f"}"#, "linux.intelRdt.l3CacheSchema:"),
            (r#"{"memBwSchema":"MB:0=1\nL3:0=f"}"#, "linux.intelRdt.memBwSchema:"),
        ] {
            let error = of(json).unwrap_err().to_string();
            assert!(error.starts_with(field), "{error}");
        }
    }

    #[test]
    fn the_file_system_is_found_by_its_type() {
        let text =
            "30 1 0:1 / /a rw - proc proc rw\n31 1 0:2 / /sys/fs/resctrl rw,relatime - resctrl resctrl rw\n";
        assert_eq!(root_of(text), Some("/sys/fs/resctrl".into()));
        assert_eq!(root_of("30 1 0:1 / /resctrl rw - proc proc rw\n"), None);
    }
}

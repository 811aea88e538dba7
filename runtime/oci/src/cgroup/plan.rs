//! config.json's words on cgroups -> one checked plan.
//!
//! In: `cgroupsPath`, the container's id, `resources`, `Facts`. Out: `CgroupPlan`.
//! Must never: look at the host; it has been looked at.

use std::path::Path;
use std::path::PathBuf;

use super::devices;
use super::facts::Facts;
use super::limits;
use super::limits::InForce;
use super::limits::Setting;
use super::systemd;
use super::systemd::Known;
use super::systemd::Scope;
use crate::report::Error;
use spec::resources::DeviceRule;
use spec::resources::Resources;

/// A cgroup to be made, with everything that is written to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CgroupPlan {
    pub(super) mount: PathBuf,
    /// The directories from the mount point down, at least one.
    pub(super) components: Vec<String>,
    /// What the root hands down at most.
    pub(super) controllers: Vec<String>,
    pub(super) settings: Vec<Setting>,
    /// Which devices may be used, in order; the last one that matches decides.
    pub devices: Vec<devices::Rule>,
    /// Whether config.json names no path.
    is_unnamed: bool,
    /// Who owns it; none: who makes it.
    pub owner: Option<u32>,
    /// What systemd is asked for; none: the runtime makes the directory.
    pub scope: Option<Scope>,
}

impl CgroupPlan {
    /// Checks and converts everything. An absolute `cgroups_path` counts from the mount point, a relative one, or
    /// `id` when there is none, from beside the runtime's own cgroup (which has processes, so that it can't hand
    /// controllers down itself), as in runc. Where systemd makes cgroups it names a scope.
    ///
    /// # Errors
    /// A path that leads out or nowhere; a limit that is wrong, or that no controller of the host gives.
    pub fn resolve(
        cgroups_path: Option<&str>,
        id: &str,
        resources: Option<&Resources>,
        facts: &Facts,
    ) -> Result<CgroupPlan, Error> {
        let named = cgroups_path.unwrap_or_default();
        let (scope, components) = match &facts.manager {
            Some(manager) => Scope::resolve(named, id, manager).map(|(scope, path)| (Some(scope), path))?,
            None => (None, path_components(if named.is_empty() { id } else { named }, facts)?),
        };
        let mut plan = CgroupPlan {
            mount: facts.mount.clone(),
            components,
            controllers: facts.controllers.clone(),
            settings: Vec::new(),
            devices: Vec::new(),
            is_unnamed: named.is_empty(),
            owner: None,
            scope,
        };
        if let Some(resources) = resources {
            plan.settings = limits::settings(resources, &InForce::default())?;
            plan.devices = devices::resolve("linux.resources.devices", &resources.devices)?;
            check_controllers(&plan.settings, facts)?;
        }
        if plan.scope.is_some() {
            systemd::as_kept(&mut plan.settings, Known::default());
        }
        check_device_count(&plan.devices)?;
        Ok(plan)
    }

    /// Adds rules behind those of config.json: for the devices that every container has.
    ///
    /// # Errors
    /// A rule that is wrong.
    pub fn with_default_devices(mut self, rules: &[DeviceRule]) -> Result<CgroupPlan, Error> {
        self.devices.extend(devices::resolve("linux.devices", rules)?);
        check_device_count(&self.devices)?;
        Ok(self)
    }

    /// Whether nobody has asked for a cgroup: without a path and without limits a rootless container can do without.
    pub fn is_optional(&self) -> bool {
        self.is_unnamed && self.settings.is_empty()
    }

    /// The directory that `create` makes.
    pub fn path(&self) -> PathBuf {
        let mut path = self.mount.clone();
        path.extend(&self.components);
        path
    }
}

fn check_device_count(rules: &[devices::Rule]) -> Result<(), Error> {
    if rules.len() > devices::RULES_MAX {
        return Err(Error::spec(
            "linux.resources.devices",
            format!("{} rules: expected at most {}", rules.len(), devices::RULES_MAX),
        ));
    }
    Ok(())
}

/// Every limit needs a controller that v2 has on this host.
pub(super) fn check_controllers(settings: &[Setting], facts: &Facts) -> Result<(), Error> {
    for setting in settings {
        let Some(controller) = setting.controller() else { continue };
        if facts.controllers.iter().any(|offered| offered == controller)
            || setting.absent == limits::Absent::Ignore
        {
            continue;
        }
        let reason = if facts.hybrid {
            "on this host cgroup v1 has it, which is not supported: boot with systemd.unified_cgroup_hierarchy=1"
        } else {
            "the kernel lacks it or has it switched off"
        };
        return Err(Error::spec(
            format!("linux.resources.{}", setting.field),
            format!(
                "needs the cgroup controller {controller}, which cgroup v2 does not offer here: {reason}"
            ),
        ));
    }
    Ok(())
}

fn path_components(path: &str, facts: &Facts) -> Result<Vec<String>, Error> {
    let refuse = |why: &str| Err(Error::spec("linux.cgroupsPath", format!("{path:?}: {why}")));
    if path.contains(['\0', '\n']) {
        return refuse("a NUL or newline can't be part of it");
    }
    let mut components = Vec::new();
    if !path.starts_with('/') {
        // A cgroup namespace shows what lies outside as `..`: then everything hangs below the mount point.
        let parent = Path::new(&facts.own).parent().and_then(Path::to_str).unwrap_or("/");
        if !parent.split('/').any(|component| component == "..") {
            components
                .extend(parent.split('/').filter(|component| !component.is_empty()).map(str::to_string));
        }
    }
    let above = components.len();
    for component in path.split('/').filter(|component| !matches!(*component, "" | ".")) {
        if component == ".." {
            return refuse("\"..\" would lead out of the place for containers");
        }
        if component.len() > 255 {
            return refuse("a name in it is longer than 255 bytes");
        }
        components.push(component.to_string());
    }
    if components.len() == above {
        return refuse("it names no cgroup below the root");
    }
    Ok(components)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(own: &str) -> Facts {
        Facts {
            mount: PathBuf::from("/sys/fs/cgroup"),
            hybrid: false,
            controllers: ["cpu", "memory", "pids"].map(str::to_string).to_vec(),
            own: own.to_string(),
            manager: None,
        }
    }

    #[test]
    fn paths_are_where_runc_has_them() {
        for (own, cgroups_path, expected) in [
            ("/", None, "/sys/fs/cgroup/box"),
            ("/init", None, "/sys/fs/cgroup/box"),
            ("/user.slice/session.scope", None, "/sys/fs/cgroup/user.slice/box"),
            ("/user.slice/session.scope", Some(""), "/sys/fs/cgroup/user.slice/box"),
            ("/a/b", Some("x/y"), "/sys/fs/cgroup/a/x/y"),
            ("/a/b", Some("/x/y"), "/sys/fs/cgroup/x/y"),
            ("/a/b", Some("//x/./y/"), "/sys/fs/cgroup/x/y"),
            ("/a/b", Some("/kubepods.slice:cri:1"), "/sys/fs/cgroup/kubepods.slice:cri:1"),
            ("/../../a/b", None, "/sys/fs/cgroup/box"),
        ] {
            let plan = CgroupPlan::resolve(cgroups_path, "box", None, &facts(own)).unwrap();
            assert_eq!(plan.path(), Path::new(expected), "{own} {cgroups_path:?}");
        }
    }

    /// "ids and cgroup paths with `..`"
    #[test]
    fn paths_that_lead_out_are_refused() {
        for path in ["..", "/..", "a/../../b", "/a/..", "/", "/./", "a\nb", "a\0b", &"x".repeat(256)] {
            let error = CgroupPlan::resolve(Some(path), "box", None, &facts("/")).unwrap_err().to_string();
            assert!(error.contains("linux.cgroupsPath"), "{error}");
        }
        assert!(CgroupPlan::resolve(None, "..", None, &facts("/")).is_err());
        assert!(CgroupPlan::resolve(None, "", None, &facts("/")).is_err());
    }

    #[test]
    fn a_limit_without_its_controller_is_an_error_at_its_field() {
        let error = |json: &str, hybrid: bool| {
            let resources: Resources = serde_json::from_str(json).unwrap();
            let facts = Facts { hybrid, ..facts("/") };
            match CgroupPlan::resolve(None, "box", Some(&resources), &facts) {
                Ok(plan) => panic!("{json}: {plan:?}"),
                Err(error) => error.to_string(),
            }
        };
        let message = error(r#"{"cpu":{"cpus":"0"}}"#, false);
        assert!(
            message.contains("linux.resources.cpu.cpus") && message.contains("controller cpuset"),
            "{message}"
        );
        let message = error(r#"{"unified":{"io.max":"8:0 rbps=1"}}"#, true);
        assert!(
            message.contains("linux.resources.unified.io.max") && message.contains("cgroup v1"),
            "{message}"
        );
    }

    #[test]
    fn cgroup_files_need_no_controller() {
        let resources: Resources =
            serde_json::from_str(r#"{"unified":{"cgroup.max.depth":"2"},"pids":{"limit":3}}"#).unwrap();
        let plan = CgroupPlan::resolve(None, "box", Some(&resources), &facts("/")).unwrap();
        assert_eq!(plan.settings.len(), 2);
    }
}

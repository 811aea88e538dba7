//! Spec -> Plan. In: config.json as read, the bundle's path, facts of the host. Out: everything that is done, with every
//! default filled in and every error found. Must never: do I/O: it is pure, so that tests need no root.

use std::path::Path;
use std::path::PathBuf;

use super::cgroup::CgroupPlan;
use super::cgroup::Facts;
use super::report::Error;
use super::seccomp::Filter;
use super::topic::conditions;
use super::topic::conditions::Conditions;
use super::topic::devices;
use super::topic::hooks;
use super::topic::intel_rdt;
use super::topic::mounts;
use super::topic::mounts::MountPlan;
use super::topic::namespaces;
use super::topic::namespaces::Namespaces;
use super::topic::net_devices;
use super::topic::process;
use super::topic::process::ProcessPlan;
use super::topic::sysctl;
use spec::Hooks;
use spec::Spec;
use spec::linux::NamespaceKind;

/// The kernel's bound for both names of a UTS namespace (sethostname(2)).
const NAME_BYTES_MAX: usize = 64;

/// A container, ready to be made.
#[derive(Debug)]
pub struct Plan {
    /// Its id.
    pub id: String,
    /// Its bundle, absolute.
    pub bundle: PathBuf,
    /// Its root file system, absolute.
    pub rootfs: PathBuf,
    /// Whether the root is mounted read-only.
    pub readonly_root: bool,
    /// Its namespaces.
    pub namespaces: Namespaces,
    /// Host name; empty leaves it.
    pub hostname: String,
    /// NIS domain name; empty leaves it.
    pub domainname: String,
    /// Propagation of the root's mount.
    pub propagation: Option<(u64, bool)>,
    /// Its mounts, in order.
    pub mounts: Vec<MountPlan>,
    /// Its device nodes; None when /dev is bound from the host.
    pub devices: Option<Vec<devices::Node>>,
    /// Paths that can't be read inside.
    pub masked_paths: Vec<String>,
    /// Paths that can't be written inside.
    pub readonly_paths: Vec<String>,
    /// Kernel parameters.
    pub sysctl: Vec<sysctl::Setting>,
    /// Its program.
    pub process: ProcessPlan,
    /// What all its processes run under.
    pub conditions: Conditions,
    /// Its cgroup.
    pub cgroup: CgroupPlan,
    /// Its share of cache and memory bandwidth.
    pub intel_rdt: Option<intel_rdt::Group>,
    /// SELinux label of its mounts; empty: none.
    pub mount_label: String,
    /// Interfaces that it gets.
    pub net_devices: Vec<net_devices::Move>,
    /// Its hooks.
    pub hooks: Hooks,
}

impl Plan {
    /// Checks and converts everything, topic by topic. `filter` is one that was made of the spec's seccomp section before.
    ///
    /// # Errors
    /// The first thing that is wrong or not supported, by the path of its field.
    pub fn resolve(
        spec: &Spec,
        id: &str,
        bundle: &Path,
        facts: &Facts,
        filter: Option<Filter>,
    ) -> Result<Plan, Error> {
        check_version(&spec.oci_version)?;
        let Some(process) = &spec.process else {
            return Err(Error::spec("process", "process property must not be empty"));
        };
        let root = spec.root.as_ref().filter(|root| !root.path.is_empty());
        let Some(root) = root else { return Err(Error::spec("root", "root property must not be empty")) };
        let linux = spec.linux.clone().unwrap_or_default();
        let namespaces = namespaces::plan(spec)?;
        if !namespaces.is_new(NamespaceKind::Mount) {
            return Err(Error::spec(
                "linux.namespaces",
                "no new mount namespace; add {\"type\": \"mount\"}: a container's root needs one",
            ));
        }
        for (field, name) in [("hostname", &spec.hostname), ("domainname", &spec.domainname)] {
            if name.len() > NAME_BYTES_MAX {
                return Err(Error::spec(
                    field,
                    format!("it has {} bytes, expected at most {NAME_BYTES_MAX}", name.len()),
                ));
            }
        }
        let names_itself = !spec.hostname.is_empty() || !spec.domainname.is_empty();
        if names_itself && !namespaces.is_own(NamespaceKind::Uts) {
            return Err(Error::spec("hostname", "unable to set hostname without a private UTS namespace"));
        }
        let rootfs = bundle.join(&root.path);
        let mut mounts_plan = Vec::new();
        for (index, mount) in spec.mounts.iter().enumerate() {
            mounts_plan.push(
                mounts::plan(index, mount, (bundle, &rootfs), &namespaces)?.labelled(&linux.mount_label),
            );
        }
        let dev_is_bound =
            mounts_plan.iter().any(|mount| mount.destination == Path::new("/dev") && mount.is_bind());
        let hooks = spec.hooks.clone().unwrap_or_default();
        hooks::check(&hooks)?;
        let propagation = match linux.rootfs_propagation.as_str() {
            "" => None,
            word => Some(mounts::propagation(word).ok_or_else(|| {
                Error::spec(
                    "linux.rootfsPropagation",
                    format!("{word:?}: expected shared, slave, private or unbindable, or with r in front"),
                )
            })?),
        };
        let cgroups_path = Some(linux.cgroups_path.as_str()).filter(|path| !path.is_empty());
        let mut cgroup = CgroupPlan::resolve(cgroups_path, id, linux.resources.as_ref(), facts)?
            .with_default_devices(&devices::default_rules())?;
        cgroup.owner = cgroup_owner(&namespaces, &mounts_plan, process.user.uid);
        if let Some(scope) = &mut cgroup.scope {
            scope.annotate(&spec.annotations)?;
        }
        Ok(Plan {
            id: id.to_string(),
            bundle: bundle.to_path_buf(),
            rootfs,
            readonly_root: root.readonly,
            hostname: spec.hostname.clone(),
            domainname: spec.domainname.clone(),
            propagation,
            mounts: mounts_plan,
            devices: if dev_is_bound { None } else { Some(devices::plan(&linux.devices)?) },
            masked_paths: linux.masked_paths,
            readonly_paths: linux.readonly_paths,
            sysctl: sysctl::plan(&linux.sysctl, &namespaces)?,
            process: process::plan(process)?.of_a_container(),
            conditions: conditions::plan(spec, filter)?,
            intel_rdt: intel_rdt::plan(spec, id)?,
            mount_label: linux.mount_label,
            net_devices: net_devices::plan(&linux.net_devices, &namespaces)?,
            cgroup,
            hooks,
            namespaces,
        })
    }
}

/// Who owns the container's cgroup on the host: the user of its process, where it has a cgroup namespace and a cgroup file system
/// to write to (config-linux.md, "Cgroup ownership").
fn cgroup_owner(namespaces: &Namespaces, mounts: &[MountPlan], uid: u32) -> Option<u32> {
    let is_writable = |mount: &MountPlan| mount.kind == mounts::Kind::Cgroup && mount.is_writable();
    if !namespaces.is_new(NamespaceKind::Cgroup) || !mounts.iter().any(is_writable) {
        return None;
    }
    if namespaces.is_own(NamespaceKind::User) {
        namespaces::id_outside(&namespaces.uid_map, uid)
    } else {
        Some(uid)
    }
}

/// Versions 1.x are all understood; unknown properties are ignored, as the specification says.
fn check_version(version: &str) -> Result<(), Error> {
    let mut numbers = version.split(['.', '-', '+']);
    let known =
        numbers.next() == Some("1") && numbers.next().is_some_and(|minor| minor.parse::<u32>().is_ok());
    if known {
        return Ok(());
    }
    Err(Error::spec("ociVersion", format!("{version:?}: expected a version of the form 1.x.y")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::spec::default_spec;
    use spec::linux::IdMapping;
    use spec::linux::Namespace;

    fn facts() -> Facts {
        Facts {
            mount: "/sys/fs/cgroup".into(),
            hybrid: false,
            controllers: ["cpu", "memory", "pids"].map(str::to_string).to_vec(),
            own: "/".into(),
            manager: None,
        }
    }

    fn resolve(change: impl FnOnce(&mut Spec)) -> Result<Plan, Error> {
        let mut spec = default_spec();
        change(&mut spec);
        Plan::resolve(&spec, "box", Path::new("/bundle"), &facts(), None)
    }

    fn error(change: impl FnOnce(&mut Spec)) -> String {
        resolve(change).unwrap_err().to_string()
    }

    #[test]
    fn the_default_spec_becomes_a_plan() {
        let plan = resolve(|_| {}).unwrap();
        assert_eq!(plan.rootfs, Path::new("/bundle/rootfs"));
        assert!(plan.readonly_root && plan.process.terminal && plan.devices.is_some());
        assert_eq!(plan.mounts.len(), 7);
        assert_eq!(plan.namespaces.new.len(), 6);
    }

    #[test]
    fn what_is_wrong_is_named_by_its_field() {
        assert!(error(|spec| spec.oci_version = "2.0".into()).starts_with("ociVersion:"));
        assert!(error(|spec| spec.hostname = "x".repeat(65)).starts_with("hostname: it has 65 bytes"));
        assert!(error(|spec| spec.process = None).starts_with("process:"));
        assert!(error(|spec| spec.root = None).starts_with("root:"));
        assert!(error(|spec| spec.linux.as_mut().unwrap().namespaces.clear()).contains("mount namespace"));
        assert!(
            error(|spec| spec.linux.as_mut().unwrap().rootfs_propagation = "x".into())
                .contains("rootfsPropagation")
        );
        let sysctl = |spec: &mut Spec| {
            spec.linux.as_mut().unwrap().sysctl.insert("vm.swappiness".into(), "1".into());
        };
        assert!(error(sysctl).starts_with("linux.sysctl.vm.swappiness:"));
    }

    #[test]
    fn a_hostname_needs_a_uts_namespace() {
        let shared = |spec: &mut Spec| {
            spec.linux.as_mut().unwrap().namespaces.retain(|namespace| namespace.kind != NamespaceKind::Uts);
        };
        assert!(error(shared).contains("UTS namespace"));
    }

    #[test]
    fn a_bound_dev_gets_no_nodes() {
        let plan = resolve(|spec| {
            spec.mounts[1].kind = "bind".into();
            spec.mounts[1].options = Vec::new();
        });
        assert_eq!(plan.unwrap().devices, None);
    }

    #[test]
    fn a_cgroup_to_write_to_belongs_to_the_process_user() {
        let owner = |is_writable: bool, has_namespace: bool, is_mapped: bool, uid: u32| {
            let plan = resolve(|spec| {
                let mount = spec.mounts.iter_mut().find(|mount| mount.kind == "cgroup").unwrap();
                mount.options.retain(|option| option != "ro" || !is_writable);
                spec.process.as_mut().unwrap().user.uid = uid;
                let linux = spec.linux.as_mut().unwrap();
                linux.namespaces.retain(|namespace| namespace.kind != NamespaceKind::Cgroup || has_namespace);
                if is_mapped {
                    linux.namespaces.push(Namespace { kind: NamespaceKind::User, path: String::new() });
                    linux.uid_mappings = vec![IdMapping { container_id: 0, host_id: 100_000, size: 10 }];
                    linux.gid_mappings = linux.uid_mappings.clone();
                }
            });
            plan.unwrap().cgroup.owner
        };
        assert_eq!(owner(true, true, true, 0), Some(100_000));
        assert_eq!(owner(true, true, true, 9), Some(100_009));
        assert_eq!(owner(true, true, true, 10), None);
        assert_eq!(owner(true, true, false, 5), Some(5));
        assert_eq!(owner(false, true, true, 0), None);
        assert_eq!(owner(true, false, true, 0), None);
    }
}

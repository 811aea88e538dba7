//! Which unit, in which slice. In: `cgroupsPath` as `slice:prefix:name`, or the id. Out: a `Scope`, and where its cgroup
//! will be. Must never: let a name through that leads elsewhere.

use std::collections::BTreeMap;

use super::annotation;
use super::manager::Manager;
use super::property::Property;
use super::unit::Unit;
use super::wire::Value;
use crate::report::Error;

/// A unit's name is a file's name too.
const NAME_BYTES_MAX: usize = 255;

/// A scope to be made for a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scope {
    /// The unit.
    pub unit: Unit,
    /// Its slice.
    slice: String,
    /// What it is.
    description: String,
    /// What annotations ask for.
    pub annotated: Vec<Property>,
}

impl Scope {
    /// The scope that `cgroups_path` names, or `id` where it is empty; and the folders of its cgroup from the mount point down.
    ///
    /// # Errors
    /// It is no such path, or no unit can have that name.
    pub fn resolve(cgroups_path: &str, id: &str, manager: &Manager) -> Result<(Scope, Vec<String>), Error> {
        let refuse = |why: &str| Err(Error::spec("linux.cgroupsPath", why));
        let (slice, prefix, name) = if cgroups_path.is_empty() {
            ("", "runc", id)
        } else {
            let parts =
                cgroups_path.split_once(':').and_then(|(slice, rest)| Some((slice, rest.split_once(':')?)));
            match parts {
                Some((slice, (prefix, name))) if !name.contains(':') => (slice, prefix, name),
                _ => {
                    return refuse(&format!(
                        "expected cgroupsPath to be of format \"slice:prefix:name\" for systemd cgroups, got \
                         {cgroups_path:?} instead"
                    ));
                }
            }
        };
        let slice = match slice {
            "" if manager.is_user => "user.slice",
            "" => "system.slice",
            slice => slice,
        };
        if name.ends_with(".slice") {
            return refuse("systemd puts no process into a slice; leave .slice out of the name, for a scope");
        }
        let unit = format!("{prefix}-{name}.scope");
        if name.is_empty() || !is_name(&unit) {
            return refuse(&format!(
                "{unit:?}: no unit's name; expected at most {NAME_BYTES_MAX} letters, digits and any of - _ . @ \\"
            ));
        }
        let mut folders = Vec::new();
        for folder in manager.root.split('/').filter(|folder| !folder.is_empty()) {
            folders.push(folder.to_string());
        }
        if !expand(slice, &mut folders) {
            return refuse(&format!("invalid slice name: {slice}"));
        }
        folders.push(unit.clone());
        let scope = Scope {
            unit: Unit { name: unit, is_user: manager.is_user },
            slice: slice.to_string(),
            description: format!("container {id}"),
            annotated: Vec::new(),
        };
        Ok((scope, folders))
    }

    /// Adds what annotations say on the unit's properties.
    ///
    /// # Errors
    /// A name or a value that is none.
    pub fn annotate(&mut self, annotations: &BTreeMap<String, String>) -> Result<(), Error> {
        annotation::properties(annotations, &mut self.annotated)
    }

    /// The properties that it is to have from the beginning, but for limits and annotations.
    pub fn properties(&self, pid: u32) -> Vec<Property> {
        let on = Value::bool(true);
        let all = [
            ("Description", Value::string(&self.description)),
            ("Slice", Value::string(&self.slice)),
            ("PIDs", Value::Only(pid)),
            ("DefaultDependencies", Value::bool(false)),
            ("Delegate", on.clone()),
            ("CPUAccounting", on.clone()),
            ("IOAccounting", on.clone()),
            ("MemoryAccounting", on.clone()),
            ("TasksAccounting", on),
        ];
        all.into_iter().map(|(name, value)| (name.to_string(), value)).collect()
    }
}

fn is_name(name: &str) -> bool {
    let may_be_in_it = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.@\\".contains(&byte);
    name.len() <= NAME_BYTES_MAX && name.bytes().all(may_be_in_it)
}

/// Adds the folders of a slice: each dash is a level (systemd.slice(5)). False: it is no slice.
fn expand(slice: &str, folders: &mut Vec<String>) -> bool {
    let Some(name) = slice.strip_suffix(".slice").filter(|_| is_name(slice)) else { return false };
    if name == "-" {
        return true;
    }
    let mut prefix = String::new();
    for part in name.split('-') {
        if part.is_empty() {
            return false;
        }
        prefix += part;
        folders.push(format!("{prefix}.slice"));
        prefix.push('-');
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(path: &str, is_user: bool, root: &str) -> Result<(String, String), String> {
        let manager = Manager { is_user, root: root.to_string() };
        let (scope, folders) = Scope::resolve(path, "box", &manager).map_err(|error| error.to_string())?;
        assert_eq!(scope.unit.is_user, is_user);
        assert_eq!(folders.last(), Some(&scope.unit.name));
        Ok((scope.slice, folders.join("/")))
    }

    #[test]
    fn units_are_where_runc_has_them() {
        for (path, is_user, root, slice, folders) in [
            ("", false, "/", "system.slice", "system.slice/runc-box.scope"),
            ("", false, "", "system.slice", "system.slice/runc-box.scope"),
            ("::x", false, "/", "system.slice", "system.slice/-x.scope"),
            ("machine.slice:libpod:1f", false, "/", "machine.slice", "machine.slice/libpod-1f.scope"),
            ("a-b-c.slice:cri:1", false, "/", "a-b-c.slice", "a.slice/a-b.slice/a-b-c.slice/cri-1.scope"),
            ("-.slice:cri:1", false, "/", "-.slice", "cri-1.scope"),
            (":cri:1", false, "/outer/x", "system.slice", "outer/x/system.slice/cri-1.scope"),
            (
                "",
                true,
                "/user.slice/u@7.service",
                "user.slice",
                "user.slice/u@7.service/user.slice/runc-box.scope",
            ),
        ] {
            let expected = Ok((slice.to_string(), folders.to_string()));
            assert_eq!(resolve(path, is_user, root), expected, "{path}");
        }
    }

    #[test]
    fn other_paths_are_refused_by_the_field() {
        for (path, why) in [
            (
                "/x",
                "expected cgroupsPath to be of format \"slice:prefix:name\" for systemd cgroups, got \"/x\" instead",
            ),
            ("a:b:c:d", "expected cgroupsPath"),
            ("system:a:b", "invalid slice name: system"),
            ("a/b.slice:a:b", "invalid slice name"),
            (".slice:a:b", "invalid slice name"),
            ("a--b.slice:a:b", "invalid slice name"),
            ("-a.slice:a:b", "invalid slice name"),
            ("..slice:a:../b", "no unit's name"),
            (":a:b/../..", "no unit's name"),
            (":a:", "no unit's name"),
            (":a:b c", "no unit's name"),
            (":a:b.slice", "no process into a slice"),
            (&format!(":a:{}", "x".repeat(250)), "no unit's name"),
        ] {
            let error = resolve(path, false, "/").unwrap_err();
            assert!(error.starts_with("linux.cgroupsPath: ") && error.contains(why), "{error}");
        }
    }
}

//! Network configuration lists: `/etc/cni/net.d/*.conflist`, and single configurations made into lists (contract rule 18).
//!
//! In: a folder of configuration files, a network's name. Out: `NetworkList`, checked, its version chosen.
//! Must never: let one network's broken file stop another network.

use std::path::Path;
use std::path::PathBuf;

use serde_json::Map;
use serde_json::Value;
use serde_json::json;

use super::error;
use super::error::Error;
use super::fields::Fields;
use super::plan::is_name;
use super::version::Version;

/// A network: plugins that are called one after the other.
#[derive(Debug, Clone, PartialEq)]
pub struct NetworkList {
    /// Its name.
    pub name: String,
    /// The version in which its plugins are spoken to.
    pub version: Version,
    /// CHECK is not to be asked for.
    pub disable_check: bool,
    /// GC is not to be asked for.
    pub disable_gc: bool,
    /// Its plugins' configurations, objects with a `type`; never empty.
    pub plugins: Vec<Value>,
    /// The file it was read from; empty for one that comes from the cache.
    pub path: PathBuf,
}

impl NetworkList {
    /// Reads a list; `path` is its file, and names it in errors. Plugins in the folder `<path's folder>/<name>` are
    /// appended unless `loadOnlyInlinedPlugins` is set.
    ///
    /// # Errors
    /// Codes 1, 5, 6 and 7, naming the file and the field.
    pub fn parse(text: &[u8], path: &Path) -> Result<NetworkList, Error> {
        let value = decode(text, path)?;
        Self::from_value(&value, path).map_err(|error| in_file(path, &error))
    }

    /// Reads a single plugin's configuration as a list of one.
    ///
    /// # Errors
    /// As `parse`.
    pub fn parse_single(text: &[u8], path: &Path) -> Result<NetworkList, Error> {
        let value = decode(text, path)?;
        let read = || {
            let fields = Fields::new(&value, "")?;
            if fields.get("plugins").is_some() {
                let message = "it is a list (it has plugins): its name must end in .conflist";
                return Err(Error::new(error::INVALID_CONFIG, message));
            }
            let list = json!({"name": fields.text("name")?, "cniVersion": fields.text("cniVersion")?,
                "loadOnlyInlinedPlugins": true, "plugins": [value]});
            Self::from_value(&list, path)
        };
        read().map_err(|error| in_file(path, &error))
    }

    fn from_value(value: &Value, path: &Path) -> Result<NetworkList, Error> {
        let fields = Fields::new(value, "")?;
        let name = fields.required("name", fields.text("name")?)?;
        if !is_name(name) {
            let message =
                format!("field name: {name:?}: letters, digits, '_', '.', '-', first a letter or digit");
            return Err(Error::new(error::INVALID_CONFIG, message));
        }
        let inline = fields.list("plugins")?.into_iter().map(|(value, path)| (value.clone(), path));
        let mut plugins: Vec<(Value, String)> = inline.collect();
        if !fields.flag_or_text("loadOnlyInlinedPlugins")? && !path.as_os_str().is_empty() {
            plugins.extend(plugins_beside(path, name)?);
        }
        if plugins.is_empty() {
            let message = "field plugins: it names no plugin, so there is nothing to attach to";
            return Err(Error::new(error::INVALID_CONFIG, message));
        }
        for (plugin, place) in &plugins {
            let plugin = Fields::new(plugin, place)?;
            plugin.required("type", plugin.text("type")?.filter(|kind| !kind.is_empty()))?;
        }
        Ok(NetworkList {
            name: name.to_string(),
            version: best_version(&fields)?,
            disable_check: fields.flag_or_text("disableCheck")?,
            disable_gc: fields.flag_or_text("disableGC")?,
            plugins: plugins.into_iter().map(|(value, _)| value).collect(),
            path: path.to_path_buf(),
        })
    }

    /// The list with all that was read from elsewhere in it, for the cache.
    pub fn to_value(&self) -> Value {
        json!({"cniVersion": self.version.to_string(), "name": self.name, "disableCheck": self.disable_check,
            "disableGC": self.disable_gc, "loadOnlyInlinedPlugins": true, "plugins": self.plugins})
    }

    /// The plugins' types, in order.
    pub fn kinds(&self) -> Vec<&str> {
        self.plugins.iter().filter_map(kind_of).collect()
    }
}

/// A plugin's `type`.
pub fn kind_of(plugin: &Value) -> Option<&str> {
    Fields::new(plugin, "").ok()?.text("type").ok()?
}

/// Whether a plugin declares a capability (contract rule 19).
pub fn has_capability(plugin: &Value, capability: &str) -> bool {
    let declared = || Fields::new(plugin, "").ok()?.object("capabilities").ok()?;
    declared().is_some_and(|capabilities| capabilities.flag(capability).unwrap_or(false))
}

/// A plugin's configuration as it goes to its stdin: with the list's name and version, what came before, and of
/// `capabilities` those that it declares (contract rule 19: without any, no `runtimeConfig`).
pub fn plugin_input(
    list: &NetworkList,
    plugin: &Value,
    previous: Option<&Value>,
    capabilities: &Map<String, Value>,
) -> Map<String, Value> {
    let mut object = plugin.as_object().cloned().unwrap_or_default();
    object.insert("cniVersion".to_string(), json!(list.version.to_string()));
    object.insert("name".to_string(), json!(list.name));
    if let Some(previous) = previous {
        object.insert("prevResult".to_string(), previous.clone());
    }
    let wanted = capabilities.iter().filter(|(key, _)| has_capability(plugin, key));
    let config: Map<String, Value> = wanted.map(|(key, value)| (key.clone(), value.clone())).collect();
    if !config.is_empty() {
        object.insert("runtimeConfig".to_string(), Value::Object(config));
    }
    object
}

/// Of `cniVersions` and `cniVersion` the highest that we speak.
fn best_version(fields: &Fields<'_>) -> Result<Version, Error> {
    let single = fields.text("cniVersion")?.unwrap_or_default();
    let many = fields.texts("cniVersions")?;
    let best = many.iter().filter_map(|text| Version::parse(text).ok()).max();
    match (best, Version::parse(single)) {
        (Some(best), Ok(version)) => Ok(best.max(version)),
        (Some(best), Err(_)) => Ok(best),
        (None, single) => single,
    }
}

fn plugins_beside(path: &Path, name: &str) -> Result<Vec<(Value, String)>, Error> {
    let folder = path.parent().unwrap_or(Path::new("/")).join(name);
    let mut plugins = Vec::new();
    for file in files(&folder, &["conf"])? {
        let text = read(&file)?;
        plugins.push((decode(&text, &file)?, file.display().to_string()));
    }
    Ok(plugins)
}

/// What a folder of configurations holds.
#[derive(Debug, Default)]
pub struct Networks {
    /// The networks, by the order of their files; of two with one name the first.
    pub lists: Vec<NetworkList>,
    /// What is wrong with files that could not be read as one.
    pub broken: Vec<Error>,
}

impl Networks {
    /// Reads the folder; one that is not there has no networks. `.conflist` files come first, in the order of their
    /// names, then `.conf` and `.json` (contract rule 18).
    ///
    /// # Errors
    /// Code 5 when the folder can't be listed.
    pub fn load(folder: &Path) -> Result<Networks, Error> {
        let mut networks = Networks::default();
        let lists = files(folder, &["conflist"])?.into_iter().map(|path| (path, true));
        let singles = files(folder, &["conf", "json"])?.into_iter().map(|path| (path, false));
        for (path, is_list) in lists.chain(singles) {
            let parse = if is_list { NetworkList::parse } else { NetworkList::parse_single };
            match read(&path).and_then(|text| parse(&text, &path)) {
                Ok(list) if networks.lists.iter().any(|other| other.name == list.name) => {}
                Ok(list) => networks.lists.push(list),
                Err(error) => networks.broken.push(error),
            }
        }
        Ok(networks)
    }

    /// The network called `name`.
    ///
    /// # Errors
    /// Code 7 when there is none: it names those that there are, and the files that could not be read.
    pub fn find(&self, name: &str, folder: &Path) -> Result<&NetworkList, Error> {
        if let Some(list) = self.lists.iter().find(|list| list.name == name) {
            return Ok(list);
        }
        let folder = folder.display();
        let mut message = format!("network {name:?} is not configured in {folder}");
        if !self.lists.is_empty() {
            let names: Vec<&str> = self.lists.iter().map(|list| list.name.as_str()).collect();
            message += &format!(", which has {}", names.join(", "));
        }
        for error in &self.broken {
            message += &format!("; {}", error.message);
        }
        Err(Error::new(error::INVALID_CONFIG, message))
    }
}

/// The files of `folder` with one of these endings, by name; a folder that is not there has none.
fn files(folder: &Path, endings: &[&str]) -> Result<Vec<PathBuf>, Error> {
    let failed = |cause: std::io::Error| {
        Error::new(error::IO_FAILURE, format!("{}: cannot list: {cause}", folder.display()))
    };
    let entries = match std::fs::read_dir(folder) {
        Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(failed)?,
    };
    let mut paths = Vec::new();
    for entry in entries {
        let path = entry.map_err(failed)?.path();
        let ending = path.extension().and_then(|ending| ending.to_str());
        if ending.is_some_and(|ending| endings.contains(&ending)) && path.is_file() {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

fn read(path: &Path) -> Result<Vec<u8>, Error> {
    std::fs::read(path)
        .map_err(|cause| Error::new(error::IO_FAILURE, format!("{}: cannot read: {cause}", path.display())))
}

fn decode(text: &[u8], path: &Path) -> Result<Value, Error> {
    serde_json::from_slice(text)
        .map_err(|cause| in_file(path, &Error::new(error::DECODING_FAILURE, format!("not JSON: {cause}"))))
}

fn in_file(path: &Path, error: &Error) -> Error {
    let path = path.display().to_string();
    if path.is_empty() || error.message.starts_with(&path) {
        return error.clone();
    }
    Error { message: format!("{path}: {}", error.message), ..error.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(name: &str, files: &[(&str, &str)]) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("cni-list-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&folder);
        for (file, text) in files {
            let path = folder.join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        folder
    }

    fn list(text: &str) -> Result<NetworkList, Error> {
        NetworkList::parse(text.as_bytes(), Path::new("/nowhere/x.conflist"))
    }

    #[test]
    fn rule_18_lists_come_sorted_and_before_single_configurations() {
        let folder = folder(
            "order",
            &[
                ("20-b.conflist", r#"{"cniVersion":"1.0.0","name":"b","plugins":[{"type":"x"}]}"#),
                ("10-a.conflist", r#"{"cniVersion":"1.0.0","name":"a","plugins":[{"type":"x"}]}"#),
                ("00-c.conf", r#"{"cniVersion":"0.4.0","name":"c","type":"bridge"}"#),
                ("01-b.json", r#"{"cniVersion":"0.4.0","name":"b","type":"later"}"#),
                ("README", "not one"),
            ],
        );
        let networks = Networks::load(&folder).unwrap();
        let names: Vec<&str> = networks.lists.iter().map(|list| list.name.as_str()).collect();
        assert_eq!(names, ["a", "b", "c"]);
        assert_eq!(networks.lists[1].kinds(), ["x"], "the list wins over the single configuration");
        assert_eq!((networks.lists[2].version.to_string().as_str(), networks.broken.len()), ("0.4.0", 0));
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn rule_18_plugins_of_the_networks_folder_are_appended_unless_forbidden() {
        let only =
            r#"{"cniVersion":"1.1.0","name":"o","loadOnlyInlinedPlugins":"true","plugins":[{"type":"x"}]}"#;
        let folder = folder(
            "folders",
            &[
                ("n.conflist", r#"{"cniVersion":"1.1.0","name":"n","plugins":[{"type":"x"}]}"#),
                ("n/20-z.conf", r#"{"type":"z"}"#),
                ("n/10-y.conf", r#"{"type":"y"}"#),
                ("o.conflist", only),
                ("o/10-y.conf", r#"{"type":"y"}"#),
            ],
        );
        let networks = Networks::load(&folder).unwrap();
        assert_eq!(networks.find("n", &folder).unwrap().kinds(), ["x", "y", "z"]);
        assert_eq!(networks.find("o", &folder).unwrap().kinds(), ["x"]);
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn rule_18_the_highest_known_of_several_versions_is_spoken() {
        let version = |text: &str| list(text).map(|list| list.version.to_string());
        let with =
            |versions: &str| version(&format!(r#"{{{versions},"name":"n","plugins":[{{"type":"x"}}]}}"#));
        assert_eq!(with(r#""cniVersions":["0.4.0","9.0.0","1.0.0"]"#).unwrap(), "1.0.0");
        assert_eq!(with(r#""cniVersion":"1.1.0","cniVersions":["0.4.0"]"#).unwrap(), "1.1.0");
        assert_eq!(with(r#""cniVersion":"0.3.1""#).unwrap(), "0.3.1");
        assert_eq!(with(r#""cniVersion":"9.0.0""#).unwrap_err().code, error::INCOMPATIBLE_VERSION);
    }

    #[test]
    fn rule_12_flags_of_a_list_may_be_texts() {
        let list = list(r#"{"name":"n","disableCheck":"true","disableGC":true,"plugins":[{"type":"x"}]}"#);
        let list = list.unwrap();
        assert!(list.disable_check && list.disable_gc);
    }

    #[test]
    fn rule_19_a_plugin_gets_the_capabilities_that_it_declares() {
        let list =
            list(r#"{"name":"n","plugins":[{"type":"x","capabilities":{"mac":true,"ips":false}}]}"#).unwrap();
        let given = json!({"mac": "02:00:00:00:00:01", "ips": ["10.0.0.1"], "portMappings": []});
        let input = plugin_input(&list, &list.plugins[0], None, given.as_object().unwrap());
        assert_eq!(input["runtimeConfig"], json!({"mac": "02:00:00:00:00:01"}));
        assert!(
            !plugin_input(&list, &json!({"type": "x"}), None, given.as_object().unwrap())
                .contains_key("runtimeConfig")
        );
    }

    #[test]
    fn a_broken_file_is_named_with_its_field_and_stops_no_other() {
        for (text, word) in [
            ("{ \"cniVersion\": ", "not JSON"),
            (r#"{"plugins":[{"type":"x"}]}"#, "field name is missing"),
            (r#"{"name":"../x","plugins":[{"type":"x"}]}"#, "field name"),
            (r#"{"name":"n"}"#, "field plugins"),
            (r#"{"name":"n","plugins":[]}"#, "field plugins"),
            (r#"{"name":"n","plugins":[{"type":"x"},{"mtu":1}]}"#, "field plugins[1].type is missing"),
            (r#"{"name":"n","plugins":[7]}"#, "plugins[0]"),
            (r#"{"name":"n","disableCheck":"perhaps","plugins":[{"type":"x"}]}"#, "disableCheck"),
        ] {
            let message = list(text).unwrap_err().message;
            assert!(message.starts_with("/nowhere/x.conflist: ") && message.contains(word), "{message}");
        }
        let good = r#"{"cniVersion":"1.1.0","name":"good","plugins":[{"type":"x"}]}"#;
        let folder = folder("broken", &[("10-bad.conflist", "{"), ("20-good.conflist", good)]);
        let networks = Networks::load(&folder).unwrap();
        assert!(networks.find("good", &folder).is_ok());
        let message = networks.find("missing", &folder).unwrap_err().message;
        assert!(
            message.contains("which has good") && message.contains("10-bad.conflist: not JSON"),
            "{message}"
        );
        std::fs::remove_dir_all(folder).unwrap();
    }
}

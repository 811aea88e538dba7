//! The runtime side of CNI: a list's plugins called one after the other, forwards for ADD and CHECK, backwards for DEL.
//!
//! In: a network, a container's namespace. Out: results, and the cache's files. Must never: leave half an attachment:
//! a failed ADD is taken back by a DEL of the whole list; a failed plugin does not stop the DEL of the others (contract
//! rules 14 and 15).

use std::path::PathBuf;

use serde_json::Map;
use serde_json::Value;
use serde_json::json;

use super::cache::Cache;
use super::cache::Cached;
use super::cache::Record;
use super::cache::netns_identity;
use super::daemon::names::ALIASES;
use super::daemon::resolver;
use super::error;
use super::error::Error;
use super::invoke;
use super::list;
use super::list::NetworkList;
use super::list::Networks;
use super::plan::Attachment;
use super::plan::is_interface_name;
use super::plan::is_name;
use super::request::Request;
use super::version::Version;

/// Where things lie.
#[derive(Debug, Clone)]
pub struct Site {
    /// The configurations: NETCONFPATH, or /etc/cni/net.d.
    pub conf_dir: PathBuf,
    /// The plugins: CNI_PATH, or /opt/cni/bin.
    pub plugin_path: String,
    /// The attachments.
    pub cache: Cache,
}

/// What a container wants of a network.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Wish {
    /// The container's id.
    pub id: String,
    /// The path of its network namespace.
    pub netns: Option<String>,
    /// The interface's name in it.
    pub ifname: String,
    /// CNI_ARGS.
    pub args: Option<String>,
    /// Ports, addresses, ...: each goes to the plugins that declare it.
    pub capabilities: Map<String, Value>,
}

/// Attaches a container to a network and gives the last plugin's result.
///
/// # Errors
/// What is wrong with the wish, before anything is done; or the failed plugin's error, after all was taken back.
pub fn add(site: &Site, list: &NetworkList, wish: &Wish) -> Result<Value, Error> {
    check_wish(site, list, wish)?;
    let mut record = Record {
        attachment: Attachment {
            network: list.name.clone(),
            id: wish.id.clone(),
            ifname: wish.ifname.clone(),
        },
        netns_identity: wish.netns.as_deref().and_then(netns_identity),
        netns: wish.netns.clone(),
        list: list.clone(),
        args: wish.args.clone(),
        capabilities: wish.capabilities.clone(),
        result: None,
    };
    site.cache.claim(&record)?;
    match call_forwards(site, "ADD", &mut record).and_then(|()| site.cache.store(&record)) {
        Ok(()) => {
            resolver::notify();
            Ok(record.result.unwrap_or_else(|| json!({"cniVersion": list.version.to_string(), "dns": {}})))
        }
        Err(error) => {
            // The first error is the one to tell; what could not be taken back stays noted down for `cni gc`.
            let _ = take_back(site, &record);
            Err(error)
        }
    }
}

/// Detaches a container from a network. What is gone already is fine; without a file in the cache the list of today
/// is used, `list`.
///
/// # Errors
/// All of the plugins' errors in one, after each was called.
pub fn del(
    site: &Site,
    attachment: &Attachment,
    list: Option<&NetworkList>,
    wish: &Wish,
) -> Result<(), Error> {
    let mut cached = site.cache.read(attachment);
    if let (Ok(Some(record)), Some(netns)) = (&mut cached, &wish.netns) {
        record.netns = Some(netns.clone());
    }
    match (cached, list) {
        (Ok(Some(record)), _) => take_back(site, &record),
        (Ok(None) | Err(_), Some(list)) => {
            let record = Record {
                attachment: attachment.clone(),
                netns: wish.netns.clone(),
                netns_identity: None,
                list: list.clone(),
                args: wish.args.clone(),
                capabilities: wish.capabilities.clone(),
                result: None,
            };
            take_back(site, &record)
        }
        (Ok(None), None) => {
            let Attachment { network, id, ifname } = attachment;
            let message = format!(
                "network {network:?} is neither configured in {}, nor is container {id} attached to it as {ifname}",
                site.conf_dir.display()
            );
            Err(Error::new(error::INVALID_CONFIG, message))
        }
        (Err(error), None) => Err(error),
    }
}

/// Whether an attachment is still as ADD left it.
///
/// # Errors
/// Code 3 when there is none; the first plugin's that finds a difference.
pub fn check(site: &Site, attachment: &Attachment) -> Result<(), Error> {
    let Some(mut record) = site.cache.read(attachment)? else {
        let Attachment { network, id, ifname } = attachment;
        let message = format!("container {id} is not attached to network {network} as {ifname}");
        return Err(Error::new(error::UNKNOWN_CONTAINER, message));
    };
    if record.list.disable_check {
        return Ok(());
    }
    if record.list.version < Version::V0_4_0 {
        let message = format!(
            "network {}: CHECK needs cniVersion 0.4.0, it has {}",
            attachment.network, record.list.version
        );
        return Err(Error::new(error::INCOMPATIBLE_VERSION, message));
    }
    if record.result.is_none() {
        let message = format!("network {}: ADD never came to an end", attachment.network);
        return Err(Error::new(error::UNKNOWN_CONTAINER, message));
    }
    call_forwards(site, "CHECK", &mut record)
}

/// Whether a network could serve an ADD now; a version without STATUS can't say no.
///
/// # Errors
/// The first plugin's.
pub fn status(site: &Site, list: &NetworkList) -> Result<(), Error> {
    if list.version < Version::V1_1_0 {
        return find_all(site, list);
    }
    for plugin in &list.plugins {
        call(site, list, plugin, "STATUS", &Map::new(), |_| {})?;
    }
    Ok(())
}

/// Takes back every attachment that is not to stay, then asks the plugins to do the same with what they know.
/// Networks are those of the configuration and those of the cache, or only `chosen`. Gives what was taken back.
///
/// # Errors
/// All that failed, after all else was done.
pub fn gc(
    site: &Site,
    networks: &Networks,
    chosen: &[String],
    stays: fn(&Record) -> bool,
) -> Result<Vec<Attachment>, Vec<Error>> {
    let Cached { records, broken } = site.cache.all().map_err(|error| vec![error])?;
    let is_chosen = |name: &str| chosen.is_empty() || chosen.iter().any(|network| network == name);
    let (mut taken, mut valid, mut errors) = (Vec::new(), Vec::new(), Vec::new());
    for record in records.into_iter().filter(|record| is_chosen(&record.attachment.network)) {
        if stays(&record) {
            valid.push(record.attachment);
            continue;
        }
        match take_back(site, &record) {
            Ok(()) => taken.push(record.attachment),
            Err(error) => errors.push(error),
        }
    }
    for list in networks.lists.iter().filter(|list| is_chosen(&list.name)) {
        if list.version < Version::V1_1_0 || list.disable_gc {
            continue;
        }
        let mine = valid.iter().filter(|attachment| attachment.network == list.name);
        let mine = json!(
            mine.map(|attachment| json!({"containerID": attachment.id, "ifname": attachment.ifname}))
                .collect::<Vec<_>>()
        );
        for plugin in &list.plugins {
            let called = call(site, list, plugin, "GC", &Map::new(), |call| {
                // Both keys are in use (contract rule 17).
                for key in ["cni.dev/valid-attachments", "cni.dev/attachments"] {
                    call.config.insert(key.to_string(), mine.clone());
                }
            });
            errors.extend(called.err());
        }
    }
    // Whose they were nobody can tell; the plugins have just taken back what they stood for.
    if chosen.is_empty() && errors.is_empty() {
        for (path, _) in broken {
            let removed = std::fs::remove_file(&path);
            errors.extend(removed.err().map(|cause| Error::failed(path.display(), cause)));
        }
    }
    if errors.is_empty() { Ok(taken) } else { Err(errors) }
}

/// Everything that can be known to be wrong before the first plugin is called.
fn check_wish(site: &Site, list: &NetworkList, wish: &Wish) -> Result<(), Error> {
    let wrong = |message: String| Err(Error::new(error::INVALID_ENVIRONMENT, message));
    if !is_name(&wish.id) {
        return wrong(format!(
            "container id {:?} can't be attached to a network: CNI has letters, digits, '_', '.', '-', first a letter or digit",
            wish.id
        ));
    }
    if !is_interface_name(&wish.ifname) {
        let form = "1 to 15 bytes, not '.' or '..', without '/', ':' and white space";
        return wrong(format!("interface name {:?}: {form}", wish.ifname));
    }
    // Names are the resolver's, whichever plugins there are.
    for capability in wish.capabilities.keys().filter(|capability| *capability != ALIASES) {
        if !list.plugins.iter().any(|plugin| list::has_capability(plugin, capability)) {
            let message = format!(
                "network {}: no plugin of it has the capability {capability}; add it to a plugin's `capabilities` in {}",
                list.name,
                list.path.display()
            );
            return Err(Error::new(error::INVALID_CONFIG, message));
        }
    }
    find_all(site, list)
}

fn find_all(site: &Site, list: &NetworkList) -> Result<(), Error> {
    for kind in list.kinds() {
        invoke::find(kind, &site.plugin_path).map_err(|error| in_network(list, &error))?;
    }
    Ok(())
}

/// One call, to be completed by who makes it.
struct Call {
    request: Request,
    config: Map<String, Value>,
}

fn call(
    site: &Site,
    list: &NetworkList,
    plugin: &Value,
    verb: &str,
    capabilities: &Map<String, Value>,
    complete: impl FnOnce(&mut Call),
) -> Result<Option<Value>, Error> {
    let kind = list::kind_of(plugin).unwrap_or_default();
    let request =
        Request { command: verb.to_string(), path: Some(site.plugin_path.clone()), ..Request::default() };
    let mut call = Call { request, config: list::plugin_input(list, plugin, None, capabilities) };
    complete(&mut call);
    call.request.stdin = Value::Object(call.config).to_string().into_bytes();
    invoke::call(kind, call.request).map_err(|error| {
        let place = format!("network {}, plugin {kind}, {verb}: {}", list.name, error.message);
        Error { message: place, ..error }
    })
}

/// A call for an attachment.
fn call_for(site: &Site, record: &Record, plugin: &Value, verb: &str) -> Result<Option<Value>, Error> {
    call(site, &record.list, plugin, verb, &record.capabilities, |call| {
        call.request.container_id = Some(record.attachment.id.clone());
        call.request.ifname = Some(record.attachment.ifname.clone());
        call.request.netns = record.netns.clone();
        call.request.args = record.args.clone();
        // DEL got the result of ADD only with 0.4.0.
        if let Some(result) = &record.result
            && (verb != "DEL" || record.list.version >= Version::V0_4_0)
        {
            call.config.insert("prevResult".to_string(), result.clone());
        }
    })
}

/// ADD and CHECK. ADD's result goes from plugin to plugin; CHECK gives the final one to each.
fn call_forwards(site: &Site, verb: &str, record: &mut Record) -> Result<(), Error> {
    for plugin in record.list.plugins.clone() {
        let answer = call_for(site, record, &plugin, verb)?;
        if verb == "ADD" {
            record.result = answer.or(record.result.take());
        }
    }
    Ok(())
}

/// DEL of the whole list, and then the file in the cache goes.
fn take_back(site: &Site, record: &Record) -> Result<(), Error> {
    let mut errors = Vec::new();
    for plugin in record.list.plugins.iter().rev() {
        errors.extend(call_for(site, record, plugin, "DEL").err());
    }
    match joined(errors) {
        Some(error) => Err(error),
        None => {
            site.cache.remove(&record.attachment)?;
            resolver::notify();
            Ok(())
        }
    }
}

/// Several errors as one, with the code of the first.
pub fn joined(errors: Vec<Error>) -> Option<Error> {
    let mut errors = errors.into_iter();
    let mut all = errors.next()?;
    for error in errors {
        all.message += &format!("; {error}");
    }
    Some(all)
}

fn in_network(list: &NetworkList, error: &Error) -> Error {
    Error { message: format!("network {}: {}", list.name, error.message), ..error.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;
    use std::path::Path;

    /// A site of its own with plugins that are scripts: each notes its verb, and what it was given, in `log`.
    struct Bench {
        folder: PathBuf,
        site: Site,
    }

    const SCRIPT: &str = r#"#!/bin/sh
echo "$CNI_COMMAND ${0##*/} $CNI_CONTAINERID $CNI_IFNAME $CNI_NETNS" >> "${0%/*}/log"
input=$(cat)
echo "$input" >> "${0%/*}/${0##*/}.$CNI_COMMAND"
[ -e "${0%/*}/fail-${0##*/}-$CNI_COMMAND" ] && { echo '{"code": 11, "msg": "told to"}'; exit 1; }
[ "$CNI_COMMAND" = ADD ] && echo '{"cniVersion":"1.1.0","ips":[{"address":"10.0.0.2/24"}],"dns":{"domain":"'"${0##*/}"'"}}'
exit 0
"#;

    impl Bench {
        fn new(name: &str) -> Bench {
            let folder = std::env::temp_dir().join(format!("cni-attach-{name}-{}", std::process::id()));
            let _ = std::fs::remove_dir_all(&folder);
            let plugins = folder.join("bin");
            std::fs::create_dir_all(&plugins).unwrap();
            for plugin in ["first", "second"] {
                std::fs::write(plugins.join(plugin), SCRIPT).unwrap();
                std::fs::set_permissions(plugins.join(plugin), std::fs::Permissions::from_mode(0o755))
                    .unwrap();
            }
            let site = Site {
                conf_dir: folder.join("net.d"),
                plugin_path: plugins.display().to_string(),
                cache: Cache::new(&folder),
            };
            Bench { folder, site }
        }

        fn fail(&self, plugin: &str, verb: &str, on: bool) {
            let path = self.folder.join(format!("bin/fail-{plugin}-{verb}"));
            if on { std::fs::write(path, "").unwrap() } else { std::fs::remove_file(path).unwrap() }
        }

        /// The verbs and plugins since the last look.
        fn log(&self) -> Vec<String> {
            let path = self.folder.join("bin/log");
            let text = std::fs::read_to_string(&path).unwrap_or_default();
            let _ = std::fs::remove_file(path);
            let words = |line: &str| line.split(' ').take(2).collect::<Vec<_>>().join(" ");
            text.lines().map(words).collect()
        }

        fn input(&self, plugin: &str, verb: &str) -> Value {
            let text = std::fs::read_to_string(self.folder.join(format!("bin/{plugin}.{verb}"))).unwrap();
            serde_json::from_str(text.lines().last().unwrap()).unwrap()
        }

        fn cached(&self) -> usize {
            self.site.cache.all().unwrap().records.len()
        }
    }

    impl Drop for Bench {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.folder);
        }
    }

    fn list(version: &str) -> NetworkList {
        let text = json!({"cniVersion": version, "name": "net",
            "plugins": [{"type": "first"}, {"type": "second", "capabilities": {"portMappings": true}}]});
        NetworkList::parse(text.to_string().as_bytes(), Path::new("")).unwrap()
    }

    fn wish() -> Wish {
        Wish {
            id: "c1".into(),
            netns: Some("/proc/self/ns/net".into()),
            ifname: "eth0".into(),
            ..Wish::default()
        }
    }

    fn attachment() -> Attachment {
        Attachment { network: "net".into(), id: "c1".into(), ifname: "eth0".into() }
    }

    #[test]
    fn add_goes_forwards_del_backwards_and_the_final_result_is_kept() {
        let bench = Bench::new("order");
        let result = add(&bench.site, &list("1.1.0"), &wish()).unwrap();
        assert_eq!(result["dns"]["domain"], "second");
        assert_eq!(bench.log(), ["ADD first", "ADD second"]);
        assert_eq!(bench.input("second", "ADD")["prevResult"]["dns"]["domain"], "first");
        check(&bench.site, &attachment()).unwrap();
        assert_eq!(bench.log(), ["CHECK first", "CHECK second"]);
        assert_eq!(bench.input("first", "CHECK")["prevResult"]["dns"]["domain"], "second", "rule 21");
        del(&bench.site, &attachment(), None, &Wish::default()).unwrap();
        assert_eq!(bench.log(), ["DEL second", "DEL first"]);
        assert_eq!(bench.input("first", "DEL")["prevResult"]["dns"]["domain"], "second", "rule 21");
        assert_eq!(bench.cached(), 0);
    }

    #[test]
    fn rule_13_del_of_what_is_gone_succeeds() {
        let bench = Bench::new("gone");
        let list = list("1.1.0");
        del(&bench.site, &attachment(), Some(&list), &Wish::default()).unwrap();
        assert_eq!(bench.log(), ["DEL second", "DEL first"]);
        assert!(
            del(&bench.site, &attachment(), None, &wish())
                .unwrap_err()
                .message
                .contains("neither configured")
        );
    }

    #[test]
    fn rule_14_a_failed_plugin_does_not_stop_del_and_all_failures_are_told() {
        let bench = Bench::new("del");
        add(&bench.site, &list("1.1.0"), &wish()).unwrap();
        bench.log();
        bench.fail("second", "DEL", true);
        bench.fail("first", "DEL", true);
        let error = del(&bench.site, &attachment(), None, &Wish::default()).unwrap_err();
        assert_eq!(bench.log(), ["DEL second", "DEL first"]);
        assert!(error.message.contains("plugin second") && error.message.contains("plugin first"), "{error}");
        assert_eq!(bench.cached(), 1, "it can be tried again");
        bench.fail("second", "DEL", false);
        bench.fail("first", "DEL", false);
        del(&bench.site, &attachment(), None, &Wish::default()).unwrap();
        assert_eq!(bench.cached(), 0);
    }

    #[test]
    fn rule_15_a_failed_add_is_taken_back_and_a_second_one_is_refused() {
        let bench = Bench::new("add");
        bench.fail("second", "ADD", true);
        let error = add(&bench.site, &list("1.1.0"), &wish()).unwrap_err();
        assert_eq!((error.code, error.message.as_str()), (11, "network net, plugin second, ADD: told to"));
        assert_eq!(bench.log(), ["ADD first", "ADD second", "DEL second", "DEL first"]);
        assert_eq!(bench.input("first", "DEL")["prevResult"]["dns"]["domain"], "first");
        assert_eq!(bench.cached(), 0);
        bench.fail("second", "ADD", false);
        add(&bench.site, &list("1.1.0"), &wish()).unwrap();
        bench.log();
        assert_eq!(add(&bench.site, &list("1.1.0"), &wish()).unwrap_err().code, error::ALREADY_ATTACHED);
        assert_eq!((bench.log().len(), bench.cached()), (0, 1), "the first attachment is not touched");
    }

    #[test]
    fn nothing_is_called_when_the_wish_is_wrong() {
        let bench = Bench::new("wrong");
        let list = list("1.1.0");
        let code = |wish: Wish| add(&bench.site, &list, &wish).unwrap_err().code;
        assert_eq!(code(Wish { id: "../x".into(), ..wish() }), error::INVALID_ENVIRONMENT);
        assert_eq!(code(Wish { ifname: "a/b".into(), ..wish() }), error::INVALID_ENVIRONMENT);
        let mac = json!({"mac": "02:00:00:00:00:01"}).as_object().cloned().unwrap();
        assert_eq!(code(Wish { capabilities: mac, ..wish() }), error::INVALID_CONFIG);
        std::fs::remove_file(bench.folder.join("bin/second")).unwrap();
        let error = add(&bench.site, &list, &wish()).unwrap_err();
        assert!(error.message.contains("plugin \"second\" is not in"), "{error}");
        assert_eq!((bench.log().len(), bench.cached()), (0, 0));
    }

    #[test]
    fn rule_19_ports_reach_the_plugin_that_declares_them() {
        let bench = Bench::new("ports");
        let ports = json!({"portMappings": [{"hostPort": 80, "containerPort": 8080, "protocol": "tcp"}]});
        let wish = Wish { capabilities: ports.as_object().cloned().unwrap(), ..wish() };
        add(&bench.site, &list("1.1.0"), &wish).unwrap();
        assert_eq!(bench.input("second", "ADD")["runtimeConfig"], ports);
        assert_eq!(bench.input("first", "ADD").get("runtimeConfig"), None);
        del(&bench.site, &attachment(), None, &Wish::default()).unwrap();
        assert_eq!(bench.input("second", "DEL")["runtimeConfig"], ports, "DEL gets what ADD got");
    }

    #[test]
    fn rule_7_old_versions_have_no_check_and_no_result_on_del() {
        let bench = Bench::new("old");
        add(&bench.site, &list("0.3.1"), &wish()).unwrap();
        assert_eq!(check(&bench.site, &attachment()).unwrap_err().code, error::INCOMPATIBLE_VERSION);
        del(&bench.site, &attachment(), None, &Wish::default()).unwrap();
        assert_eq!(bench.input("first", "DEL").get("prevResult"), None);
    }

    #[test]
    fn rule_20_a_corrupt_record_does_not_stop_del() {
        let bench = Bench::new("corrupt");
        let list = list("1.1.0");
        add(&bench.site, &list, &wish()).unwrap();
        bench.log();
        std::fs::write(bench.folder.join("results/net-c1-eth0"), "{").unwrap();
        del(&bench.site, &attachment(), Some(&list), &Wish::default()).unwrap();
        assert_eq!(bench.log(), ["DEL second", "DEL first"]);
        assert!(!bench.folder.join("results/net-c1-eth0").exists());
    }

    #[test]
    fn rule_17_gc_takes_back_what_is_dead_and_tells_the_plugins_what_lives() {
        let bench = Bench::new("gc");
        let list = list("1.1.0");
        let networks = Networks { lists: vec![list.clone()], broken: vec![] };
        add(&bench.site, &list, &wish()).unwrap();
        add(&bench.site, &list, &Wish { id: "dead".into(), netns: Some("/proc/0/ns/net".into()), ..wish() })
            .unwrap();
        bench.log();
        let taken = gc(&bench.site, &networks, &[], Record::is_alive).unwrap();
        assert_eq!(taken.iter().map(|attachment| attachment.id.as_str()).collect::<Vec<_>>(), ["dead"]);
        assert_eq!(bench.log(), ["DEL second", "DEL first", "GC first", "GC second"]);
        for key in ["cni.dev/valid-attachments", "cni.dev/attachments"] {
            assert_eq!(bench.input("first", "GC")[key], json!([{"containerID": "c1", "ifname": "eth0"}]));
        }
        bench.fail("first", "GC", true);
        assert_eq!(gc(&bench.site, &networks, &[], Record::is_alive).unwrap_err().len(), 1);
        assert_eq!(bench.log(), ["GC first", "GC second"], "it goes on after a failure");
    }

    #[test]
    fn status_is_each_plugins_word() {
        let bench = Bench::new("status");
        status(&bench.site, &list("1.1.0")).unwrap();
        assert_eq!(bench.log(), ["STATUS first", "STATUS second"]);
        status(&bench.site, &list("1.0.0")).unwrap();
        assert!(bench.log().is_empty(), "STATUS came with 1.1.0");
        bench.fail("second", "STATUS", true);
        assert!(status(&bench.site, &list("1.1.0")).unwrap_err().message.contains("plugin second, STATUS"));
    }
}

//! host-local: addresses from ranges in the configuration, reservations on disk (contract rules 23 and 24).
//!
//! In: the `ipam` field. Out: one address per range set. Must never: give an address twice.

use std::net::IpAddr;
use std::path::PathBuf;

use serde_json::Value;

use super::store::Store;
use crate::error;
use crate::error::Error;
use crate::fields::Fields;
use crate::plan::Attachment;
use crate::plan::Command;
use crate::plan::NetPlan;
use crate::reply::Dns;
use crate::reply::IpConfig;
use crate::reply::Reply;
use crate::reply::Route;
use netlink::route::Network;

const DATA_DIR: &str = "/var/lib/cni/networks";

/// Addresses from `start` to `end` of a subnet.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Range {
    subnet: Network,
    start: IpAddr,
    end: IpAddr,
    gateway: IpAddr,
}

/// The `ipam` field with every default filled in.
#[derive(Debug)]
struct Pool {
    sets: Vec<Vec<Range>>,
    routes: Vec<Route>,
    resolv_conf: Option<PathBuf>,
    wanted: Vec<IpAddr>,
}

/// Reads what ADD is to do, and does none of it: for `runtime::fuzz`.
///
/// # Errors
/// Codes 6 and 7.
#[cfg(any(test, feature = "fuzzing"))]
pub fn read(plan: &NetPlan) -> Result<(), Error> {
    data_dir(plan)?;
    let pool = Pool::new(plan)?;
    for range in pool.sets.iter().flatten() {
        assert!(range.start <= range.end, "{range:?}");
        assert!(range.subnet.contains(range.start) && range.subnet.contains(range.end), "{range:?}");
        assert!(range.holds(to_address(to_number(range.start), range.start.is_ipv4())), "{range:?}");
    }
    Ok(())
}

/// Runs a verb.
///
/// # Errors
/// Codes 5 to 7; 100 when no address is left; 101 from CHECK.
pub fn run(plan: &NetPlan) -> Result<Option<Value>, Error> {
    // Only what gives addresses needs the ranges: DEL releases whatever they are.
    let open = || Store::open(&data_dir(plan)?, &plan.attachment.network);
    match plan.command {
        Command::Add => {
            let pool = Pool::new(plan)?;
            pool.check_room(plan)?;
            return add(plan, &pool, &open()?).map(Some);
        }
        Command::Del => {
            open()?.release(&plan.attachment)?;
            // The one thing that the reference's DEL refuses too; said when nothing is held any more.
            if let Ok(pool) = Pool::new(plan) {
                pool.check_room(plan)?;
            }
        }
        Command::Check => {
            let held = open()?.addresses(&plan.attachment);
            check(plan, &Pool::new(plan)?, &held)?;
        }
        Command::Gc => open()?.keep_only(&plan.valid)?,
        Command::Status => drop(Pool::new(plan)?), // the ranges themselves are asked at ADD
    }
    Ok(None)
}

/// Each address of the result that is out of these ranges has to be reserved, and one at least.
fn check(plan: &NetPlan, pool: &Pool, held: &[IpAddr]) -> Result<(), Error> {
    let Attachment { id, ifname, .. } = &plan.attachment;
    let differs = |message: String| Err(Error::new(error::CHECK_FAILED, message));
    if held.is_empty() {
        return differs(format!("host-local holds no address for {id} {ifname}"));
    }
    let is_ours = |address: &IpAddr| pool.sets.iter().flatten().any(|range| range.holds(*address));
    let mut told = plan.required_previous()?.ips.iter().map(|ip| ip.address.address).filter(is_ours);
    match told.find(|address| !held.contains(address)) {
        Some(address) => differs(format!("host-local does not hold {address} for {id} {ifname} any more")),
        None => Ok(()),
    }
}

fn data_dir(plan: &NetPlan) -> Result<PathBuf, Error> {
    let ipam = plan.fields()?.object("ipam")?;
    let named = ipam.as_ref().map(|ipam| ipam.text("dataDir")).transpose()?.flatten();
    Ok(PathBuf::from(named.filter(|path| !path.is_empty()).unwrap_or(DATA_DIR)))
}

fn add(plan: &NetPlan, pool: &Pool, store: &Store) -> Result<Value, Error> {
    let attachment = &plan.attachment;
    if !store.addresses(attachment).is_empty() {
        let message = format!(
            "{} {} holds an address of network {} already; detach it first",
            attachment.id, attachment.ifname, attachment.network
        );
        return Err(Error::new(error::ALREADY_ATTACHED, message));
    }
    let reserved = reserve_all(plan, pool, store);
    let ips = match reserved {
        Ok(ips) => ips,
        Err(error) => {
            let _ = store.release(attachment); // the first error is the one to tell
            return Err(error);
        }
    };
    let dns = pool.resolv_conf.as_ref().map(|path| read_resolv_conf(path)).transpose()?.unwrap_or_default();
    Reply { interfaces: vec![], ips, routes: pool.routes.clone(), dns }.to_json(plan.version)
}

fn reserve_all(plan: &NetPlan, pool: &Pool, store: &Store) -> Result<Vec<IpConfig>, Error> {
    let mut wanted = pool.wanted.clone();
    let mut ips = Vec::new();
    for (number, set) in pool.sets.iter().enumerate() {
        let asked = wanted.iter().position(|address| set.iter().any(|range| range.holds(*address)));
        let (address, range) = match asked.map(|at| wanted.remove(at)) {
            Some(address) => take_wanted(plan, set, store, address)?,
            None => take_next(plan, set, store, number)?,
        };
        let address = Network { address, prefix: range.subnet.prefix };
        ips.push(IpConfig { interface: None, address, gateway: Some(range.gateway) });
    }
    if let Some(left) = wanted.first() {
        let message = format!(
            "the address {left} that is asked for lies in no range of network {}",
            plan.attachment.network
        );
        return Err(Error::new(error::INVALID_CONFIG, message));
    }
    Ok(ips)
}

fn take_wanted<'a>(
    plan: &NetPlan,
    set: &'a [Range],
    store: &Store,
    address: IpAddr,
) -> Result<(IpAddr, &'a Range), Error> {
    let range = set.iter().find(|range| range.holds(address)).unwrap_or(&set[0]);
    if address == range.gateway {
        let message = format!("the address {address} that is asked for is the gateway's");
        return Err(Error::new(error::INVALID_CONFIG, message));
    }
    if !store.reserve(address, &plan.attachment)? {
        let message = format!("the address {address} that is asked for is reserved already");
        return Err(Error::new(error::NO_ADDRESS_LEFT, message));
    }
    Ok((address, range))
}

/// Round robin: on from the last one given, once around.
fn take_next<'a>(
    plan: &NetPlan,
    set: &'a [Range],
    store: &Store,
    number: usize,
) -> Result<(IpAddr, &'a Range), Error> {
    let last = store.last_reserved(number);
    let begin = last.and_then(|last| set.iter().position(|range| range.holds(last)).map(|at| (at, last)));
    let (first, after) = begin.map_or((0, None), |(at, last)| (at, Some(to_number(last))));
    // The range of the last address is walked twice: from there to its end, and at the end of the round from its
    // start to there.
    for step in 0..=set.len() {
        let range = &set[(first + step) % set.len()];
        let (start, end) = (to_number(range.start), to_number(range.end));
        let (from, to) = match (step, after) {
            (0, Some(after)) => (after.saturating_add(1), end),
            (step, Some(after)) if step == set.len() => (start, after),
            (step, None) if step == set.len() => break,
            _ => (start, end),
        };
        for candidate in from..=to {
            let address = to_address(candidate, range.subnet.address.is_ipv4());
            if address != range.gateway && store.reserve(address, &plan.attachment)? {
                store.set_last_reserved(number, address)?;
                return Ok((address, range));
            }
        }
    }
    let ranges: Vec<String> = set.iter().map(|range| format!("{}-{}", range.start, range.end)).collect();
    let message =
        format!("no address is left in {} of network {}", ranges.join(", "), plan.attachment.network);
    Err(Error::new(error::NO_ADDRESS_LEFT, message))
}

impl Range {
    fn new(fields: &Fields<'_>) -> Result<Range, Error> {
        let wrong = |key: &str, message: String| {
            Error::new(error::INVALID_CONFIG, format!("field {}: {message}", fields.path(key)))
        };
        let subnet = fields.required("subnet", fields.network("subnet")?)?;
        if subnet.base() != subnet {
            return Err(wrong("subnet", format!("{subnet} has host bits; its network is {}", subnet.base())));
        }
        let host_bits = subnet.bits() - subnet.prefix;
        if host_bits < 2 {
            return Err(wrong("subnet", format!("{subnet} is too small to give addresses from")));
        }
        let base = to_number(subnet.address);
        let size_less_one = u128::MAX.checked_shl(u32::from(host_bits)).map_or(u128::MAX, |mask| !mask);
        let v4 = subnet.address.is_ipv4();
        let last = base + size_less_one - u128::from(v4); // v4: the last one is the broadcast address
        let address = |key: &str, default: u128| -> Result<IpAddr, Error> {
            let given: Option<IpAddr> = fields.parsed(key, "an address")?;
            match given {
                None => Ok(to_address(default, v4)),
                Some(given) if subnet.contains(given) => Ok(given),
                Some(given) => Err(wrong(key, format!("{given} is not in {subnet}"))),
            }
        };
        let start = address("rangeStart", base + 1)?;
        let end = address("rangeEnd", last)?;
        if start > end {
            return Err(wrong("rangeStart", format!("{start} comes after rangeEnd {end}")));
        }
        let gateway = fields.parsed("gateway", "an address")?.unwrap_or(to_address(base + 1, v4));
        Ok(Range { subnet, start, end, gateway })
    }

    fn holds(&self, address: IpAddr) -> bool {
        address.is_ipv4() == self.start.is_ipv4() && self.start <= address && address <= self.end
    }

    fn overlaps(&self, other: &Range) -> bool {
        self.subnet.contains(other.subnet.address) || other.subnet.contains(self.subnet.address)
    }
}

impl Pool {
    fn new(plan: &NetPlan) -> Result<Pool, Error> {
        let fields = plan.fields()?;
        let ipam = fields.required("ipam", fields.object("ipam")?)?;
        let runtime = fields.object("runtimeConfig")?;
        let mut sets = Vec::new();
        if let Some(runtime) = &runtime {
            read_sets(runtime, "ipRanges", &mut sets)?;
        }
        if ipam.get("subnet").is_some() {
            sets.push(vec![Range::new(&ipam)?]); // the form of before `ranges`
        }
        read_sets(&ipam, "ranges", &mut sets)?;
        if sets.is_empty() {
            return Err(Error::new(
                error::INVALID_CONFIG,
                "field ipam.ranges is missing: host-local has no addresses to give",
            ));
        }
        check_sets(&sets)?;
        let address = |text: &str, place: &str| -> Result<IpAddr, Error> {
            let bare = text.split_once('/').map_or(text, |(address, _)| address);
            bare.parse().map_err(|_| {
                Error::new(error::INVALID_CONFIG, format!("field {place}: {text:?} is no address"))
            })
        };
        let mut wanted = Vec::new();
        for text in &plan.args.ips {
            wanted.push(address(text, "CNI_ARGS")?);
        }
        for object in plan.callers_objects()? {
            for text in object.texts("ips")? {
                wanted.push(address(&text, &object.path("ips"))?);
            }
        }
        wanted.dedup();
        let routes = ipam.objects("routes")?.iter().map(Route::parse).collect::<Result<_, _>>()?;
        let resolv_conf = ipam.text("resolvConf")?.filter(|path| !path.is_empty()).map(PathBuf::from);
        Ok(Pool { sets, routes, resolv_conf, wanted })
    }

    /// Each set gives an address.
    fn check_room(&self, plan: &NetPlan) -> Result<(), Error> {
        let starts: Vec<IpAddr> = self.sets.iter().map(|set| set[0].start).collect();
        super::check_room(plan.version, &starts)
    }
}

/// The gateways of a plugin's configuration, one for each range set; none when its IPAM is another one.
pub fn gateways(plugin: &Fields<'_>) -> Vec<IpAddr> {
    let read = || {
        let ipam = plugin.object("ipam").ok()??;
        ipam.text("type").ok()?.filter(|kind| *kind == "host-local")?;
        let mut sets = Vec::new();
        if ipam.get("subnet").is_some() {
            sets.push(vec![Range::new(&ipam).ok()?]);
        }
        read_sets(&ipam, "ranges", &mut sets).ok()?;
        Some(sets.iter().map(|set| set[0].gateway).collect())
    };
    read().unwrap_or_default()
}

fn read_sets(fields: &Fields<'_>, key: &str, sets: &mut Vec<Vec<Range>>) -> Result<(), Error> {
    for (value, path) in fields.list(key)? {
        let Value::Array(ranges) = value else {
            return Err(crate::fields::wrong_type(&path, "a list of ranges", value));
        };
        let read = |(at, range)| Range::new(&Fields::new(range, &format!("{path}[{at}]"))?);
        let set = ranges.iter().enumerate().map(read).collect::<Result<Vec<_>, _>>()?;
        if set.is_empty() {
            return Err(Error::new(
                error::INVALID_CONFIG,
                format!("field {path}: a range set needs a range"),
            ));
        }
        sets.push(set);
    }
    Ok(())
}

fn check_sets(sets: &[Vec<Range>]) -> Result<(), Error> {
    let wrong =
        |message: String| Err(Error::new(error::INVALID_CONFIG, format!("field ipam.ranges: {message}")));
    for set in sets {
        if let Some(other) = set.iter().find(|range| range.start.is_ipv4() != set[0].start.is_ipv4()) {
            return wrong(format!(
                "{} and {} in one set are of different families",
                set[0].subnet, other.subnet
            ));
        }
    }
    let all: Vec<&Range> = sets.iter().flatten().collect();
    for (at, range) in all.iter().enumerate() {
        // Two parts of one subnet may stand side by side, as long as no address is in both.
        let clash = |other: &&&Range| {
            range.overlaps(other)
                && (range.subnet != other.subnet || (range.start <= other.end && other.start <= range.end))
        };
        if let Some(other) = all[at + 1..].iter().find(clash) {
            return wrong(format!("{} and {} overlap", range.subnet, other.subnet));
        }
    }
    Ok(())
}

fn to_number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u128::from(u32::from(v4)),
        IpAddr::V6(v6) => u128::from(v6),
    }
}

fn to_address(number: u128, v4: bool) -> IpAddr {
    match (v4, u32::try_from(number)) {
        (true, Ok(number)) => IpAddr::V4(number.into()),
        _ => IpAddr::V6(number.into()),
    }
}

fn read_resolv_conf(path: &std::path::Path) -> Result<Dns, Error> {
    let text = std::fs::read_to_string(path).map_err(|cause| {
        Error::new(error::IO_FAILURE, format!("field ipam.resolvConf: {}: {cause}", path.display()))
    })?;
    let mut dns = Dns::default();
    for line in text.lines() {
        let mut words = line.split_whitespace().map(str::to_string);
        match words.next().as_deref() {
            Some("nameserver") => dns.nameservers.extend(words.next()),
            Some("domain") => dns.domain = words.next(),
            Some("search") => dns.search.extend(words),
            Some("options") => dns.options.extend(words),
            _ => {}
        }
    }
    Ok(dns)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::Request;
    use serde_json::json;

    struct Bench {
        data_dir: PathBuf,
    }

    impl Bench {
        fn new(name: &str) -> Bench {
            let data_dir = std::env::temp_dir().join(format!("host-local-{name}-{}", std::process::id()));
            let _ = std::fs::remove_dir_all(&data_dir);
            Bench { data_dir }
        }

        fn run(
            &self,
            command: &str,
            id: &str,
            mut ipam: Value,
            extra: &Value,
        ) -> Result<Option<Value>, Error> {
            ipam["dataDir"] = json!(self.data_dir);
            let mut config = json!({"cniVersion": "1.1.0", "name": "net", "type": "x", "ipam": ipam,
                "prevResult": {"cniVersion": "1.1.0"}});
            if let Value::Object(extra) = extra {
                config.as_object_mut().unwrap().extend(extra.clone());
            }
            let text = |text: &str| Some(text.to_string());
            run(&NetPlan::new(Request {
                command: command.to_string(),
                container_id: text(id),
                netns: text("/x"),
                ifname: text("eth0"),
                path: text("/x"),
                stdin: config.to_string().into_bytes(),
                ..Request::default()
            })?)
        }

        fn add(&self, id: &str, ipam: &Value) -> Result<String, Error> {
            let answer = self.run("ADD", id, ipam.clone(), &Value::Null)?.unwrap();
            Ok(answer["ips"][0]["address"].as_str().unwrap().to_string())
        }
    }

    impl Drop for Bench {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.data_dir);
        }
    }

    #[test]
    fn before_0_3_0_a_second_range_set_of_a_family_is_refused_in_the_references_words() {
        let bench = Bench::new("room");
        let two = json!({"ranges": [[{"subnet": "10.1.2.0/29"}], [{"subnet": "10.1.3.0/29"}]]});
        let both = json!({"ranges": [[{"subnet": "10.1.2.0/29"}], [{"subnet": "fd00::/64"}]]});
        let run = |command: &str, version: &str, ipam: &Value| {
            bench.run(command, "a", ipam.clone(), &json!({"cniVersion": version})).map(drop)
        };
        for version in ["0.1.0", "0.2.0"] {
            let said = format!("CNI version {version} does not support more than 1 address per family");
            assert_eq!(run("ADD", version, &two).unwrap_err().message, said);
            run("ADD", version, &both).unwrap();
            // DEL says so as well, but releases first.
            assert_eq!(run("DEL", version, &two).unwrap_err().message, said);
            assert!(!bench.data_dir.join("net/10.1.2.2").exists());
            run("DEL", version, &both).unwrap();
        }
        run("ADD", "0.3.0", &two).unwrap();
        run("DEL", "0.3.0", &two).unwrap();
    }

    #[test]
    fn rule_24_format_round_robin_gateway_and_last_address() {
        let bench = Bench::new("format");
        let ipam = json!({"ranges": [[{"subnet": "10.1.2.0/29"}]]});
        let got: Vec<String> = ["a", "b", "c", "d", "e"].map(|id| bench.add(id, &ipam).unwrap()).to_vec();
        assert_eq!(got, ["10.1.2.2/29", "10.1.2.3/29", "10.1.2.4/29", "10.1.2.5/29", "10.1.2.6/29"]);
        assert_eq!(bench.add("f", &ipam).unwrap_err().code, error::NO_ADDRESS_LEFT);
        let folder = bench.data_dir.join("net");
        assert_eq!(std::fs::read_to_string(folder.join("10.1.2.3")).unwrap(), "b\r\neth0");
        assert_eq!(std::fs::read_to_string(folder.join("last_reserved_ip.0")).unwrap(), "10.1.2.6");
        for id in ["b", "d"] {
            bench.run("DEL", id, ipam.clone(), &Value::Null).unwrap();
        }
        assert_eq!(bench.add("g", &ipam).unwrap(), "10.1.2.3/29");
        bench.run("DEL", "g", ipam.clone(), &Value::Null).unwrap();
        assert_eq!(bench.add("h", &ipam).unwrap(), "10.1.2.5/29", "on from the last one, not the lowest");
    }

    #[test]
    fn rule_13_del_may_be_repeated_and_rule_15_add_may_not() {
        let bench = Bench::new("repeat");
        let ipam = json!({"ranges": [[{"subnet": "10.1.2.0/24"}]]});
        bench.add("a", &ipam).unwrap();
        assert_eq!(bench.add("a", &ipam).unwrap_err().code, error::ALREADY_ATTACHED);
        for _ in 0..2 {
            bench.run("DEL", "a", ipam.clone(), &Value::Null).unwrap();
        }
        assert!(!bench.data_dir.join("net/10.1.2.2").exists());
    }

    #[test]
    fn rule_24_reservations_of_the_reference_are_honoured() {
        let bench = Bench::new("old");
        let folder = bench.data_dir.join("net");
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("10.1.2.2"), "old").unwrap();
        std::fs::write(folder.join("10.1.2.3"), "new\r\neth0").unwrap();
        let ipam = json!({"ranges": [[{"subnet": "10.1.2.0/24"}]]});
        assert_eq!(bench.add("new", &ipam).unwrap_err().code, error::ALREADY_ATTACHED);
        assert_eq!(bench.add("a", &ipam).unwrap(), "10.1.2.4/24");
        bench.run("DEL", "old", ipam, &Value::Null).unwrap();
        assert!(!folder.join("10.1.2.2").exists());
    }

    #[test]
    fn rule_24_what_is_refused() {
        let bench = Bench::new("refused");
        for (ranges, word) in [
            (json!([[{"subnet": "10.0.0.0/31"}]]), "too small"),
            (json!([[{"subnet": "10.0.0.0/32"}]]), "too small"),
            (json!([[{"subnet": "10.0.0.1/24"}]]), "host bits"),
            (json!([[{"subnet": "10.0.0.0/16"}], [{"subnet": "10.0.1.0/24"}]]), "overlap"),
            (json!([[{"subnet": "10.0.0.0/16"}, {"subnet": "fd00::/64"}]]), "families"),
            (json!([[{"subnet": "10.0.0.0/24", "rangeStart": "10.0.1.1"}]]), "not in"),
            (json!([[{"subnet": "10.0.0.0/24", "rangeStart": "10.0.0.9", "rangeEnd": "10.0.0.8"}]]), "after"),
            (json!([[]]), "needs a range"),
            (json!([]), "missing"),
        ] {
            let error = bench.add("a", &json!({"ranges": ranges})).unwrap_err();
            assert!(error.code == error::INVALID_CONFIG && error.message.contains(word), "{ranges}: {error}");
        }
    }

    #[test]
    fn rule_23_addresses_asked_for_add_up_and_dual_stack_works() {
        let bench = Bench::new("asked");
        let ipam = json!({"ranges": [[{"subnet": "10.1.2.0/24"}], [{"subnet": "fd00::/64"}]]});
        let extra = json!({"args": {"cni": {"ips": ["10.1.2.9"]}}, "runtimeConfig": {"ips": ["fd00::9/64"]}});
        let answer = bench.run("ADD", "a", ipam.clone(), &extra).unwrap().unwrap();
        assert_eq!(answer["ips"][0]["address"], "10.1.2.9/24");
        assert_eq!(answer["ips"][1]["address"], "fd00::9/64");
        assert_eq!(answer.get("interfaces"), None, "rule 11: IPAM results have no interfaces");
        assert!(bench.run("ADD", "b", ipam.clone(), &extra).is_err());
        assert!(bench.add("b", &ipam).is_ok(), "a failed ADD leaves nothing reserved");
        let outside = json!({"runtimeConfig": {"ips": ["192.0.2.1"]}});
        assert_eq!(bench.run("ADD", "c", ipam, &outside).unwrap_err().code, error::INVALID_CONFIG);
    }

    #[test]
    fn rule_17_gc_takes_what_is_not_valid() {
        let bench = Bench::new("gc");
        let ipam = json!({"ranges": [[{"subnet": "10.1.2.0/24"}]]});
        for id in ["a", "b"] {
            bench.add(id, &ipam).unwrap();
        }
        let valid = json!({"cni.dev/valid-attachments": [{"containerID": "b", "ifname": "eth0"}]});
        bench.run("GC", "", ipam, &valid).unwrap();
        assert!(!bench.data_dir.join("net/10.1.2.2").exists());
        assert!(bench.data_dir.join("net/10.1.2.3").exists());
    }

    #[test]
    fn rule_13_del_and_gc_succeed_with_ranges_that_add_refuses() {
        let bench = Bench::new("refused");
        let ipam = json!({"ranges": [[{"subnet": "10.1.2.0/32"}]]});
        assert_eq!(bench.add("a", &ipam).unwrap_err().code, error::INVALID_CONFIG);
        for verb in ["DEL", "GC"] {
            bench.run(verb, "a", ipam.clone(), &json!({})).unwrap();
        }
    }

    #[test]
    fn rule_13_a_reservation_whose_maker_was_killed_in_between_is_given_back() {
        let bench = Bench::new("killed");
        let ipam = json!({"ranges": [[{"subnet": "10.1.2.0/30"}]]});
        let folder = bench.data_dir.join("net");
        let path = folder.join("10.1.2.2");
        for (verb, valid) in [("DEL", json!([])), ("GC", json!([{"containerID": "b", "ifname": "eth0"}]))] {
            assert_eq!(bench.add("a", &ipam).unwrap(), "10.1.2.2/30");
            std::fs::write(&path, "").unwrap(); // made, and nothing written yet
            assert_eq!(bench.add("b", &ipam).unwrap_err().code, error::NO_ADDRESS_LEFT);
            bench.run(verb, "a", ipam.clone(), &json!({"cni.dev/valid-attachments": valid})).unwrap();
            assert!(!path.exists(), "{verb}");
        }
    }

    #[test]
    fn rule_16_check_asks_for_each_address_of_the_result_that_is_of_these_ranges() {
        let bench = Bench::new("check");
        let ipam = json!({"ranges": [[{"subnet": "10.1.2.0/24"}], [{"subnet": "fd12::/64"}]]});
        bench.add("a", &ipam).unwrap();
        let check = |ips: Value| {
            let result = json!({"prevResult": {"cniVersion": "1.1.0", "ips": ips}});
            bench.run("CHECK", "a", ipam.clone(), &result).map(drop).map_err(|error| error.code)
        };
        let both =
            json!([{"address": "10.1.2.2/24"}, {"address": "fd12::2/64"}, {"address": "192.0.2.1/24"}]);
        assert_eq!(check(both.clone()), Ok(()));
        assert_eq!(check(json!([{"address": "10.1.2.3/24"}])), Err(error::CHECK_FAILED));
        std::fs::remove_file(bench.data_dir.join("net/fd12::2")).unwrap();
        assert_eq!(check(both), Err(error::CHECK_FAILED));
        assert_eq!(check(json!([])), Ok(()));
    }

    #[test]
    fn rule_24_twenty_at_once_get_twenty_addresses() {
        let bench = Bench::new("parallel");
        let ipam = json!({"ranges": [[{"subnet": "10.1.2.0/24"}]]});
        let got: std::collections::BTreeSet<String> = std::thread::scope(|scope| {
            let start = |at: usize| {
                let (bench, ipam) = (&bench, &ipam);
                scope.spawn(move || bench.add(&format!("c{at}"), ipam).unwrap())
            };
            let threads: Vec<_> = (0..20).map(start).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert_eq!(got.len(), 20);
    }
}

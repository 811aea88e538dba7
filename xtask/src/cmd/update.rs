//! `update`: newer versions of the pinned sources. In: the pins, their origins. Out: sources.toml with the new pin, the
//! changes of the kernel's configuration. Must never: pin a hash that comes from the download itself alone: an origin
//! that tells no hash of its own is left out of the new pin, and said to be.

mod look;
mod rewrite;

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::cli::UpdateArgs;
use crate::context::Build;
use crate::sources::{Place, Source, Sources};
use crate::stage::kernel;
use crate::stamp::{remove_tree, write_whole};
use crate::ui::Log;

pub use look::Offer;

/// Looks, and rewrites unless it was only asked to look.
pub fn run(build: &Build, args: &UpdateArgs) -> Result<()> {
    let known: Vec<&str> = build.sources.all().iter().map(|source| source.name.as_str()).collect();
    if let Some(name) = args.names.iter().find(|name| !known.contains(&name.as_str())) {
        bail!("{name}: no such source; there are {}", known.join(", "));
    }
    if build.fetch.offline {
        bail!("update asks the origins, which --offline forbids");
    }
    let path = build.layout.sources_toml();
    let before =
        std::fs::read_to_string(&path).with_context(|| format!("{}: cannot read", path.display()))?;
    let mut text = before.clone();
    let mut faults = Vec::new();
    for source in build.sources.all() {
        if !args.names.is_empty() && !args.names.contains(&source.name) {
            continue;
        }
        match newest(build, source, args.any) {
            Ok(Some(offers)) if !args.check => text = rewrite::pin(&text, source, &offers)?,
            Ok(_) => {}
            Err(error) => faults.push(format!("{}: {error:#}", source.name)),
        }
    }
    if text != before {
        let text = rewrite::epoch(&text, today());
        let sources = Sources::parse(&text, "the new sources.toml")?;
        if sources.linux.pin() != build.sources.linux.pin() {
            show_configuration(build, sources)?;
        }
        write_whole(&path, text.as_bytes())?;
        build
            .ui
            .say("update", "xtask/sources.toml has the new pins; `cargo xtask test` tells whether they do");
    }
    if !faults.is_empty() {
        bail!("not every source could be looked for:\n  {}", faults.join("\n  "));
    }
    Ok(())
}

/// What each origin offers of the newest version that any of them has; None when the pinned one is the newest.
fn newest(build: &Build, source: &Source, any_series: bool) -> Result<Option<Vec<Option<Offer>>>> {
    let subject = format!("{} {}", source.name, source.version);
    let mut offers = Vec::new();
    let mut failures = Vec::new();
    for origin in &source.origins {
        let place = match &origin.place {
            Place::Url(url) => url.clone(),
            Place::Debian { package, .. } => format!("Debian source package {package}"),
        };
        match look::origin(build, source, origin) {
            Ok(found) => offers.push(found),
            Err(error) => {
                build.ui.say("update", &format!("{subject}: {place}: {error:#}"));
                failures.push(place);
                offers.push(Vec::new());
            }
        }
    }
    if failures.len() == source.origins.len() {
        bail!("no origin could be looked at");
    }
    // A kernel stays in its long-term series unless told otherwise.
    let fits = |offer: &&Offer| {
        any_series || source.name != "linux" || series(&offer.version) == series(&source.version)
    };
    let newest = offers.iter().flatten().filter(fits).map(|offer| look::numbers(&offer.version)).max();
    let Some(newest) = newest.filter(|newest| *newest > look::numbers(&source.version)) else {
        build.ui.say("update", &format!("{subject}: nothing newer"));
        return Ok(None);
    };
    let pick = |found: Vec<Offer>| found.into_iter().find(|offer| look::numbers(&offer.version) == newest);
    let picked: Vec<Option<Offer>> = offers.into_iter().map(pick).collect();
    let version = picked.iter().flatten().map(|offer| offer.version.clone()).next().unwrap_or_default();
    build.ui.say("update", &format!("{subject}: {version} is there"));
    if picked.iter().flatten().all(|offer| offer.sha256.is_none()) {
        bail!("{version} is there, but no origin tells its hash; pin it by hand");
    }
    for (origin, offer) in source.origins.iter().zip(&picked) {
        if offer.as_ref().is_none_or(|offer| offer.sha256.is_none()) {
            build.ui.say(
                "update",
                &format!("{}: {} tells no hash of {version}: left out", source.name, origin.file),
            );
        }
    }
    Ok(Some(picked))
}

fn series(version: &str) -> Vec<u64> {
    look::numbers(version).into_iter().take(2).collect()
}

/// The beginning of this day, in UTC.
fn today() -> u64 {
    let now =
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default().as_secs();
    now - now % 86_400
}

/// Configures the old kernel and the new one, and prints the lines that differ on stdout.
fn show_configuration(build: &Build, sources: Sources) -> Result<()> {
    let room = build.layout.notes().join("update");
    remove_tree(&room)?;
    let new = Build {
        sources,
        layout: build.layout.clone(),
        host: build.host.clone(),
        fetch: build.fetch.clone(),
        jobs: build.jobs,
        incremental: false,
        ui: build.ui.clone(),
    };
    let configuration = |build: &Build, name: &str| -> Result<BTreeSet<String>> {
        let mut log = Log::create(build.layout.stage_log(&format!("update-{name}")))?;
        let source = kernel::configured(build, &mut log, &room.join(name))
            .with_context(|| format!("the {name} kernel, {}", build.sources.linux.version))?;
        configuration_lines(&source.join(".config"))
    };
    let (old, new) = (configuration(build, "old")?, configuration(&new, "new")?);
    for line in old.difference(&new) {
        println!("-{line}");
    }
    for line in new.difference(&old) {
        println!("+{line}");
    }
    remove_tree(&room)
}

fn configuration_lines(path: &Path) -> Result<BTreeSet<String>> {
    let text = std::fs::read_to_string(path).with_context(|| format!("{}: cannot read", path.display()))?;
    let wanted = |line: &&str| line.starts_with("CONFIG_") || line.starts_with("# CONFIG_");
    Ok(text.lines().filter(wanted).map(str::to_owned).collect())
}

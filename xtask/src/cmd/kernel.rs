//! `kernel`: the kernel alone, and how its configuration stands to what is recommended. In: the kernel, the list of
//! recommended settings, what distributions have of these. Out: its path, or tables on stdout. Must never: judge a
//! distribution by other rules than ours; a waiver is no point for us.

use std::io::Write;

use anyhow::{Context, Result};

use crate::cli::KernelArgs;
use crate::context::Build;
use crate::kconfig::recommendations::shown;
use crate::kconfig::{Config, Distribution, Recommendations, Standing};
use crate::pipeline;

/// Builds it, and reports.
pub fn run(build: &Build, args: &KernelArgs) -> Result<()> {
    let kernel = pipeline::kernel(build)?;
    if !args.hardening {
        super::report(build, &[&kernel.image]);
        return Ok(());
    }
    let path = build.layout.recommendations();
    let recommended = Recommendations::load(&path)?;
    let ours = Distribution {
        name: format!("Coracle, Linux {}", build.sources.linux.version),
        config: Config::load(&kernel.config.path)?,
    };
    let folder = path.parent().context("the recommendations lie in no folder")?;
    let all: Vec<Distribution> = [ours].into_iter().chain(Distribution::load_all(folder)?).collect();
    let out = scores(&recommended, &all) + "\n" + &settings(&recommended, &all);
    match std::io::stdout().write_all(out.as_bytes()) {
        // `| head` is no failure.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        done => done.context("stdout: cannot write"),
    }
}

/// How many settings of each source each configuration follows.
fn scores(recommended: &Recommendations, all: &[Distribution]) -> String {
    let mut out = String::new();
    for (letter, one) in ('A'..).zip(all) {
        out += &format!("{letter}: {}\n", one.name);
    }
    out += "\n";
    let sources: Vec<Option<&str>> =
        recommended.sources.keys().map(|source| Some(source.as_str())).chain([None]).collect();
    for (letter, _) in ('A'..).zip(all) {
        out += &format!("{letter:>5}");
    }
    out += "   of  as wanted by\n";
    for source in sources {
        let of_source =
            || recommended.wanted.iter().filter(|wanted| source.is_none_or(|name| name == wanted.source));
        for one in all {
            let followed = of_source().filter(|wanted| wanted.standing(&one.config) == Standing::Followed);
            out += &format!("{:>5}", followed.count());
        }
        let name = source.map_or("all", |name| recommended.sources[name].as_str());
        out += &format!("{:>5}  {name}\n", of_source().count());
    }
    out
}

/// Each setting with everybody's value; below it, why ours is another.
fn settings(recommended: &Recommendations, all: &[Distribution]) -> String {
    let mut out = format!("{:<40}{:<11}{:>7}", "setting", "source", "wanted");
    for (letter, _) in ('A'..).zip(all) {
        out += &format!("{letter:>7}");
    }
    out += "\n";
    for wanted in &recommended.wanted {
        out += &format!("{:<40}{:<11}{:>7}", wanted.symbol, wanted.source, wanted.value);
        for one in all {
            out += &format!("{:>7}", shown(&one.config, &wanted.symbol));
        }
        out += "\n";
        if let Some(reason) = &wanted.waived {
            out += &format!("    waived: {reason}\n");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_waiver_is_no_point() {
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
        let recommended = Recommendations::load(&root.join("hardening/recommendations.toml")).unwrap();
        let empty = Distribution { name: "nobody".to_owned(), config: Config::default() };
        let full = Distribution {
            name: "everything off but BUG".to_owned(),
            config: Config::parse("CONFIG_BUG=y\n"),
        };
        let text = scores(&recommended, &[empty, full]);
        let count = |line: &str| -> Vec<u32> {
            line.split_whitespace().map_while(|word| word.parse().ok()).collect()
        };
        let last = count(text.lines().last().unwrap());
        let (off, with_bug, of) = (last[0], last[1], last[2]);
        assert_eq!((off + 1, of as usize), (with_bug, recommended.wanted.len()));
        assert!(off < of, "{text}");
    }

    #[test]
    fn what_distributions_have_is_there_by_name() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("hardening");
        let all = Distribution::load_all(&folder).unwrap();
        let names: Vec<&str> = all.iter().map(|one| one.name.split([' ', ',']).next().unwrap()).collect();
        assert_eq!(names, ["Alpine", "Debian"]);
        assert!(all.iter().all(|one| one.config.get("MODULES") == Some("y")));
    }
}

//! Configuration fragments, for the kernel and for BusyBox alike. In: a folder of fragments, and the `.config` that the
//! project's own tools made of them. Out: the merged text, and every symbol that did not come out as asked, with the
//! false leaves of its dependencies. Must never: let a symbol be dropped in silence.

mod expression;
pub mod recommendations;
mod tree;

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

use anyhow::{Context, Result, bail};

pub use recommendations::{Distribution, Recommendations, Standing};
pub use tree::Tree;

/// One line of a fragment: a symbol and what it shall be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// The symbol, without `CONFIG_`.
    pub symbol: String,
    /// The text behind `=`; None for `# CONFIG_X is not set`.
    pub value: Option<String>,
    /// Fragment file name and line, for messages.
    pub place: String,
}

/// All fragments of a folder, in the order of their file names.
#[derive(Debug)]
pub struct Fragments {
    wanted: Vec<Wanted>,
}

impl Fragments {
    /// Reads every `*.config` in `dir`. A line that is neither an assignment, a comment nor empty is an error with its
    /// place, and so is a symbol that two lines ask for differently.
    pub fn load(dir: &Path) -> Result<Self> {
        let mut paths: Vec<_> = std::fs::read_dir(dir)
            .with_context(|| format!("{}: cannot list", dir.display()))?
            .map(|entry| entry.map(|entry| entry.path()))
            .collect::<std::io::Result<_>>()
            .with_context(|| format!("{}: cannot list", dir.display()))?;
        paths.retain(|path| path.extension().is_some_and(|extension| extension == "config"));
        paths.sort();
        let folder = dir.file_name().unwrap_or_default().to_string_lossy();
        let mut texts = Vec::new();
        for path in &paths {
            let text =
                std::fs::read_to_string(path).with_context(|| format!("{}: cannot read", path.display()))?;
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            texts.push((format!("{folder}/{name}"), text));
        }
        if texts.is_empty() {
            bail!("{}: holds no fragment (*.config)", dir.display());
        }
        Self::parse(texts.iter().map(|(name, text)| (name.as_str(), text.as_str())))
    }

    fn parse<'a>(texts: impl Iterator<Item = (&'a str, &'a str)>) -> Result<Self> {
        let mut wanted: Vec<Wanted> = Vec::new();
        let mut seen: BTreeMap<String, usize> = BTreeMap::new();
        for (name, text) in texts {
            for (index, line) in text.lines().enumerate() {
                let place = format!("{name}:{}", index + 1);
                let Some((symbol, value)) = parse_line(line).with_context(|| place.clone())? else {
                    continue;
                };
                if let Some(&earlier) = seen.get(&symbol) {
                    let earlier = &wanted[earlier];
                    bail!("{place}: {symbol} stands in {} already; keep one of the two", earlier.place);
                }
                seen.insert(symbol.clone(), wanted.len());
                wanted.push(Wanted { symbol, value, place });
            }
        }
        Ok(Self { wanted })
    }

    /// All fragments as one, in `.config` form: what is appended to the base configuration.
    pub fn merged_text(&self) -> String {
        self.wanted.iter().fold(String::new(), |mut text, wanted| {
            // Writing to a String cannot fail.
            let _ = match &wanted.value {
                Some(value) => writeln!(text, "CONFIG_{}={value}", wanted.symbol),
                None => writeln!(text, "# CONFIG_{} is not set", wanted.symbol),
            };
            text
        })
    }

    /// `base` (a `.config`'s text) without the symbols that the fragments set.
    pub fn without_wanted(&self, base: &str) -> String {
        let asked: std::collections::BTreeSet<&str> =
            self.wanted.iter().map(|wanted| wanted.symbol.as_str()).collect();
        let keep = |line: &&str| match parse_line(line) {
            Ok(Some((symbol, _))) => !asked.contains(symbol.as_str()),
            _ => true,
        };
        base.lines().filter(keep).map(|line| format!("{line}\n")).collect()
    }

    /// Everything that was asked for and did not come out so in `config`, one line each; empty when all is well.
    /// `tree` names the reasons.
    pub fn unmet(&self, config: &Config, tree: &Tree) -> Vec<String> {
        self.wanted
            .iter()
            .filter(|wanted| !config.satisfies(wanted))
            .map(|wanted| {
                let asked = wanted.value.as_deref().unwrap_or("n");
                let found = config.shown(&wanted.symbol);
                let reason = tree.explain(&wanted.symbol, wanted.value.is_some(), config);
                format!(
                    "{}: CONFIG_{}={asked} was asked for, and it came out as {found}\n{reason}",
                    wanted.place, wanted.symbol
                )
            })
            .collect()
    }

    /// Fails with all that is unmet.
    pub fn check(&self, config: &Config, tree: &Tree) -> Result<()> {
        let unmet = self.unmet(config, tree);
        if unmet.is_empty() {
            return Ok(());
        }
        let (count, noun) = (unmet.len(), if unmet.len() == 1 { "symbol" } else { "symbols" });
        bail!("{count} configuration {noun} can't be had as asked:\n{}", unmet.join("\n"));
    }
}

/// Parses a line of a fragment or of a `.config`; None for a comment or an empty line.
fn parse_line(line: &str) -> Result<Option<(String, Option<String>)>> {
    let line = line.trim();
    let off = line.strip_prefix("# CONFIG_").and_then(|rest| rest.strip_suffix(" is not set"));
    if let Some(symbol) = off {
        return Ok(Some((symbol.to_owned(), None)));
    }
    if line.is_empty() || line.starts_with('#') {
        return Ok(None);
    }
    let parsed = line.strip_prefix("CONFIG_").and_then(|rest| rest.split_once('='));
    let Some((symbol, value)) = parsed else {
        bail!("{line:?}: expected CONFIG_NAME=value, `# CONFIG_NAME is not set` or a comment");
    };
    if symbol.is_empty() || !symbol.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
        bail!("{symbol:?}: not a symbol's name");
    }
    if value.is_empty() {
        bail!("CONFIG_{symbol}: has no value");
    }
    Ok(Some((symbol.to_owned(), (value != "n").then(|| value.to_owned()))))
}

/// A finished `.config`.
#[derive(Debug, Default)]
pub struct Config {
    values: BTreeMap<String, String>,
}

impl Config {
    /// Reads `.config` text. Lines that are no assignment are passed over: the file is not written by hand.
    pub fn parse(text: &str) -> Self {
        let lines = text.lines().filter_map(|line| parse_line(line).ok().flatten());
        Self { values: lines.filter_map(|(symbol, value)| value.map(|value| (symbol, value))).collect() }
    }

    /// Reads the `.config` at `path`.
    pub fn load(path: &Path) -> Result<Self> {
        let text =
            std::fs::read_to_string(path).with_context(|| format!("{}: cannot read", path.display()))?;
        Ok(Self::parse(&text))
    }

    /// The symbol's value; None when it is off.
    pub fn get(&self, symbol: &str) -> Option<&str> {
        self.values.get(symbol).map(String::as_str)
    }

    fn shown(&self, symbol: &str) -> &str {
        self.get(symbol).unwrap_or("n")
    }

    fn satisfies(&self, wanted: &Wanted) -> bool {
        self.get(&wanted.symbol) == wanted.value.as_deref()
    }

    /// The lines of `other` that differ from this configuration, in fragment form: what a menu changed.
    pub fn changes_to(&self, other: &Self) -> Vec<String> {
        let symbols: std::collections::BTreeSet<&String> =
            self.values.keys().chain(other.values.keys()).collect();
        symbols
            .into_iter()
            .filter(|symbol| self.get(symbol) != other.get(symbol))
            .map(|symbol| match other.get(symbol) {
                Some(value) => format!("CONFIG_{symbol}={value}"),
                None => format!("# CONFIG_{symbol} is not set"),
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fragments(text: &str) -> Result<Fragments> {
        Fragments::parse([("30-network.config", text)].into_iter())
    }

    #[test]
    fn lines_keep_their_place() {
        let fragments = fragments("# why\nCONFIG_A=y\n\n# CONFIG_B is not set\nCONFIG_C=\"x y\"\n").unwrap();
        assert_eq!(fragments.wanted[1].place, "30-network.config:4");
        assert_eq!(fragments.merged_text(), "CONFIG_A=y\n# CONFIG_B is not set\nCONFIG_C=\"x y\"\n");
    }

    #[test]
    fn nonsense_is_named_with_its_line() {
        for (text, word) in [
            ("CONFIG_A=y\nCONFIG_B\n", "30-network.config:2"),
            ("CONFIG_=y", ":1"),
            ("CONFIG_A=", "no value"),
        ] {
            let message = format!("{:#}", fragments(text).unwrap_err());
            assert!(message.contains(word), "{message}");
        }
    }

    #[test]
    fn a_symbol_asked_for_twice_is_refused_with_both_places() {
        let message = fragments("CONFIG_A=y\n# CONFIG_A is not set\n").unwrap_err().to_string();
        assert!(message.contains(":2") && message.contains(":1"), "{message}");
    }

    #[test]
    fn a_menus_changes_come_back_as_fragment_lines() {
        let before = Config::parse("CONFIG_A=y\nCONFIG_B=y\n");
        let after = Config::parse("CONFIG_A=y\nCONFIG_C=3\n# CONFIG_B is not set\n");
        assert_eq!(before.changes_to(&after), ["# CONFIG_B is not set", "CONFIG_C=3"]);
    }
}

//! Recommended settings of the kernel. In: xtask/hardening/recommendations.toml, a finished `.config`. Out: each setting
//! as it stands, and an error that names all that are neither followed nor waived. Must never: take a waiver for more than
//! it is: one that is no longer needed is an error too.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use super::{Config, parse_line};

/// The file's name in messages.
const FILE: &str = "xtask/hardening/recommendations.toml";

/// The file, as it is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    /// What each source's name stands for.
    sources: BTreeMap<String, String>,
    /// By source, then by symbol.
    wanted: BTreeMap<String, BTreeMap<String, RawWanted>>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum RawWanted {
    Value(String),
    Full(RawFull),
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawFull {
    value: String,
    #[serde(default)]
    unless: Vec<String>,
    waived: Option<String>,
}

/// A symbol with what it shall be.
#[derive(Debug, PartialEq, Eq)]
pub struct Recommended {
    /// Without `CONFIG_`.
    pub symbol: String,
    /// `n`, or what stands behind the `=`.
    pub value: String,
    /// Who wants it.
    pub source: String,
    /// Where any of these holds, it need not be.
    unless: Vec<(String, String)>,
    /// Why it is not so here.
    pub waived: Option<String>,
}

/// All of them.
#[derive(Debug)]
pub struct Recommendations {
    /// What each source's name stands for.
    pub sources: BTreeMap<String, String>,
    /// By source, then by symbol.
    pub wanted: Vec<Recommended>,
}

/// How a configuration stands to a recommendation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// As wanted.
    Followed,
    /// Otherwise, and the file says why.
    Waived,
    /// Otherwise.
    Open,
}

impl Recommendations {
    /// Reads the file.
    pub fn load(path: &Path) -> Result<Self> {
        let text =
            std::fs::read_to_string(path).with_context(|| format!("{}: cannot read", path.display()))?;
        Self::parse(&text).with_context(|| FILE.to_owned())
    }

    fn parse(text: &str) -> Result<Self> {
        let Raw { sources, wanted: by_source } =
            toml::from_str(text).context("not such a list of settings")?;
        let mut wanted: Vec<Recommended> = Vec::new();
        for (source, symbols) in by_source {
            if !sources.contains_key(&source) {
                bail!("[wanted.{source}]: [sources] does not say what {source} is");
            }
            for (symbol, raw) in symbols {
                if let Some(earlier) = wanted.iter().find(|earlier| earlier.symbol == symbol) {
                    bail!("{symbol} stands under {} and {source}; keep one of the two", earlier.source);
                }
                wanted.push(resolve(&source, symbol, raw)?);
            }
        }
        Ok(Self { sources, wanted })
    }

    /// Fails with everything that is neither followed nor waived, and every waiver of what is followed.
    pub fn check(&self, config: &Config) -> Result<()> {
        let faults: Vec<String> = self.wanted.iter().filter_map(|wanted| wanted.fault(config)).collect();
        match faults.len() {
            0 => Ok(()),
            1 => bail!("a recommended setting of the kernel is not kept:\n{}", faults[0]),
            count => {
                bail!("{count} recommended settings of the kernel are not kept:\n{}", faults.join("\n"))
            }
        }
    }
}

fn resolve(source: &str, symbol: String, raw: RawWanted) -> Result<Recommended> {
    let RawFull { value, unless, waived } = match raw {
        RawWanted::Value(value) => RawFull { value, ..RawFull::default() },
        RawWanted::Full(full) => full,
    };
    if value.is_empty() {
        bail!("{symbol}: has no value; `n` stands for off");
    }
    if waived.as_ref().is_some_and(|reason| reason.trim().is_empty()) {
        bail!("{symbol}: is waived without a reason");
    }
    let condition = |text: String| {
        let (symbol, value) = text
            .split_once('=')
            .with_context(|| format!("{symbol}: unless {text:?}: expected SYMBOL=VALUE"))?;
        Ok((symbol.to_owned(), value.to_owned()))
    };
    let unless = unless.into_iter().map(condition).collect::<Result<_>>()?;
    Ok(Recommended { symbol, value, source: source.to_owned(), unless, waived })
}

impl Recommended {
    /// How `config` stands to it.
    pub fn standing(&self, config: &Config) -> Standing {
        let is = |symbol: &str, value: &str| shown(config, symbol) == value;
        if is(&self.symbol, &self.value) || self.unless.iter().any(|(symbol, value)| is(symbol, value)) {
            Standing::Followed
        } else if self.waived.is_some() {
            Standing::Waived
        } else {
            Standing::Open
        }
    }

    fn fault(&self, config: &Config) -> Option<String> {
        let Self { symbol, value, source, waived, .. } = self;
        let found = shown(config, symbol);
        match (self.standing(config), waived) {
            (Standing::Open, _) => Some(format!(
                "    {symbol}: {value} is wanted ({source}), and {found} is present; ask for `{}` in a fragment of \
                 kernel-config/, or say in {FILE} why it is `waived`",
                fragment_line(symbol, value)
            )),
            (Standing::Followed, Some(_)) => Some(format!(
                "    {symbol}: {value} is wanted ({source}) and present, yet it is waived; take `waived` out of {FILE}"
            )),
            _ => None,
        }
    }
}

/// The symbol's value as the recommendations write it. An empty text is as good as off.
pub fn shown<'a>(config: &'a Config, symbol: &str) -> &'a str {
    config.get(symbol).filter(|value| *value != "\"\"").unwrap_or("n")
}

fn fragment_line(symbol: &str, value: &str) -> String {
    match value {
        "n" => format!("# CONFIG_{symbol} is not set"),
        _ => format!("CONFIG_{symbol}={value}"),
    }
}

/// What a distribution has of these symbols: a `.config`, whose first line says whose it is.
#[derive(Debug)]
pub struct Distribution {
    /// Name and version.
    pub name: String,
    /// The values.
    pub config: Config,
}

impl Distribution {
    /// All of `dir`, in the order of their file names.
    pub fn load_all(dir: &Path) -> Result<Vec<Self>> {
        let entries = std::fs::read_dir(dir).with_context(|| format!("{}: cannot list", dir.display()))?;
        let mut paths: Vec<_> = entries
            .map(|entry| entry.map(|entry| entry.path()))
            .collect::<std::io::Result<_>>()
            .with_context(|| format!("{}: cannot list", dir.display()))?;
        paths.retain(|path| path.extension().is_some_and(|extension| extension == "config"));
        paths.sort();
        paths.iter().map(|path| Self::load(path)).collect()
    }

    fn load(path: &Path) -> Result<Self> {
        let text =
            std::fs::read_to_string(path).with_context(|| format!("{}: cannot read", path.display()))?;
        let name = text.lines().next().and_then(|line| line.strip_prefix("# ")).map(str::to_owned);
        let name =
            name.with_context(|| format!("{}: its first line does not say whose it is", path.display()))?;
        for line in text.lines() {
            parse_line(line).with_context(|| path.display().to_string())?;
        }
        Ok(Self { name, config: Config::parse(&text) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "[sources]\nkspp = \"a project\"\n[wanted.kspp]\n";

    fn fault(list: &str, config: &str) -> String {
        let list = Recommendations::parse(&format!("{HEAD}{list}")).unwrap();
        list.check(&Config::parse(config)).map_or_else(|error| error.to_string(), |()| String::new())
    }

    #[test]
    fn what_is_neither_followed_nor_waived_is_named_with_its_fix() {
        assert_eq!(
            fault("DEBUG_WX = \"y\"\nDEVMEM = \"n\"\n", "CONFIG_DEVMEM=y\n"),
            "2 recommended settings of the kernel are not kept:\n    \
             DEBUG_WX: y is wanted (kspp), and n is present; ask for `CONFIG_DEBUG_WX=y` in a fragment of \
             kernel-config/, or say in xtask/hardening/recommendations.toml why it is `waived`\n    \
             DEVMEM: n is wanted (kspp), and y is present; ask for `# CONFIG_DEVMEM is not set` in a fragment of \
             kernel-config/, or say in xtask/hardening/recommendations.toml why it is `waived`"
        );
        assert_eq!(fault("DEBUG_WX = \"y\"\nDEVMEM = \"n\"\n", "CONFIG_DEBUG_WX=y\n"), "");
        assert_eq!(fault("BUILD_SALT = \"n\"\n", "CONFIG_BUILD_SALT=\"\"\n"), "");
        assert!(fault("BUILD_SALT = \"n\"\n", "CONFIG_BUILD_SALT=\"x\"\n").contains("\"x\" is present"));
    }

    #[test]
    fn a_waiver_counts_as_long_as_it_is_needed() {
        let list = "USER_NS = { value = \"n\", waived = \"containers need it\" }\n";
        assert_eq!(fault(list, "CONFIG_USER_NS=y\n"), "");
        assert!(fault(list, "").contains("USER_NS: n is wanted (kspp) and present, yet it is waived"));
    }

    #[test]
    fn another_setting_may_make_it_needless() {
        let list = "MODULE_SIG = { value = \"y\", unless = [\"MODULES=n\"] }\n";
        assert_eq!(fault(list, ""), "");
        assert!(fault(list, "CONFIG_MODULES=y\n").contains("MODULE_SIG: y is wanted"));
    }

    #[test]
    fn a_list_that_makes_no_sense_is_refused() {
        for (text, word) in [
            ("[sources]\n[wanted.kspp]\nBUG = \"y\"\n", "does not say what kspp is"),
            (&format!("{HEAD}BUG = {{ value = \"y\", waived = \" \" }}\n"), "without a reason"),
            (&format!("{HEAD}BUG = {{ value = \"y\", unless = [\"MODULES\"] }}\n"), "expected SYMBOL=VALUE"),
            (&format!("{HEAD}BUG = \"\"\n"), "has no value"),
            (&format!("{HEAD}BUG = {{ value = \"y\", because = \"\" }}\n"), "not such a list"),
        ] {
            let message = format!("{:#}", Recommendations::parse(text).unwrap_err());
            assert!(message.contains(word), "{message}");
        }
    }
}

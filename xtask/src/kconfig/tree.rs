//! The Kconfig files -> who depends on what. In: a source tree with its top file (`Kconfig`, or BusyBox's `Config.in`).
//! Out: for a symbol that did not come out as asked, the reason, down to the false leaves.
//! Must never: decide a configuration (that is Kconfig's own work); it only explains.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context, Result};

use super::Config;
use super::expression::{Expression, Leaf};

/// How deep a chain of false leaves is followed. Real chains have two to four links.
const DEPTH_MAX: usize = 8;

/// All definitions of all symbols.
#[derive(Debug, Default)]
pub struct Tree {
    definitions: BTreeMap<String, Vec<Definition>>,
    /// Selected symbol -> who selects it, under which condition.
    selectors: BTreeMap<String, Vec<(String, Expression)>>,
}

/// One `config X` block. A symbol may have several.
#[derive(Debug, Default, Clone)]
struct Definition {
    depends: Vec<Expression>,
    /// Whether it has a prompt, so that it can be asked for.
    prompt: bool,
    choice: Option<usize>,
}

/// Where the reader is: conditions of enclosing `if`, `menu` and `choice` blocks.
#[derive(Debug)]
struct Scope {
    closes_with: &'static str,
    depends: Vec<Expression>,
    choice: Option<usize>,
}

struct Reader<'a> {
    root: &'a Path,
    tree: Tree,
    scopes: Vec<Scope>,
    choices: usize,
    current: Option<(String, Definition)>,
}

impl Tree {
    /// Reads `top` below `root` and all that it sources, for the x86 architecture.
    pub fn load(root: &Path, top: &str) -> Result<Self> {
        let mut reader =
            Reader { root, tree: Self::default(), scopes: Vec::new(), choices: 0, current: None };
        reader.file(top)?;
        reader.finish();
        Ok(reader.tree)
    }

    /// Why `symbol` did not come out on (or off), as indented lines.
    pub fn explain(&self, symbol: &str, wanted_on: bool, config: &Config) -> String {
        let mut lines = Vec::new();
        if wanted_on {
            self.explain_off(symbol, config, 1, &mut BTreeSet::new(), &mut lines);
        } else {
            self.explain_on(symbol, config, &mut lines);
        }
        lines.join("\n")
    }

    fn explain_off(
        &self,
        symbol: &str,
        config: &Config,
        depth: usize,
        seen: &mut BTreeSet<String>,
        lines: &mut Vec<String>,
    ) {
        let indent = "    ".repeat(depth);
        if depth > DEPTH_MAX || !seen.insert(symbol.to_owned()) {
            return;
        }
        let Some(definitions) = self.definitions.get(symbol) else {
            lines.push(format!(
                "{indent}{symbol} is defined nowhere in this source: misspelt, or gone in this version"
            ));
            return;
        };
        let prompted = definitions.iter().filter(|definition| definition.prompt);
        let mut candidates: Vec<&Definition> = prompted.collect();
        if candidates.is_empty() {
            lines.push(format!(
                "{indent}{symbol} can't be asked for (it has no prompt); {}",
                self.selected_by(symbol)
            ));
            return;
        }
        candidates.retain(|definition| definition.depends.iter().any(|depends| !depends.holds(config)));
        if candidates.len() < definitions.iter().filter(|definition| definition.prompt).count() {
            let in_choice = definitions.iter().any(|definition| definition.choice.is_some());
            let reason = if in_choice {
                "another member of its choice was taken"
            } else {
                "its value is out of range or was set elsewhere"
            };
            if depth == 1 {
                lines.push(format!("{indent}its dependencies hold: {reason}"));
            }
            return;
        }
        for leaf in candidates
            .iter()
            .flat_map(|definition| definition.depends.iter())
            .flat_map(|depends| depends.false_leaves(config))
        {
            self.explain_leaf(symbol, &leaf, config, depth, seen, lines);
        }
    }

    fn explain_leaf(
        &self,
        symbol: &str,
        leaf: &Leaf,
        config: &Config,
        depth: usize,
        seen: &mut BTreeSet<String>,
        lines: &mut Vec<String>,
    ) {
        let indent = "    ".repeat(depth);
        let present = config.get(&leaf.symbol).unwrap_or("n");
        let need = match (&leaf.text, leaf.wanted_on) {
            (Some(text), _) => format!("{text}, and {} is {present}", leaf.symbol),
            (None, true) => format!("{}, which is {present}", leaf.symbol),
            (None, false) => format!("{} to be off, and it is {present}", leaf.symbol),
        };
        let line = format!("{indent}{symbol} needs {need}");
        if !lines.contains(&line) {
            lines.push(line);
        }
        if leaf.wanted_on && leaf.text.is_none() {
            self.explain_off(&leaf.symbol, config, depth + 1, seen, lines);
        }
    }

    fn explain_on(&self, symbol: &str, config: &Config, lines: &mut Vec<String>) {
        let active: Vec<&str> = self
            .selectors
            .get(symbol)
            .into_iter()
            .flatten()
            .filter(|(who, condition)| config.get(who).is_some() && condition.holds(config))
            .map(|(who, _)| who.as_str())
            .collect();
        if active.is_empty() {
            lines.push(format!("    {symbol} is on by default and has no prompt that is visible here"));
        } else {
            lines.push(format!("    {symbol} is selected by {}", active.join(", ")));
        }
    }

    fn selected_by(&self, symbol: &str) -> String {
        let who: BTreeSet<&str> =
            self.selectors.get(symbol).into_iter().flatten().map(|(who, _)| who.as_str()).collect();
        let shown: Vec<&str> = who.iter().copied().take(8).collect();
        match who.len() {
            0 => "nothing selects it, it follows its default".to_owned(),
            count if count > shown.len() => {
                format!("it is selected by {} and {} more", shown.join(", "), count - shown.len())
            }
            _ => format!("it is selected by {}", shown.join(", ")),
        }
    }
}

impl Reader<'_> {
    fn file(&mut self, name: &str) -> Result<()> {
        let path = self.root.join(name);
        let text =
            std::fs::read_to_string(&path).with_context(|| format!("{}: cannot read", path.display()))?;
        let mut help_indent: Option<Option<usize>> = None;
        let joined = text.replace("\\\n", " ");
        for line in joined.lines() {
            if let Some(indent) = help_indent {
                let here = line
                    .chars()
                    .take_while(|letter| letter.is_whitespace())
                    .map(|letter| if letter == '\t' { 8 } else { 1 })
                    .sum();
                match indent {
                    _ if line.trim().is_empty() => continue,
                    None if here > 0 => {
                        help_indent = Some(Some(here));
                        continue;
                    }
                    Some(indent) if here >= indent => continue,
                    _ => help_indent = None,
                }
            }
            let (word, rest) = split_word(line.trim());
            if matches!(word, "help" | "---help---") {
                help_indent = Some(None);
            } else {
                self.line(word, rest)?;
            }
        }
        Ok(())
    }

    fn line(&mut self, word: &str, rest: &str) -> Result<()> {
        match word {
            "config" | "menuconfig" => self.begin(rest),
            "choice" => {
                self.finish();
                self.choices += 1;
                self.scopes.push(Scope {
                    closes_with: "endchoice",
                    depends: Vec::new(),
                    choice: Some(self.choices),
                });
            }
            "menu" => {
                self.finish();
                self.scopes.push(Scope { closes_with: "endmenu", depends: Vec::new(), choice: None });
            }
            "if" => {
                self.finish();
                self.scopes.push(Scope {
                    closes_with: "endif",
                    depends: vec![Expression::parse(rest)],
                    choice: None,
                });
            }
            "endchoice" | "endmenu" | "endif" => {
                self.finish();
                if self.scopes.last().is_some_and(|scope| scope.closes_with == word) {
                    self.scopes.pop();
                }
            }
            "comment" | "mainmenu" => self.finish(),
            "source" | "rsource" | "osource" => {
                self.finish();
                let name = rest
                    .trim_matches('"')
                    .replace("$(SRCARCH)", "x86")
                    .replace("$SRCARCH", "x86")
                    .replace("$(HEADER_ARCH)", "x86");
                // Kconfig tolerates a missing file for `osource` only; one with a macro of another kind is not for x86.
                if self.root.join(&name).is_file() {
                    self.file(&name)?;
                }
            }
            "bool" | "tristate" | "string" | "hex" | "int" | "prompt" | "def_bool" | "def_tristate" => {
                self.prompt(word, rest)
            }
            "depends" => self.depends(Expression::parse(rest.trim_start_matches("on").trim())),
            "visible" => {}
            "select" | "imply" => self.select(rest),
            _ => {}
        }
        Ok(())
    }

    fn begin(&mut self, name: &str) {
        self.finish();
        let depends = self.scopes.iter().flat_map(|scope| scope.depends.iter().cloned()).collect();
        let choice = self.scopes.iter().rev().find_map(|scope| scope.choice);
        self.current = Some((name.to_owned(), Definition { depends, prompt: false, choice }));
    }

    fn finish(&mut self) {
        if let Some((name, definition)) = self.current.take() {
            self.tree.definitions.entry(name).or_default().push(definition);
        }
    }

    fn prompt(&mut self, word: &str, rest: &str) {
        let Some((_, definition)) = &mut self.current else { return };
        if word.starts_with("def_") || !rest.starts_with(['"', '\'']) {
            return;
        }
        definition.prompt = true;
        let quote = &rest[..1];
        let after = rest[1..].find(quote).map_or("", |end| rest[end + 2..].trim());
        if let Some(condition) = after.strip_prefix("if ") {
            definition.depends.push(Expression::parse(condition));
        }
    }

    fn depends(&mut self, expression: Expression) {
        match (&mut self.current, self.scopes.last_mut()) {
            (Some((_, definition)), _) => definition.depends.push(expression),
            (None, Some(scope)) => scope.depends.push(expression),
            (None, None) => {}
        }
    }

    fn select(&mut self, rest: &str) {
        let Some((who, _)) = &self.current else { return };
        let (symbol, condition) = split_word(rest);
        let condition = condition
            .strip_prefix("if ")
            .map_or_else(|| Expression::Symbol("y".to_owned()), Expression::parse);
        self.tree.selectors.entry(symbol.to_owned()).or_default().push((who.clone(), condition));
    }
}

fn split_word(line: &str) -> (&str, &str) {
    let end = line.find(|letter: char| letter.is_whitespace()).unwrap_or(line.len());
    (&line[..end], line[end..].trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The shape of net/netfilter/Kconfig and net/ipv4/netfilter/Kconfig around NFT_FIB_INET.
    const FIB: &str = r#"
menuconfig NETFILTER
	bool "Network packet filtering"
	help
	  config NOT_A_SYMBOL stands in a help text.

if NETFILTER
config NF_TABLES
	tristate "nf_tables"
config NFT_FIB
	tristate
config NFT_FIB_INET
	depends on NF_TABLES_INET
	depends on NFT_FIB_IPV4
	depends on NFT_FIB_IPV6
	tristate "fib lookups in inet"
config NF_TABLES_INET
	depends on IPV6
	bool "inet tables"
	depends on NF_TABLES
config NFT_FIB_IPV4
	select NFT_FIB
	depends on NF_TABLES_IPV4
	tristate "fib lookups for IPv4"
config NF_TABLES_IPV4
	bool "IPv4 tables"
config NFT_FIB_IPV6
	select NFT_FIB
	depends on NF_TABLES_IPV6
	tristate "fib lookups for IPv6"
config NF_TABLES_IPV6
	bool "IPv6 tables"
endif
config IPV6
	bool "IPv6"
choice
	prompt "Compression"
	config KERNEL_GZIP
		bool "gzip"
	config KERNEL_XZ
		bool "xz"
endchoice
"#;

    fn tree(text: &str) -> Tree {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("Kconfig"), text).unwrap();
        Tree::load(dir.path(), "Kconfig").unwrap()
    }

    #[test]
    fn nft_fib_inet_names_both_levels_of_its_chain() {
        let config = Config::parse(
            "CONFIG_NETFILTER=y\nCONFIG_IPV6=y\nCONFIG_NF_TABLES=y\nCONFIG_NF_TABLES_INET=y\nCONFIG_NF_TABLES_IPV6=y\nCONFIG_NFT_FIB_IPV6=y\n",
        );
        let text = tree(FIB).explain("NFT_FIB_INET", true, &config);
        assert_eq!(
            text,
            "    NFT_FIB_INET needs NFT_FIB_IPV4, which is n\n        NFT_FIB_IPV4 needs NF_TABLES_IPV4, which is n"
        );
    }

    #[test]
    fn all_false_leaves_are_named_and_true_ones_are_not() {
        let config = Config::parse(
            "CONFIG_NETFILTER=y\nCONFIG_NF_TABLES=y\nCONFIG_NF_TABLES_IPV4=y\nCONFIG_NF_TABLES_IPV6=y",
        );
        let text = tree(FIB).explain("NFT_FIB_INET", true, &config);
        for leaf in [
            "NFT_FIB_IPV4, which is n",
            "NFT_FIB_IPV6, which is n",
            "NF_TABLES_INET, which is n",
            "NF_TABLES_INET needs IPV6, which is n",
        ] {
            assert!(text.contains(leaf), "{leaf} is not in:\n{text}");
        }
        assert!(!text.contains("needs NF_TABLES_IPV4"), "{text}");
    }

    #[test]
    fn an_enclosing_if_counts() {
        let text = tree(FIB).explain("NF_TABLES", true, &Config::default());
        assert_eq!(text, "    NF_TABLES needs NETFILTER, which is n");
    }

    #[test]
    fn other_reasons_have_their_own_words() {
        let tree = tree(FIB);
        let config =
            Config::parse("CONFIG_NETFILTER=y\nCONFIG_KERNEL_XZ=y\nCONFIG_NFT_FIB_IPV4=y\nCONFIG_NFT_FIB=y");
        assert!(tree.explain("NFT_FIB", true, &Config::default()).contains("no prompt"));
        assert!(tree.explain("NFT_FIB", false, &config).contains("selected by NFT_FIB_IPV4"));
        assert!(tree.explain("KERNEL_GZIP", true, &config).contains("another member of its choice"));
        assert!(tree.explain("NOT_A_SYMBOL", true, &config).contains("defined nowhere"));
    }
}

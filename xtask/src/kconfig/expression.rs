//! Kconfig's dependency expressions (the kernel's Documentation/kbuild/kconfig-language.rst, "Menu dependencies").
//! In: the text behind `depends on` or `if`. Out: a tree that can be evaluated, and its false leaves.
//! Must never: fail on a macro such as `$(cc-option,...)`; only the real Kconfig program can run it, so it counts as true.

use super::Config;

/// A dependency.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expression {
    /// A symbol that must be on.
    Symbol(String),
    /// `left = right` or `left != right` (`equal` false).
    Compare { left: String, right: String, equal: bool },
    /// `!x`
    Not(Box<Expression>),
    /// `x && y && ...`
    And(Vec<Expression>),
    /// `x || y || ...`
    Or(Vec<Expression>),
    /// Something that only Kconfig itself can decide; counts as true.
    Opaque(String),
}

impl Expression {
    /// Parses `text`; what is no expression becomes `Opaque`.
    pub fn parse(text: &str) -> Self {
        let tokens = tokens(text);
        let mut parser = Parser { tokens: &tokens, at: 0 };
        match parser.or() {
            Some(expression) if parser.at == tokens.len() => expression,
            _ => Self::Opaque(text.trim().to_owned()),
        }
    }

    /// Whether it holds under `config` (`m` counts as on: no module is ever built).
    pub fn holds(&self, config: &Config) -> bool {
        match self {
            Self::Symbol(name) => symbol_on(name, config),
            Self::Compare { left, right, equal } => {
                (operand(left, config) == operand(right, config)) == *equal
            }
            Self::Not(inner) => !inner.holds(config),
            Self::And(parts) => parts.iter().all(|part| part.holds(config)),
            Self::Or(parts) => parts.iter().any(|part| part.holds(config)),
            Self::Opaque(_) => true,
        }
    }

    /// The leaves that make it false under `config`: a symbol that is off, or (`wanted_on` false) one that is on.
    pub fn false_leaves(&self, config: &Config) -> Vec<Leaf> {
        let mut leaves = Vec::new();
        self.collect(config, true, &mut leaves);
        leaves
    }

    fn collect(&self, config: &Config, want: bool, leaves: &mut Vec<Leaf>) {
        if self.holds(config) == want {
            return;
        }
        match self {
            Self::Symbol(name) => leaves.push(Leaf { symbol: name.clone(), text: None, wanted_on: want }),
            Self::Compare { left, right, equal } => {
                let sign = if *equal == want { "=" } else { "!=" };
                let text = format!("{left}{sign}{right}");
                leaves.push(Leaf { symbol: left.clone(), text: Some(text), wanted_on: want });
            }
            Self::Not(inner) => inner.collect(config, !want, leaves),
            Self::And(parts) | Self::Or(parts) => {
                parts.iter().for_each(|part| part.collect(config, want, leaves))
            }
            Self::Opaque(_) => {}
        }
    }
}

/// A part of a dependency that is not as it must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leaf {
    /// The symbol.
    pub symbol: String,
    /// The comparison, where it is one.
    pub text: Option<String>,
    /// Whether the symbol would have to be on.
    pub wanted_on: bool,
}

fn symbol_on(name: &str, config: &Config) -> bool {
    match name {
        "y" | "m" => true,
        "n" => false,
        name => matches!(config.get(name), Some("y" | "m")),
    }
}

fn operand(word: &str, config: &Config) -> String {
    if let Some(quoted) = word.strip_prefix('"') {
        return quoted.trim_end_matches('"').to_owned();
    }
    if matches!(word, "y" | "m" | "n") || word.bytes().all(|byte| byte.is_ascii_digit()) {
        return word.to_owned();
    }
    config.get(word).unwrap_or("n").trim_matches('"').to_owned()
}

fn tokens(text: &str) -> Vec<String> {
    let mut tokens = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        let length = match first {
            '(' | ')' => 1,
            '&' | '|' => 2.min(rest.len()),
            '!' if rest.starts_with("!=") => 2,
            '!' | '=' => 1,
            '<' | '>' if rest[1..].starts_with('=') => 2,
            '<' | '>' => 1,
            '"' => rest[1..].find('"').map_or(rest.len(), |end| end + 2),
            '$' => macro_length(rest),
            '#' => break,
            _ => rest
                .find(|letter: char| " \t()&|!=<>\"".contains(letter))
                .unwrap_or(rest.len())
                .max(first.len_utf8()),
        };
        tokens.push(rest[..length].to_owned());
        rest = rest[length..].trim_start();
    }
    tokens
}

/// The bytes of `$(...)` with its nested parentheses.
fn macro_length(text: &str) -> usize {
    let mut depth = 0;
    for (index, letter) in text.char_indices() {
        match letter {
            '(' => depth += 1,
            ')' if depth == 1 => return index + 1,
            ')' => depth -= 1,
            _ => {}
        }
    }
    text.len()
}

struct Parser<'a> {
    tokens: &'a [String],
    at: usize,
}

impl Parser<'_> {
    fn peek(&self) -> Option<&str> {
        self.tokens.get(self.at).map(String::as_str)
    }

    fn eat(&mut self, token: &str) -> bool {
        let found = self.peek() == Some(token);
        self.at += usize::from(found);
        found
    }

    fn or(&mut self) -> Option<Expression> {
        let mut parts = vec![self.and()?];
        while self.eat("||") {
            parts.push(self.and()?);
        }
        if parts.len() == 1 { parts.pop() } else { Some(Expression::Or(parts)) }
    }

    fn and(&mut self) -> Option<Expression> {
        let mut parts = vec![self.unary()?];
        while self.eat("&&") {
            parts.push(self.unary()?);
        }
        if parts.len() == 1 { parts.pop() } else { Some(Expression::And(parts)) }
    }

    fn unary(&mut self) -> Option<Expression> {
        if self.eat("!") {
            return Some(Expression::Not(Box::new(self.unary()?)));
        }
        if self.eat("(") {
            let inner = self.or()?;
            return self.eat(")").then_some(inner);
        }
        let word = self.peek()?.to_owned();
        self.at += 1;
        let comparison = self.peek().map(str::to_owned);
        match comparison.as_deref() {
            Some(sign @ ("=" | "!=")) => {
                let equal = sign == "=";
                self.at += 1;
                let right = self.peek()?.to_owned();
                self.at += 1;
                Some(Expression::Compare { left: word, right, equal })
            }
            Some("<" | ">" | "<=" | ">=") => {
                self.at += 1;
                let right = self.peek()?.to_owned();
                self.at += 1;
                Some(Expression::Opaque(format!("{word} {} {right}", comparison.unwrap_or_default())))
            }
            _ if word.starts_with('$') => Some(Expression::Opaque(word)),
            _ => Some(Expression::Symbol(word)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holds(text: &str, config: &str) -> bool {
        Expression::parse(text).holds(&Config::parse(config))
    }

    #[test]
    fn operators_bind_as_in_kconfig() {
        assert!(holds("A || B && C", "CONFIG_A=y"));
        assert!(!holds("(A || B) && C", "CONFIG_A=y"));
        assert!(holds("!A && B=y", "CONFIG_B=y"));
        assert!(holds("A!=\"x\"", "CONFIG_A=\"y\""));
        assert!(holds("$(cc-option,-mfoo(x)) && A", "CONFIG_A=y"));
        assert!(!holds("$(cc-option,-mfoo) && A", ""));
    }

    #[test]
    fn only_the_leaves_that_matter_are_named() {
        let config = Config::parse("CONFIG_A=y\nCONFIG_D=y");
        let names: Vec<(String, bool)> = Expression::parse("A && (B || C) && !D")
            .false_leaves(&config)
            .into_iter()
            .map(|leaf| (leaf.symbol, leaf.wanted_on))
            .collect();
        assert_eq!(names, [("B".into(), true), ("C".into(), true), ("D".into(), false)]);
    }

    #[test]
    fn nonsense_becomes_opaque() {
        assert_eq!(Expression::parse("A &&"), Expression::Opaque("A &&".into()));
    }
}

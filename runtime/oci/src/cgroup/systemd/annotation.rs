//! `org.systemd.property.NAME` annotations: properties of the unit that nothing else in config.json has.
//!
//! In: the annotations; values in GVariant's text format. Out: properties. Must never: pass a value on that it has not
//! understood.

use std::collections::BTreeMap;

use super::property::Property;
use super::wire::Value;
use crate::report::Error;

const PREFIX: &str = "org.systemd.property.";
const NAME_BYTES_MIN: usize = 3;

/// The keywords that give a value its type.
const KEYWORDS: [(&str, u8); 12] = [
    ("boolean", b'b'),
    ("byte", b'y'),
    ("handle", b'i'),
    ("int16", b'n'),
    ("int32", b'i'),
    ("int64", b'x'),
    ("objectpath", b'o'),
    ("signature", b'g'),
    ("string", b's'),
    ("uint16", b'q'),
    ("uint32", b'u'),
    ("uint64", b't'),
];

/// Adds the properties that annotations ask for to `all`, in the names' order.
///
/// # Errors
/// A name or a value that is none, in runc's words.
pub fn properties(annotations: &BTreeMap<String, String>, all: &mut Vec<Property>) -> Result<(), Error> {
    for (key, text) in annotations {
        if let Some(name) = key.strip_prefix(PREFIX) {
            all.push(property(key, name, text)?);
        }
    }
    Ok(())
}

fn property(key: &str, name: &str, text: &str) -> Result<Property, Error> {
    let problem = if name.len() < NAME_BYTES_MIN {
        Some("too short")
    } else if !name.bytes().all(|byte| byte.is_ascii_alphabetic()) {
        Some("contains non-alphabetic character")
    } else {
        None
    };
    if let Some(problem) = problem {
        return Err(Error::new(format!("annotation {key} name incorrect: {problem}")));
    }
    let wrong = |why: &str| Error::new(format!("annotation {key}={text} value parse error: {why}"));
    let mut parser = Parser { rest: text };
    let value = parser.value().ok_or_else(|| {
        wrong("expected GVariant text: a number, true, 'text' or [...], with a type before it where that is needed: uint64 5")
    })?;
    if !parser.rest.trim().is_empty() {
        return Err(wrong("something follows the value"));
    }
    // The manual's names count seconds; those on the bus, microseconds.
    match name.strip_suffix("Sec") {
        Some(stem) if stem.ends_with(|last: char| last.is_ascii_lowercase()) => {
            let value = microseconds(&value).ok_or_else(|| wrong("not a number of seconds"))?;
            Ok((format!("{stem}USec"), Value::u64(value)))
        }
        _ => Ok((name.to_string(), value)),
    }
}

fn microseconds(value: &Value) -> Option<u64> {
    match *value {
        Value::Number(kind, seconds) if kind != b'b' => seconds.checked_mul(1_000_000),
        _ => None,
    }
}

/// Reads GVariant text.
struct Parser<'a> {
    rest: &'a str,
}

impl<'a> Parser<'a> {
    fn value(&mut self) -> Option<Value> {
        self.rest = self.rest.trim_start();
        if self.rest.starts_with('[') {
            return self.strings();
        }
        let mut kind = None;
        if !self.rest.starts_with(['\'', '"']) {
            let word = self.word();
            let Some((_, named)) = KEYWORDS.iter().find(|(keyword, _)| *keyword == word) else {
                return number(word, b'i');
            };
            kind = Some(*named);
            self.rest = self.rest.trim_start();
        }
        match kind.unwrap_or(b's') {
            kind @ (b's' | b'o' | b'g') => self.string().map(|text| Value::Text(kind, text)),
            kind => number(self.word(), kind),
        }
    }

    /// Up to what ends a number, a keyword or a type.
    fn word(&mut self) -> &'a str {
        let ends = |byte| matches!(byte, b' ' | b'\t' | b'\n' | b',' | b'[' | b']' | b'\'' | b'"');
        let end = self.rest.bytes().position(ends).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        word
    }

    fn string(&mut self) -> Option<String> {
        let mut text = String::new();
        let mut letters = self.rest.chars();
        let quote = letters.next().filter(|quote| matches!(quote, '\'' | '"'))?;
        loop {
            let letter = match letters.next()? {
                '\\' => escaped(letters.next()?)?,
                letter if letter == quote => break,
                // It ends text on the bus.
                '\0' => return None,
                letter => letter,
            };
            text.push(letter);
        }
        self.rest = letters.as_str();
        Some(text)
    }

    /// `['a', 'b']`; of other arrays systemd's properties have none that text could set.
    fn strings(&mut self) -> Option<Value> {
        let mut texts = Vec::new();
        loop {
            // The bracket, or the comma.
            self.rest = self.rest[1..].trim_start();
            texts.push(self.string()?);
            self.rest = self.rest.trim_start();
            if let Some(rest) = self.rest.strip_prefix(']') {
                self.rest = rest;
                return Some(Value::Texts(texts));
            }
            if !self.rest.starts_with(',') {
                return None;
            }
        }
    }
}

/// What stands behind a backslash. Letters by number are none: whoever writes JSON has those already.
fn escaped(letter: char) -> Option<char> {
    match letter {
        'n' => Some('\n'),
        't' => Some('\t'),
        letter => Some(letter).filter(|letter| !letter.is_alphanumeric()),
    }
}

/// A whole number or a truth, of the type `kind`. No property of systemd's is a fraction.
fn number(word: &str, kind: u8) -> Option<Value> {
    if let "true" | "false" = word {
        return matches!(kind, b'b' | b'i').then(|| Value::bool(word == "true"));
    }
    let (digits, is_negative) = match word.strip_prefix('-') {
        Some(digits) => (digits, true),
        None => (word.strip_prefix('+').unwrap_or(word), false),
    };
    // Two signs are none.
    let (digits, radix) = digits.strip_prefix("0x").map_or((digits, 10), |digits| (digits, 16));
    let size = if digits.starts_with('+') { None } else { u64::from_str_radix(digits, radix).ok() }?;
    // How many bits it may have, and whether there are negative ones.
    let (bits, is_signed) = match kind {
        b'y' => (8, false),
        b'n' => (16, true),
        b'q' => (16, false),
        b'i' => (32, true),
        b'u' => (32, false),
        b'x' => (64, true),
        b't' => (64, false),
        _ => return None,
    };
    let highest = u64::MAX >> (64 - bits + u32::from(is_signed));
    match is_negative {
        // Two's complement has one more below than above.
        true if is_signed && size <= highest + 1 => Some(Value::Number(kind, size.wrapping_neg())),
        false if size <= highest => Some(Value::Number(kind, size)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(name: &str, text: &str) -> Result<Property, String> {
        let annotations = BTreeMap::from([(format!("{PREFIX}{name}"), text.to_string())]);
        let mut all = Vec::new();
        properties(&annotations, &mut all).map_err(|error| error.to_string())?;
        assert_eq!(all.len(), 1);
        Ok(all.remove(0))
    }

    fn value(text: &str) -> Option<Value> {
        parse("Name", text).ok().map(|(_, value)| value)
    }

    #[test]
    fn values_have_the_types_that_gvariant_text_gives_them() {
        for (text, expected) in [
            ("true", Value::bool(true)),
            (" false ", Value::bool(false)),
            ("boolean true", Value::bool(true)),
            ("5", Value::Number(b'i', 5)),
            ("-5", Value::Number(b'i', -5i64 as u64)),
            ("0x1f", Value::Number(b'i', 31)),
            ("uint64 18446744073709551615", Value::u64(u64::MAX)),
            ("byte 255", Value::Number(b'y', 255)),
            ("int64 -9223372036854775808", Value::Number(b'x', i64::MIN as u64)),
            ("'inactive-or-failed'", Value::string("inactive-or-failed")),
            (r#""it's""#, Value::string("it's")),
            (r"'a\'b\\\né'", Value::string("a'b\\\né")),
            ("objectpath '/a'", Value::Text(b'o', "/a".to_string())),
            ("['a', \"b\" ]", Value::Texts(vec!["a".to_string(), "b".to_string()])),
        ] {
            assert_eq!(value(text), Some(expected), "{text}");
        }
    }

    #[test]
    fn what_is_no_value_is_refused() {
        for text in [
            "",
            " ",
            "yes",
            "'open",
            "5 6",
            "byte 256",
            "uint32 -1",
            "2147483648",
            "[]",
            "[1, 'a']",
            "[1",
            "[1 2]",
            "@(s) ('a')",
            "('a', 1)",
            "{'a': 1}",
            "uint64 'a'",
            "+-5",
            "0x",
            "inf",
            "nan",
            "true false",
            r"'\u0000'",
            "é",
            "@",
            "[,]",
            "''x",
            "uint64",
            "1.5",
            "'a\0b'",
            &"[".repeat(100_000),
        ] {
            assert_eq!(value(text), None, "{text}");
        }
        let error = parse("Name", "yes").unwrap_err();
        assert!(error.starts_with("annotation org.systemd.property.Name=yes value parse error: "), "{error}");
    }

    #[test]
    fn seconds_are_microseconds_on_the_bus() {
        for (name, text, expected) in [
            ("TimeoutStopSec", "uint64 2", ("TimeoutStopUSec", Value::u64(2_000_000))),
            ("TimeoutStopUSec", "uint64 123456789", ("TimeoutStopUSec", Value::u64(123_456_789))),
            ("CPUQuotaPerSec", "5", ("CPUQuotaPerUSec", Value::u64(5_000_000))),
            ("FOOSec", "5", ("FOOSec", Value::Number(b'i', 5))),
        ] {
            assert_eq!(parse(name, text), Ok((expected.0.to_string(), expected.1)), "{name}");
        }
        assert!(parse("TimeoutStopSec", "'2'").unwrap_err().ends_with("not a number of seconds"));
        assert!(parse("TimeoutStopSec", "true").is_err());
    }

    #[test]
    fn names_are_letters() {
        for (name, why) in
            [("Ab", "too short"), ("A-b", "non-alphabetic"), ("Émile", "non-alphabetic"), ("", "too short")]
        {
            let error = parse(name, "1").unwrap_err();
            assert!(error.contains("name incorrect: ") && error.contains(why), "{error}");
        }
        let others = BTreeMap::from([("org.systemd.other".to_string(), "x".to_string())]);
        let mut all = Vec::new();
        assert_eq!((properties(&others, &mut all), all.len()), (Ok(()), 0));
    }
}

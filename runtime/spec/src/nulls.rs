//! JSON members whose value is null. In: JSON text. Out: the same without them, of the same length, so that the lines and
//! columns of errors hold. Must never: touch what stands in a string.
//!
//! runc reads such a member as one that is not there (Go's encoding/json), and callers write them; serde refuses null for
//! all that is no `Option`.

use std::borrow::Cow;

use serde::de::Error;
use serde::de::IgnoredAny;

/// The text with every `"name": null` member replaced by blanks.
///
/// # Errors
/// A text that isn't UTF-8; or one with the word null that is no JSON: what is wrong with it might be among what is blanked.
pub fn without(json: &[u8]) -> serde_json::Result<Cow<'_, [u8]>> {
    let text = std::str::from_utf8(json).map_err(Error::custom)?;
    if !text.contains("null") {
        return Ok(Cow::Borrowed(json));
    }
    serde_json::from_str::<IgnoredAny>(text)?;
    let mut text = json.to_vec();
    let mut at = 0;
    // Where the string begins that ended last: a member's name, if a colon follows.
    let mut name = 0;
    while at < text.len() {
        match text[at] {
            b'"' => {
                name = at;
                at = string_end(&text, at);
            }
            b'n' if text[at..].starts_with(b"null") => {
                let colon = text[..at].iter().rposition(|byte| !byte.is_ascii_whitespace());
                if colon.is_some_and(|colon| text[colon] == b':') {
                    blank_member(&mut text, name, at + 4);
                }
                at += 4;
            }
            _ => at += 1,
        }
    }
    Ok(Cow::Owned(text))
}

/// The index behind the string that begins at `start`.
fn string_end(text: &[u8], start: usize) -> usize {
    let mut at = start + 1;
    while at < text.len() && text[at] != b'"' {
        at += if text[at] == b'\\' { 2 } else { 1 };
    }
    at + 1
}

/// Blanks the member and one comma: the one behind it, or else the one before.
fn blank_member(text: &mut [u8], start: usize, end: usize) {
    let blank = |bytes: &mut [u8]| {
        bytes.iter_mut().filter(|byte| !byte.is_ascii_whitespace()).for_each(|byte| *byte = b' ');
    };
    blank(&mut text[start..end]);
    let behind = text[end..].iter().position(|byte| !byte.is_ascii_whitespace()).map(|at| end + at);
    // Looked for only where it counts: what is blank already may lie before, from here back to the first member.
    let before = || text[..start].iter().rposition(|byte| !byte.is_ascii_whitespace());
    let comma = behind.filter(|at| text[*at] == b',').or_else(|| before().filter(|at| text[*at] == b','));
    if let Some(comma) = comma {
        text[comma] = b' ';
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(json: &str, expected: &str) {
        let text = without(json.as_bytes()).unwrap();
        assert_eq!(text.len(), json.len(), "{json}");
        let parse = |text: &[u8]| serde_json::from_slice::<serde_json::Value>(text).unwrap();
        assert_eq!(parse(&text), parse(expected.as_bytes()), "{json}");
    }

    #[test]
    fn members_of_null_are_as_if_not_there() {
        check(r#"{"a":null}"#, "{}");
        check(r#"{"a": null , "b":1}"#, r#"{"b":1}"#);
        check(r#"{"b":1,"a":null}"#, r#"{"b":1}"#);
        check(r#"{"a":null,"b":null,"c":{"d":null}}"#, r#"{"c":{}}"#);
        check("{\"x\":[1],\n\"a\" :\nnull}", r#"{"x":[1]}"#);
    }

    #[test]
    fn strings_and_elements_stay() {
        for json in [r#"{"a":"x\\\": null, y"}"#, r#"{"null":"null"}"#, "[null,1]", r#"{"a":[null]}"#] {
            check(json, json);
        }
    }

    #[test]
    fn what_is_no_json_does_no_harm() {
        for json in [r#"null"#, "\"", "nul", r#""\"#] {
            assert_eq!(without(json.as_bytes()).unwrap().len(), json.len());
        }
        for json in [r#"":null"#, r#"{"a:null"#, ":null"] {
            assert!(without(json.as_bytes()).is_err(), "{json}");
        }
    }

    /// Found by fuzzing: with the member went what made the text no JSON, and it was taken.
    #[test]
    fn what_is_wrong_with_a_member_of_null_is_told() {
        let texts: [&[u8]; 7] = [
            b"{\"a\xff\": null}",
            b"{\"a\x00\": null}",
            b"{\"b\":1 \"a\":null}",
            b"{\"a\":null,}",
            b"{,\"a\":null}",
            b"{\"a\":{}: null}",
            b"[\"a\":null]",
        ];
        for text in texts {
            assert!(without(text).is_err(), "{}", String::from_utf8_lossy(text));
        }
    }

    /// A file as large as one may be: looking back over what is blank already, each time, took hours.
    #[test]
    fn many_members_of_null_are_not_looked_through_again_and_again() {
        let members = vec![r#""a":null"#; 1 << 20].join(",");
        check(&format!("{{{members}}}"), "{}");
    }
}

//! JSON members whose value is null. In: JSON text. Out: the same without them, of the same length, so that the lines and
//! columns of errors hold. Must never: touch what stands in a string.
//!
//! runc reads such a member as one that is not there (Go's encoding/json), and callers write them; serde refuses null for
//! all that is no `Option`.

use std::borrow::Cow;

/// The text with every `"name": null` member replaced by blanks.
pub fn without(json: &[u8]) -> Cow<'_, [u8]> {
    if !json.windows(4).any(|word| word == b"null") {
        return Cow::Borrowed(json);
    }
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
    Cow::Owned(text)
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
    let before = text[..start].iter().rposition(|byte| !byte.is_ascii_whitespace());
    for comma in [behind, before].into_iter().flatten() {
        if text[comma] == b',' {
            text[comma] = b' ';
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(json: &str, expected: &str) {
        let text = without(json.as_bytes());
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
        for json in [r#"null"#, r#"":null"#, "\"", r#"{"a:null"#, "nul", ":null", r#""\"#] {
            assert_eq!(without(json.as_bytes()).len(), json.len());
        }
    }
}

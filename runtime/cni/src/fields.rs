//! Reading JSON as the reference does: keys without regard to case, `null` as absent, unknown keys ignored (contract
//! rule 9), and errors that name the field.
//!
//! In: a JSON object. Out: typed values. Must never: take a value of the wrong type in silence.

use serde_json::Map;
use serde_json::Value;

use super::error;
use super::error::Error;
use netlink::route::Network;

/// An object and where it stands.
#[derive(Debug, Clone)]
pub struct Fields<'a> {
    map: &'a Map<String, Value>,
    path: String,
}

impl<'a> Fields<'a> {
    /// The object `value`, called `path` in errors; the top has an empty path.
    ///
    /// # Errors
    /// Code 6 when it is no object.
    pub fn new(value: &'a Value, path: &str) -> Result<Fields<'a>, Error> {
        match value {
            Value::Object(map) => Ok(Fields { map, path: path.to_string() }),
            other => {
                Err(wrong_type(if path.is_empty() { "the configuration" } else { path }, "an object", other))
            }
        }
    }

    /// The path of `key` for an error.
    pub fn path(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_string() } else { format!("{}.{key}", self.path) }
    }

    /// The value of `key`; `null` is none.
    pub fn get(&self, key: &str) -> Option<&'a Value> {
        let exact = self.map.get(key);
        let value = exact.or_else(|| {
            self.map.iter().find(|(name, _)| name.eq_ignore_ascii_case(key)).map(|(_, value)| value)
        });
        value.filter(|value| !value.is_null())
    }

    /// A text.
    ///
    /// # Errors
    /// Code 6 when it is something else.
    pub fn text(&self, key: &str) -> Result<Option<&'a str>, Error> {
        self.typed(key, "a text", Value::as_str)
    }

    /// true or false; absent is false.
    ///
    /// # Errors
    /// Code 6 when it is something else.
    pub fn flag(&self, key: &str) -> Result<bool, Error> {
        Ok(self.typed(key, "true or false", Value::as_bool)?.unwrap_or(false))
    }

    /// true or false, also as a text (contract rule 12); absent is false.
    ///
    /// # Errors
    /// Code 6 when it is something else.
    pub fn flag_or_text(&self, key: &str) -> Result<bool, Error> {
        let read = |value: &Value| match value {
            Value::Bool(flag) => Some(*flag),
            Value::String(text) if text.eq_ignore_ascii_case("true") => Some(true),
            Value::String(text) if text.eq_ignore_ascii_case("false") => Some(false),
            _ => None,
        };
        Ok(self.typed(key, "true or false", read)?.unwrap_or(false))
    }

    /// A number from 0 to 2^32-1.
    ///
    /// # Errors
    /// Code 6 when it is something else.
    pub fn number(&self, key: &str) -> Result<Option<u32>, Error> {
        let read = |value: &Value| value.as_u64().and_then(|number| u32::try_from(number).ok());
        self.typed(key, "a number from 0 to 4294967295", read)
    }

    /// A VLAN's number, `first` (0 or 1) to 4094.
    ///
    /// # Errors
    /// Code 6 when it is no number, 7 when it is no VLAN's.
    pub fn vlan(&self, key: &str, first: u16) -> Result<Option<u16>, Error> {
        let in_range = |number: &u16| (first..=4094).contains(number);
        let read = |number| {
            u16::try_from(number).ok().filter(in_range).ok_or_else(|| {
                let message =
                    format!("field {}: {number} is no VLAN, which are {first} to 4094", self.path(key));
                Error::new(error::INVALID_CONFIG, message)
            })
        };
        self.number(key)?.map(read).transpose()
    }

    /// A number from 0 to 2^64-1.
    ///
    /// # Errors
    /// Code 6 when it is something else.
    pub fn large_number(&self, key: &str) -> Result<Option<u64>, Error> {
        self.typed(key, "a number from 0 to 18446744073709551615", Value::as_u64)
    }

    /// The keys of an object of texts, with their values; absent is empty.
    ///
    /// # Errors
    /// Code 6 when it is something else.
    pub fn text_pairs(&self, key: &str) -> Result<Vec<(String, String)>, Error> {
        let Some(object) = self.object(key)? else { return Ok(Vec::new()) };
        let pair = |(name, value): (&String, &Value)| match value {
            Value::String(text) => Ok((name.clone(), text.clone())),
            other => Err(wrong_type(&object.path(name), "a text", other)),
        };
        object.map.iter().map(pair).collect()
    }

    /// The elements of a list with their paths; absent is empty.
    ///
    /// # Errors
    /// Code 6 when it is something else.
    pub fn list(&self, key: &str) -> Result<Vec<(&'a Value, String)>, Error> {
        let list = self.typed(key, "a list", Value::as_array)?;
        let path = self.path(key);
        let elements = list.into_iter().flatten().enumerate();
        Ok(elements.map(|(at, value)| (value, format!("{path}[{at}]"))).collect())
    }

    /// The texts of a list; absent is empty.
    ///
    /// # Errors
    /// Code 6 when it is something else.
    pub fn texts(&self, key: &str) -> Result<Vec<String>, Error> {
        let one = |(value, path): (&Value, String)| match value {
            Value::String(text) => Ok(text.clone()),
            other => Err(wrong_type(&path, "a text", other)),
        };
        self.list(key)?.into_iter().map(one).collect()
    }

    /// The objects of a list; absent is empty.
    ///
    /// # Errors
    /// Code 6 when it is something else.
    pub fn objects(&self, key: &str) -> Result<Vec<Fields<'a>>, Error> {
        self.list(key)?.into_iter().map(|(value, path)| Fields::new(value, &path)).collect()
    }

    /// An object.
    ///
    /// # Errors
    /// Code 6 when it is something else.
    pub fn object(&self, key: &str) -> Result<Option<Fields<'a>>, Error> {
        self.get(key).map(|value| Fields::new(value, &self.path(key))).transpose()
    }

    /// A text that `parse` understands, such as an address.
    ///
    /// # Errors
    /// Code 6 when it is no text, 7 when it does not parse.
    pub fn parsed<T: std::str::FromStr>(&self, key: &str, what: &str) -> Result<Option<T>, Error> {
        match self.text(key)? {
            None | Some("") => Ok(None),
            Some(text) => text.parse().map(Some).map_err(|_| {
                let message = format!("field {}: {text:?} is not {what}", self.path(key));
                Error::new(error::INVALID_CONFIG, message)
            }),
        }
    }

    /// An address with a prefix length.
    ///
    /// # Errors
    /// As `parsed`.
    pub fn network(&self, key: &str) -> Result<Option<Network>, Error> {
        self.parsed(key, "an address with a prefix length, such as 10.88.0.0/16")
    }

    /// A field that must be there.
    ///
    /// # Errors
    /// Code 7 when it isn't.
    pub fn required<T>(&self, key: &str, value: Option<T>) -> Result<T, Error> {
        value.ok_or_else(|| Error::new(error::INVALID_CONFIG, format!("field {} is missing", self.path(key))))
    }

    fn typed<T>(
        &self,
        key: &str,
        wanted: &str,
        read: impl Fn(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, Error> {
        match self.get(key) {
            None => Ok(None),
            Some(value) => read(value).map(Some).ok_or_else(|| wrong_type(&self.path(key), wanted, value)),
        }
    }
}

/// Code 6: the value at `path` has the wrong type.
pub fn wrong_type(path: &str, wanted: &str, found: &Value) -> Error {
    let found = match found {
        Value::Null => "null".to_string(),
        Value::Bool(flag) => flag.to_string(),
        Value::Number(number) => number.to_string(),
        Value::String(text) => format!("the text {text:?}"),
        Value::Array(_) => "a list".to_string(),
        Value::Object(_) => "an object".to_string(),
    };
    Error::new(error::DECODING_FAILURE, format!("field {path}: expected {wanted}, found {found}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn rule_9_keys_match_without_case_null_is_absent_unknown_is_ignored() {
        let value =
            json!({"ISGATEWAY": true, "mtu": null, "name": "n", "somethingNew": [1], "ipMasq": false});
        let fields = Fields::new(&value, "").unwrap();
        assert!(fields.flag("isGateway").unwrap());
        assert_eq!(fields.number("mtu").unwrap(), None);
        assert!(!fields.flag("ipMasq").unwrap());
    }

    #[test]
    fn an_error_names_the_field() {
        let value = json!({"ipam": {"ranges": [[{"subnet": 7}]]}, "mtu": "1500"});
        let fields = Fields::new(&value, "").unwrap();
        let error = fields.number("mtu").unwrap_err();
        assert_eq!(error.code, error::DECODING_FAILURE);
        assert!(error.message.starts_with("field mtu: expected a number"), "{error}");
        let ipam = fields.object("ipam").unwrap().unwrap();
        let (set, path) = ipam.list("ranges").unwrap().remove(0);
        let range = Fields::new(&set[0], &format!("{path}[0]")).unwrap();
        assert!(range.network("subnet").unwrap_err().message.contains("ipam.ranges[0][0].subnet"));
    }

    #[test]
    fn rule_12_flags_may_be_texts() {
        let value = json!({"disableCheck": "true", "disableGC": "FALSE", "loadOnlyInlinedPlugins": 1});
        let fields = Fields::new(&value, "").unwrap();
        assert!(fields.flag_or_text("disableCheck").unwrap());
        assert!(!fields.flag_or_text("disableGC").unwrap());
        assert!(fields.flag_or_text("loadOnlyInlinedPlugins").is_err());
    }
}

//! JSON read with members of null left out, as Go's encoding/json has it: the plain way, to compare `spec::nulls` with.
//!
//! In: JSON text. Out: a value. Must never: share code with `spec::nulls`.

use serde::Deserialize;
use serde::de::Deserializer;
use serde::de::Error;
use serde::de::MapAccess;
use serde::de::SeqAccess;
use serde::de::Visitor;
use serde_json::Value;

/// Panics where the text without its members of null is not what serde makes of it when it leaves them out itself.
pub fn check(text: &[u8]) {
    let expected = serde_json::from_slice::<Lean>(text).map(|lean| lean.0);
    let found = spec::nulls::without(text).and_then(|without| {
        assert_eq!(without.len(), text.len());
        serde_json::from_slice::<Value>(&without)
    });
    match (&expected, &found) {
        (Ok(expected), Ok(found)) => assert_eq!(expected, found),
        (Err(_), Err(_)) => {}
        _ => panic!("{expected:?}, but without nulls {found:?}"),
    }
}

/// A value whose members of null are left out, at any depth.
struct Lean(Value);

impl<'de> Deserialize<'de> for Lean {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Lean, D::Error> {
        deserializer.deserialize_any(Reader)
    }
}

struct Reader;

impl<'de> Visitor<'de> for Reader {
    type Value = Lean;

    fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("JSON")
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Lean, E> {
        Ok(Lean(value.into()))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Lean, E> {
        Ok(Lean(value.into()))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Lean, E> {
        Ok(Lean(value.into()))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Lean, E> {
        Ok(Lean(value.into()))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Lean, E> {
        Ok(Lean(value.into()))
    }

    fn visit_unit<E: Error>(self) -> Result<Lean, E> {
        Ok(Lean(Value::Null))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Lean, A::Error> {
        let mut values = Vec::new();
        while let Some(Lean(value)) = list.next_element()? {
            values.push(value);
        }
        Ok(Lean(values.into()))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<Lean, A::Error> {
        let mut members = serde_json::Map::new();
        while let Some((name, Lean(value))) = object.next_entry::<String, Lean>()? {
            if !value.is_null() {
                members.insert(name, value);
            }
        }
        Ok(Lean(members.into()))
    }
}

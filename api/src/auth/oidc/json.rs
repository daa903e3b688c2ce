//! JSON objects of tokens.

use std::{collections::HashMap, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{Error, MapAccess, Visitor},
};
use serde_json::Value;

use super::TokenRejection;

/// The members of a JSON object. Each name appears once: parsers that take the first and the last
/// of two values could disagree about who a token belongs to.
#[derive(Debug)]
pub(super) struct Members(HashMap<String, Value>);

impl Members {
    /// Reads an object.
    ///
    /// # Errors
    /// Returns an error if the bytes are not one JSON object, or a name appears twice.
    pub(super) fn parse(json: &[u8]) -> Result<Self, TokenRejection> {
        serde_json::from_slice(json).map_err(|_| TokenRejection::Malformed)
    }

    /// Returns the value of `name`.
    pub(super) fn get(&self, name: &str) -> Option<&Value> {
        self.0.get(name)
    }

    /// Returns the text of `name`; none if the object does not have the name.
    ///
    /// # Errors
    /// Returns an error if the value is not text.
    pub(super) fn text(&self, name: &str) -> Result<Option<&str>, TokenRejection> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(TokenRejection::Malformed),
        }
    }
}

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;

        impl<'de> Visitor<'de> for Object {
            type Value = Members;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
                let mut members = HashMap::new();
                while let Some((name, value)) = map.next_entry()? {
                    if members.insert(name, value).is_some() {
                        return Err(A::Error::custom("a name appears twice"));
                    }
                }
                Ok(Members(members))
            }
        }

        deserializer.deserialize_map(Object)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_appears_once() {
        let members = Members::parse(br#"{"a":"1","b":2}"#).unwrap();
        assert_eq!(members.text("a"), Ok(Some("1")));
        assert_eq!(members.text("b"), Err(TokenRejection::Malformed));
        assert_eq!(members.text("c"), Ok(None));
        for json in [
            r#"{"a":"1","a":"1"}"#,
            r#"{"a":"1","\u0061":"2"}"#,
            r#"{"a":1} {}"#,
            r#"["a"]"#,
            r#""a""#,
            "",
        ] {
            let parsed = Members::parse(json.as_bytes());
            assert!(matches!(parsed, Err(TokenRejection::Malformed)), "{json}");
        }
    }
}

//! Values of unknown fields: checked like the other values, but not kept in memory.

use std::borrow::Cow;
use std::collections::HashSet;

use serde_json::value::RawValue;

use super::decode_state::Fault;

/// How deep the value of an unknown field may nest.
const MAX_DEPTH: usize = 100;

/// Finds duplicate keys, invalid escapes and excessive nesting in a value whose grammar serde_json
/// has already checked.
///
/// serde_json alone is not enough. It does not check the content of values that it skips, and it
/// must be able to represent values that it reads. A number of 400 digits would then be an error,
/// even in a field that is not used.
pub(super) fn check(value: &RawValue) -> Result<(), Fault> {
    let json = value.get();
    // The keys of each open object, or `None` for an array.
    let mut open: Vec<Option<HashSet<Cow<'_, str>>>> = Vec::new();
    let mut key_is_next = false;
    let mut at = 0;
    while let Some(byte) = json.as_bytes().get(at) {
        match byte {
            b'{' | b'[' if open.len() == MAX_DEPTH => return Err(Fault::TooDeep),
            b'{' => {
                open.push(Some(HashSet::new()));
                key_is_next = true;
            }
            b'[' => {
                open.push(None);
                key_is_next = false;
            }
            b'}' | b']' => {
                open.pop();
                key_is_next = false;
            }
            b',' => key_is_next = matches!(open.last(), Some(Some(_))),
            b':' => key_is_next = false,
            b'"' => {
                let literal = string_literal(&json[at..]);
                let text = unescape(literal)?;
                if key_is_next
                    && let Some(Some(keys)) = open.last_mut()
                    && !keys.insert(text)
                {
                    return Err(Fault::Duplicated);
                }
                at += literal.len();
                continue;
            }
            _ => {}
        }
        at += 1;
    }
    Ok(())
}

/// Returns the string literal at the beginning of `json`, including its quotes.
fn string_literal(json: &str) -> &str {
    let mut escaped = true; // the opening quote
    for (at, byte) in json.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return &json[..=at],
            _ => {}
        }
    }
    json
}

/// Decodes a string literal. A lone surrogate is an error.
fn unescape(literal: &str) -> Result<Cow<'_, str>, Fault> {
    if literal.contains('\\') {
        serde_json::from_str(literal)
            .map(Cow::Owned)
            .map_err(|_| Fault::NotJson)
    } else {
        Ok(Cow::Borrowed(literal.trim_matches('"')))
    }
}

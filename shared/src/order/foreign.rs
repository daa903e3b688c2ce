//! Values of fields that the order does not have: kept out of memory, yet held to the same standard as the rest.

use std::borrow::Cow;
use std::collections::HashSet;

use serde_json::value::RawValue;

use super::decode::Fault;

/// How deep a foreign value may nest.
const MAX_DEPTH: usize = 100;

/// Finds duplicated keys, broken escapes and too deep nesting in a value whose grammar serde_json has checked.
///
/// serde_json alone would not do: what it skips, it does not look into, and what it reads, it wants to hold, so that a
/// number of 400 digits, which is fine in a field that nobody reads, would be an error.
pub(super) fn check(value: &RawValue) -> Result<(), Fault> {
    let json = value.get();
    // The keys of each open object, none for an array.
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

/// The string literal, quotes included, with which `json` begins.
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

/// What a string literal spells; a lone surrogate spells nothing.
fn unescape(literal: &str) -> Result<Cow<'_, str>, Fault> {
    if literal.contains('\\') {
        serde_json::from_str(literal)
            .map(Cow::Owned)
            .map_err(|_| Fault::NotJson)
    } else {
        Ok(Cow::Borrowed(literal.trim_matches('"')))
    }
}

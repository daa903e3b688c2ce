//! Tests of the order through its public interface.

mod existing;
mod optional;
mod properties;
mod registries;
mod rules;
mod shape;
mod times;

use serde_json::Value;

use super::sample::MODEL_JSON;
use super::{Decoded, Order, Reason, Refusal, UnknownFields, decode};

/// Returns the model, with all optional fields, as a value that a test can change.
fn model() -> Value {
    Order::ENTITY.example()
}

/// Returns the model with the value at a JSON pointer replaced.
fn model_with(pointer: &str, value: impl Into<Value>) -> Value {
    let mut order = model();
    *order.pointer_mut(pointer).unwrap() = value.into();
    order
}

/// Returns the compact text of the model with one piece replaced, for text that a [`Value`] cannot
/// represent.
fn text_with(from: &str, to: &str) -> String {
    let text = model().to_string();
    assert_eq!(text.matches(from).count(), 1, "{from}");
    text.replace(from, to)
}

/// Returns the compact text of the model with additional members, such as `"a":1`.
fn text_with_members(members: &str) -> String {
    text_with("\"locale\"", &format!("{members},\"locale\""))
}

fn read(order: &Value) -> Result<Decoded, Refusal> {
    decode(order.to_string().as_bytes(), UnknownFields::Ignore)
}

fn refusal(value: impl AsRef<[u8]>) -> Refusal {
    decode(value.as_ref(), UnknownFields::Ignore).unwrap_err()
}

#[track_caller]
fn assert_malformed(value: impl AsRef<[u8]>, detail: &str) {
    let refusal = refusal(value);
    assert_eq!(refusal.reason, Reason::MalformedJson, "{refusal}");
    assert!(refusal.detail.starts_with(detail), "{refusal}");
}

#[track_caller]
fn assert_invalid(order: &Value, detail: &str) {
    let refusal = read(order).unwrap_err();
    assert_eq!(refusal.reason, Reason::InvalidOrder, "{refusal}");
    assert_eq!(refusal.detail, detail);
}

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
use super::{Decoded, Order, Reason, Rejection, UnknownFields, decode};

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

fn read(order: &Value) -> Result<Decoded, Rejection> {
    decode(order.to_string().as_bytes(), UnknownFields::Ignore)
}

fn rejection(value: impl AsRef<[u8]>) -> Rejection {
    decode(value.as_ref(), UnknownFields::Ignore).unwrap_err()
}

#[track_caller]
fn assert_malformed(value: impl AsRef<[u8]>, detail: &str) {
    let rejection = rejection(value);
    assert_eq!(rejection.reason, Reason::MalformedJson, "{rejection}");
    assert!(rejection.detail.starts_with(detail), "{rejection}");
}

#[track_caller]
fn assert_invalid(order: &Value, detail: &str) {
    let rejection = read(order).unwrap_err();
    assert_eq!(rejection.reason, Reason::InvalidOrder, "{rejection}");
    assert_eq!(rejection.detail, detail);
}

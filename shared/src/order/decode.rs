//! Decodes the value of a record to an order, or to the reason for its rejection.

use validator::{Validate, ValidationErrors, ValidationErrorsKind};

use super::MAX_VALUE_BYTES;
use super::decode_state::DecodeState;
use super::field_type::FieldType;
use super::model::Order;
use super::rejection::{Reason, Rejection};
use super::rule::{Entity, Relation};

/// Maximum number of broken rules that a rejection names.
const MAX_BROKEN_RULES: usize = 8;

/// How to treat fields that an order does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnknownFields {
    /// Ignores and counts them.
    Ignore,
    /// Rejects the record with [`Reason::UnknownField`] (strict mode).
    Reject,
}

/// A valid order.
#[derive(Clone, Debug, PartialEq)]
pub struct Decoded {
    /// The order, normalised.
    pub order: Order,
    /// Number of ignored unknown fields. Fields inside an unknown field do not count.
    pub unknown_fields: u64,
}

/// Decodes the value of a record and checks every rule.
///
/// # Errors
/// If the record cannot be stored. The error names the reason.
pub fn decode(value: &[u8], fields: UnknownFields) -> Result<Decoded, Rejection> {
    if value.len() > MAX_VALUE_BYTES {
        return Err(rejection(
            Reason::TooLarge,
            format!("{} bytes, {MAX_VALUE_BYTES} are allowed", value.len()),
        ));
    }
    let mut state = DecodeState::default();
    let order = read(value, &mut state)?;
    if fields == UnknownFields::Reject
        && let Some(entity) = state.first_unknown
    {
        return Err(rejection(
            Reason::UnknownField,
            format!(
                "{} unknown fields, the first in {entity}",
                state.unknown_fields
            ),
        ));
    }
    order
        .validate()
        .map_err(|errors| rejection(Reason::InvalidOrder, broken_rules(&errors)))?;
    check_relations(&order, Order::RELATIONS)?;
    Ok(Decoded {
        order,
        unknown_fields: state.unknown_fields,
    })
}

/// Checks the rules that span fields, and names those that `order` breaks.
pub(super) fn check_relations(
    order: &Order,
    relations: &[Relation<Order>],
) -> Result<(), Rejection> {
    let broken = relations.iter().filter(|relation| !(relation.holds)(order));
    let broken: Vec<String> = broken
        .map(|relation| format!("order: {}", relation.code))
        .collect();
    match broken.is_empty() {
        true => Ok(()),
        false => Err(rejection(Reason::InvalidOrder, broken.join(", "))),
    }
}

/// Reads the order that `value` contains, without checking its rules.
fn read(value: &[u8], state: &mut DecodeState) -> Result<Order, Rejection> {
    let text = str::from_utf8(value).map_err(|error| {
        rejection(
            Reason::MalformedJson,
            format!("not UTF-8 at byte {}", error.valid_up_to()),
        )
    })?;
    read_text(text, state).or_else(|rejection| {
        let text = without_negative_zeros(text).ok_or(rejection)?;
        *state = DecodeState::default();
        read_text(&text, state)
    })
}

fn read_text(text: &str, state: &mut DecodeState) -> Result<Order, Rejection> {
    let mut source = serde_json::Deserializer::from_str(text);
    Order::read(&mut source, state)
        .and_then(|order| source.end().map(|()| order))
        .map_err(|error| rejection(Reason::MalformedJson, state.describe(&error)))
}

/// Returns `text` with every integer `-0` replaced by ` 0`, which has the same length, or `None` if
/// there is no such integer.
///
/// `-0` is an integer in JSON's grammar, but `serde_json` reads it as a float, like `-0.0`, which
/// is not a valid integer here. Only texts that failed to parse are checked, so other texts pay
/// nothing.
fn without_negative_zeros(text: &str) -> Option<String> {
    let mut bytes = text.as_bytes().to_vec();
    let (mut in_string, mut found, mut at) = (false, false, 0);
    while at < bytes.len() {
        match bytes[at] {
            b'"' => in_string = !in_string,
            b'\\' if in_string => at += 1,
            b'-' if !in_string && is_integer_zero(&bytes[at - at.min(1)..]) => {
                bytes[at] = b' ';
                found = true;
            }
            _ => {}
        }
        at += 1;
    }
    found.then(|| String::from_utf8(bytes).ok())?
}

/// Whether the `-0` after the first byte of `text` is a whole number, and not part of `1e-0`,
/// `-0.5` or `-01`.
fn is_integer_zero(text: &[u8]) -> bool {
    let blank = |byte: u8| matches!(byte, b' ' | b'\t' | b'\n' | b'\r');
    match text {
        [before, b'-', b'0', after, ..] => {
            (matches!(before, b':' | b',' | b'[') || blank(*before))
                && (matches!(after, b',' | b']' | b'}') || blank(*after))
        }
        _ => false,
    }
}

fn rejection(reason: Reason, detail: String) -> Rejection {
    Rejection { reason, detail }
}

/// Returns the broken rules as `path: code`, in the order of the document.
fn broken_rules(errors: &ValidationErrors) -> String {
    let mut broken = Vec::new();
    collect(errors, Order::ENTITY, "", &mut broken);
    let more = broken.len().saturating_sub(MAX_BROKEN_RULES);
    broken.truncate(MAX_BROKEN_RULES);
    let mut text = broken.join(", ");
    if more > 0 {
        text.push_str(&format!(" and {more} more"));
    }
    text
}

fn collect(errors: &ValidationErrors, entity: &Entity, prefix: &str, broken: &mut Vec<String>) {
    for field in entity.fields {
        let path = format!("{prefix}{}", field.name);
        match (errors.errors().get(field.name), field.rule.entity()) {
            (Some(ValidationErrorsKind::Field(errors)), _) => {
                broken.extend(errors.iter().map(|error| format!("{path}: {}", error.code)));
            }
            (Some(ValidationErrorsKind::Struct(errors)), Some(entity)) => {
                collect(errors, entity, &format!("{path}."), broken);
            }
            (Some(ValidationErrorsKind::List(elements)), Some(entity)) => {
                for (index, errors) in elements {
                    collect(errors, entity, &format!("{path}[{index}]."), broken);
                }
            }
            (Some(_) | None, _) => {}
        }
    }
}

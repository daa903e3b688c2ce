//! Decodes the value of a record to an order, or to the reason for its rejection.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{DeserializeSeed, Deserializer, SeqAccess, Visitor};
use validator::{Validate, ValidationErrors, ValidationErrorsKind};

use super::MAX_VALUE_BYTES;
use super::entity::FieldType;
use super::model::Order;
use super::refusal::{Reason, Refusal};
use super::rule::{Entity, Relation};

/// Maximum number of broken rules that a rejection names.
const MAX_BROKEN_RULES: usize = 8;

/// How to treat fields that an order does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnknownFields {
    /// Ignores and counts them.
    Ignore,
    /// Rejects the record with [`Reason::UnknownField`] (strict mode).
    Refuse,
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
pub fn decode(value: &[u8], fields: UnknownFields) -> Result<Decoded, Refusal> {
    if value.len() > MAX_VALUE_BYTES {
        return Err(refusal(
            Reason::TooLarge,
            format!("{} bytes, {MAX_VALUE_BYTES} are allowed", value.len()),
        ));
    }
    let mut state = DecodeState::default();
    let order = read(value, &mut state)?;
    if fields == UnknownFields::Refuse
        && let Some(entity) = state.first_unknown
    {
        return Err(refusal(
            Reason::UnknownField,
            format!(
                "{} unknown fields, the first in {entity}",
                state.unknown_fields
            ),
        ));
    }
    order
        .validate()
        .map_err(|errors| refusal(Reason::InvalidOrder, broken_rules(&errors)))?;
    check_relations(&order, Order::RELATIONS)?;
    Ok(Decoded {
        order,
        unknown_fields: state.unknown_fields,
    })
}

/// Checks the rules that span fields, and names those that `order` breaks.
pub(super) fn check_relations(order: &Order, relations: &[Relation<Order>]) -> Result<(), Refusal> {
    let broken = relations.iter().filter(|relation| !(relation.holds)(order));
    let broken: Vec<String> = broken
        .map(|relation| format!("order: {}", relation.code))
        .collect();
    match broken.is_empty() {
        true => Ok(()),
        false => Err(refusal(Reason::InvalidOrder, broken.join(", "))),
    }
}

/// Reads the order that `value` contains, without checking its rules.
fn read(value: &[u8], state: &mut DecodeState) -> Result<Order, Refusal> {
    let text = str::from_utf8(value).map_err(|error| {
        refusal(
            Reason::MalformedJson,
            format!("not UTF-8 at byte {}", error.valid_up_to()),
        )
    })?;
    read_text(text, state).or_else(|refusal| {
        let text = without_negative_zeros(text).ok_or(refusal)?;
        *state = DecodeState::default();
        read_text(&text, state)
    })
}

fn read_text(text: &str, state: &mut DecodeState) -> Result<Order, Refusal> {
    let mut source = serde_json::Deserializer::from_str(text);
    Order::read(&mut source, state)
        .and_then(|order| source.end().map(|()| order))
        .map_err(|error| refusal(Reason::MalformedJson, state.describe(&error)))
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

fn refusal(reason: Reason, detail: String) -> Refusal {
    Refusal { reason, detail }
}

/// A fault in the shape of a document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    NotJson,
    WrongType,
    Missing,
    Duplicated,
    TooDeep,
}

impl Fault {
    const fn as_str(self) -> &'static str {
        match self {
            Self::NotJson => "not JSON",
            Self::WrongType => "wrong type or out of range",
            Self::Missing => "missing",
            Self::Duplicated => "duplicated",
            Self::TooDeep => "nested too deep",
        }
    }
}

/// State of a reader besides the order. It costs time only after a failure: the path is built while
/// the error returns.
#[derive(Default)]
pub(super) struct DecodeState {
    unknown_fields: u64,
    first_unknown: Option<&'static str>,
    fault: Option<Fault>,
    /// Path to the fault, innermost step first.
    path: Vec<Step>,
}

enum Step {
    Field(&'static str),
    Index(usize),
}

impl DecodeState {
    /// Counts an unknown field of `entity`.
    pub(super) fn unknown_field(&mut self, entity: &'static str) {
        self.unknown_fields += 1;
        self.first_unknown.get_or_insert(entity);
    }

    /// Returns the error for a `fault` of `field`.
    pub(super) fn fault<E: serde::de::Error>(&mut self, field: &'static str, fault: Fault) -> E {
        self.fault = Some(fault);
        self.inside(field, E::custom(fault.as_str()))
    }

    /// Adds `field` to the path of an error in its value and returns the error.
    pub(super) fn inside<E>(&mut self, field: &'static str, error: E) -> E {
        self.path.push(Step::Field(field));
        error
    }

    /// Describes the position and the kind of the fault. Contains only our own words and names,
    /// because serde's messages quote the input.
    pub(super) fn describe(&self, error: &serde_json::Error) -> String {
        use fmt::Write as _;

        let fault = self.fault.unwrap_or_else(|| {
            // serde_json reports an integer beyond 64 bits as a type error, and one that even a
            // float cannot hold as a syntax error.
            if error.is_data() || error.to_string().starts_with("number out of range") {
                Fault::WrongType
            } else {
                Fault::NotJson
            }
        });
        let mut text = String::new();
        for step in self.path.iter().rev() {
            // Writing to a string cannot fail.
            let _ = match step {
                Step::Field(name) if text.is_empty() => write!(text, "{name}"),
                Step::Field(name) => write!(text, ".{name}"),
                Step::Index(index) => write!(text, "[{index}]"),
            };
        }
        if !text.is_empty() {
            text.push_str(": ");
        }
        let _ = write!(
            text,
            "{}, line {} column {}",
            fault.as_str(),
            error.line(),
            error.column()
        );
        text
    }
}

/// Reads the name of a field.
pub(super) struct KeySeed<K>(PhantomData<K>);

impl<K> KeySeed<K> {
    pub(super) const fn new() -> Self {
        Self(PhantomData)
    }
}

impl<'de, K: for<'a> From<&'a str>> DeserializeSeed<'de> for KeySeed<K> {
    type Value = K;

    fn deserialize<D: Deserializer<'de>>(self, source: D) -> Result<K, D::Error> {
        source.deserialize_str(self)
    }
}

impl<K: for<'a> From<&'a str>> Visitor<'_> for KeySeed<K> {
    type Value = K;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the name of a field")
    }

    fn visit_str<E>(self, name: &str) -> Result<K, E> {
        Ok(K::from(name))
    }
}

/// Reads the value of a field.
pub(super) struct ValueSeed<'r, T> {
    state: &'r mut DecodeState,
    value: PhantomData<T>,
}

impl<'r, T> ValueSeed<'r, T> {
    pub(super) fn new(state: &'r mut DecodeState) -> Self {
        Self {
            state,
            value: PhantomData,
        }
    }
}

impl<'de, T: FieldType> DeserializeSeed<'de> for ValueSeed<'_, T> {
    type Value = T;

    fn deserialize<D: Deserializer<'de>>(self, source: D) -> Result<T, D::Error> {
        T::read(source, self.state)
    }
}

/// Reads an array of objects.
pub(super) struct Elements<'r, T> {
    state: &'r mut DecodeState,
    element: PhantomData<T>,
}

impl<'r, T> Elements<'r, T> {
    pub(super) fn new(state: &'r mut DecodeState) -> Self {
        Self {
            state,
            element: PhantomData,
        }
    }
}

impl<'de, T: FieldType> Visitor<'de> for Elements<'_, T> {
    type Value = Vec<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Vec<T>, A::Error> {
        let mut elements = Vec::new();
        loop {
            match seq.next_element_seed(ValueSeed::new(self.state)) {
                Ok(Some(element)) => elements.push(element),
                Ok(None) => return Ok(elements),
                Err(error) => {
                    self.state.path.push(Step::Index(elements.len()));
                    return Err(error);
                }
            }
        }
    }
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

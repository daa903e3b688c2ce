//! Finds the personal data of a document and replaces it.
//!
//! A JSON parser reads the document. A search for texts would find those in values, and an entry of
//! Redis may come from another program. A document that is not understood is rejected, never sent.

use std::{borrow::Cow, fmt, ops::Range};

use serde::{
    Deserialize,
    de::{Deserializer as _, Error as _, IgnoredAny, MapAccess, Visitor},
};
use serde_json::value::RawValue;

/// A field of `delivery` with personal data, and what is sent instead.
#[derive(Debug)]
pub struct Mask {
    /// Name of the field.
    pub field: &'static str,
    /// The value that replaces every value. It satisfies the rule of the field, so a client that
    /// checks the schema accepts it. It is constant, so it reveals nothing, not even a length.
    pub value: &'static str,
}

/// Every field with personal data.
///
/// No country has the code +999, and no domain ends in `.invalid`, so a client that uses them does
/// not reach another person.
pub const MASKS: &[Mask] = &[
    Mask {
        field: "name",
        value: "MASKED",
    },
    Mask {
        field: "phone",
        value: "+9990000000",
    },
    Mask {
        field: "zip",
        value: "MASKED",
    },
    Mask {
        field: "address",
        value: "MASKED",
    },
    Mask {
        field: "email",
        value: "masked@masked.invalid",
    },
];

/// The other fields of `delivery`. A field that is in neither list, which only a newer program
/// writes, is omitted.
const VISIBLE: &[&str] = &["city", "region"];

/// A document that is not one of an order. It has no text of the document.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the document is not an order")]
pub struct Unreadable;

/// The parts of a document that decide who may see it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Outline<'a> {
    pub(super) customer_id: Cow<'a, str>,
    /// The JSON object `delivery`.
    delivery: &'a str,
    /// Its place in the document.
    place: Range<usize>,
}

/// The masked delivery of a document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Cut {
    /// The place of the delivery in the document.
    pub(super) place: Range<usize>,
    /// The JSON object to send instead.
    pub(super) delivery: Vec<u8>,
}

/// Rejects repeated fields. Unknown ones are ignored.
#[derive(Deserialize)]
struct Fields<'a> {
    #[serde(borrow)]
    delivery: &'a RawValue,
    #[serde(borrow)]
    customer_id: Cow<'a, str>,
}

impl<'a> Outline<'a> {
    /// Reads a whole document.
    ///
    /// # Errors
    /// If it is not a JSON object with exactly one delivery and one customer.
    pub(super) fn read(json: &'a [u8]) -> Result<Self, Unreadable> {
        // serde also reads an array of the values of a struct.
        if !json.trim_ascii_start().starts_with(b"{") {
            return Err(Unreadable);
        }
        let fields: Fields<'a> = serde_json::from_slice(json).map_err(|_| Unreadable)?;
        let delivery = fields.delivery.get();
        // The text is borrowed from the document.
        let start = delivery.as_ptr().addr() - json.as_ptr().addr();
        Ok(Self {
            customer_id: fields.customer_id,
            delivery,
            place: start..start + delivery.len(),
        })
    }

    /// Masks the delivery.
    ///
    /// # Errors
    /// If it is not an object with exactly the fields of [`MASKS`], each once, besides others.
    pub(super) fn mask(&self) -> Result<Cut, Unreadable> {
        let mut source = serde_json::Deserializer::from_str(self.delivery);
        let delivery = source.deserialize_map(Masking).map_err(|_| Unreadable)?;
        Ok(Cut {
            place: self.place.clone(),
            delivery,
        })
    }
}

/// Reads a delivery and writes the masked one.
struct Masking;

/// The name of a field.
#[derive(Deserialize)]
struct Key<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'de> Visitor<'de> for Masking {
    type Value = Vec<u8>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a delivery")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Vec<u8>, A::Error> {
        let mut seen = [false; MASKS.len()];
        let mut masked = Vec::with_capacity(256);
        while let Some(Key(name)) = fields.next_key()? {
            if let Some(index) = MASKS.iter().position(|mask| mask.field == name) {
                fields.next_value::<IgnoredAny>()?;
                if std::mem::replace(&mut seen[index], true) {
                    return Err(A::Error::duplicate_field(MASKS[index].field));
                }
                let value = MASKS[index].value.as_bytes();
                push(&mut masked, MASKS[index].field, &[b"\"", value, b"\""]);
            } else if let Some(field) = VISIBLE.iter().find(|field| **field == name) {
                let value: &RawValue = fields.next_value()?;
                push(&mut masked, field, &[value.get().as_bytes()]);
            } else {
                fields.next_value::<IgnoredAny>()?;
            }
        }
        if let Some(missing) = seen.iter().position(|seen| !seen) {
            return Err(A::Error::missing_field(MASKS[missing].field));
        }
        masked.push(b'}');
        Ok(masked)
    }
}

/// Adds a field to an object. Neither its name nor a mask needs an escape.
fn push(object: &mut Vec<u8>, name: &str, value: &[&[u8]]) {
    object.push(if object.is_empty() { b'{' } else { b',' });
    for part in [&[b"\"", name.as_bytes(), b"\":"], value].concat() {
        object.extend_from_slice(part);
    }
}

#[cfg(test)]
mod tests;

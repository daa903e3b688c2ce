//! What the type of a field must be able to do, and the readers of names, values and arrays.

use std::fmt;
use std::marker::PhantomData;

use serde::Serialize;
use serde::de::{DeserializeSeed, Deserializer, SeqAccess, Visitor};
use validator::ValidationErrorsKind;

use super::decode_state::DecodeState;

/// The type of a field: reads, checks and writes its values.
pub(super) trait FieldType: Sized {
    /// The parameters of a rule for this type.
    type Limits;

    /// Whether a document may lack the field.
    const OPTIONAL: bool = false;

    /// Reads a value. A wrong type is an error. A broken rule is not.
    fn read<'de, D: Deserializer<'de>>(
        source: D,
        state: &mut DecodeState,
    ) -> Result<Self, D::Error>;

    /// Checks the value against `limits`. The error contains the broken rules.
    fn check(&self, limits: &Self::Limits) -> Result<(), ValidationErrorsKind>;

    /// Returns the value as it appears in JSON.
    fn written(&self) -> impl Serialize;

    /// Returns the value of a field that the document lacks, or `None` if the field is required.
    fn absent() -> Option<Self> {
        None
    }

    /// Returns whether the document lacks the field.
    fn is_absent(&self) -> bool {
        false
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
                Err(error) => return Err(self.state.at(elements.len(), error)),
            }
        }
    }
}

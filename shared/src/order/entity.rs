//! A macro that generates all code for an object of the document from one table.

use std::collections::BTreeMap;

use chrono::{DateTime, Datelike, Utc};
use serde::{Deserialize, Deserializer, Serialize};
use smol_str::SmolStr;
use validator::{Validate, ValidationError, ValidationErrorsKind};

use super::decode_state::DecodeState;
use super::field_type::{Elements, FieldType};
use super::rule::{Entity, List, Range, Text, Years};
use super::timestamp::{self, Rfc3339};

/// Generates, from one table of fields:
///
/// - the struct, whose fields of type `Option` are optional
/// - its reader, which accepts a JSON object and rejects an array
/// - its writer, in the order of the table
/// - its checks and its [`Entity`]
/// - a `Debug` that shows only the fields in brackets, because most fields are personal data
macro_rules! entity {
    (
        $(#[doc = $about:literal])+
        $name:ident [$($shown:ident),*] {
            $(
                $(#[doc = $doc:literal])+
                $field:ident: $type:ty = $rule:ident($limits:expr) $(, $example:literal)?;
            )+
        }
    ) => {
        $(#[doc = $about])+
        #[derive(Clone, PartialEq)]
        pub struct $name {
            $( $(#[doc = $doc])+ pub $field: $type, )+
        }

        impl $name {
            /// Name, documentation and fields of this object.
            pub const ENTITY: &'static Entity = &Entity {
                name: stringify!($name),
                doc: concat!($($about),+).trim_ascii(),
                fields: Self::FIELDS,
            };

            /// The fields in the order of the document, with their rules.
            pub const FIELDS: &'static [Field] = &[$(
                Field {
                    name: stringify!($field),
                    doc: concat!($($doc),+).trim_ascii(),
                    optional: <$type as FieldType>::OPTIONAL,
                    rule: Rule::$rule($limits),
                    example: entity!(@example $($example)?),
                },
            )+];
        }

        impl FieldType for $name {
            type Limits = &'static Entity;

            fn read<'de, D: Deserializer<'de>>(
                source: D,
                state: &mut DecodeState,
            ) -> Result<Self, D::Error> {
                #[allow(non_camel_case_types, reason = "the variants are named like the fields")]
                enum Key {
                    $($field,)+
                    #[allow(non_camel_case_types, reason = "must differ from every field's name")]
                    Unknown__(Box<str>),
                }

                impl From<&str> for Key {
                    fn from(name: &str) -> Self {
                        match name {
                            $(stringify!($field) => Self::$field,)+
                            _ => Self::Unknown__(name.into()),
                        }
                    }
                }

                struct Fields<'r>(&'r mut DecodeState);

                impl<'de> Visitor<'de> for Fields<'_> {
                    type Value = $name;

                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str("an object")
                    }

                    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<$name, A::Error> {
                        let Self(state) = self;
                        let mut unknown = HashSet::new();
                        $(let mut $field: Option<$type> = None;)+
                        while let Some(key) = map.next_key_seed(KeySeed::new())? {
                            match key {
                                $(Key::$field => {
                                    let name = stringify!($field);
                                    if $field.is_some() {
                                        return Err(state.fault(name, Fault::Duplicated));
                                    }
                                    match map.next_value_seed(ValueSeed::new(state)) {
                                        Ok(value) => $field = Some(value),
                                        Err(error) => return Err(state.inside(name, error)),
                                    }
                                })+
                                Key::Unknown__(key) => {
                                    let name = "(unknown field)";
                                    state.unknown_field(stringify!($name));
                                    if !unknown.insert(key) {
                                        return Err(state.fault(name, Fault::Duplicated));
                                    }
                                    if let Err(fault) = unknown::check(map.next_value()?) {
                                        return Err(state.fault(name, fault));
                                    }
                                }
                            }
                        }
                        Ok($name {
                            $($field: match $field.or_else(FieldType::absent) {
                                Some(value) => value,
                                None => return Err(state.fault(stringify!($field), Fault::Missing)),
                            },)+
                        })
                    }
                }

                // Not `deserialize_struct`: it also accepts an array of the values.
                source.deserialize_map(Fields(state))
            }

            fn check(&self, _: &&'static Entity) -> Result<(), ValidationErrorsKind> {
                self.validate().map_err(|errors| ValidationErrorsKind::Struct(Box::new(errors)))
            }

            fn written(&self) -> impl Serialize {
                self
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                let fields = Self::FIELDS.len();
                let mut object = serializer.serialize_struct(stringify!($name), fields)?;
                $(match self.$field.is_absent() {
                    false => object.serialize_field(stringify!($field), &self.$field.written())?,
                    true => object.skip_field(stringify!($field))?,
                })+
                object.end()
            }
        }

        impl Validate for $name {
            fn validate(&self) -> Result<(), ValidationErrors> {
                let mut errors = ValidationErrors::new();
                $(if let Err(broken) = self.$field.check(&$limits) {
                    errors.errors_mut().insert(stringify!($field).into(), broken);
                })+
                if errors.is_empty() { Ok(()) } else { Err(errors) }
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct(stringify!($name))
                    $(.field(stringify!($shown), &self.$shown))*
                    .finish_non_exhaustive()
            }
        }
    };

    (@example) => { None };
    (@example $example:literal) => { Some(stringify!($example)) };
}
pub(super) use entity;

/// Creates the error of a broken rule: only its code. The `validator` derive would add the value as
/// a parameter.
fn broken(code: &'static str) -> ValidationErrorsKind {
    ValidationErrorsKind::Field(vec![ValidationError::new(code)])
}

impl FieldType for SmolStr {
    type Limits = Text;

    fn read<'de, D: Deserializer<'de>>(source: D, _: &mut DecodeState) -> Result<Self, D::Error> {
        Self::deserialize(source)
    }

    fn check(&self, limits: &Text) -> Result<(), ValidationErrorsKind> {
        if limits.holds(self) {
            Ok(())
        } else {
            Err(broken(limits.code))
        }
    }

    fn written(&self) -> impl Serialize {
        self.as_str()
    }
}

/// The implementations for integers differ only in width.
macro_rules! integer {
    ($($type:ty),+) => {$(
        impl FieldType for $type {
            type Limits = Range<$type>;

            fn read<'de, D: Deserializer<'de>>(
                source: D,
                _: &mut DecodeState,
            ) -> Result<Self, D::Error> {
                Self::deserialize(source)
            }

            fn check(&self, limits: &Self::Limits) -> Result<(), ValidationErrorsKind> {
                if limits.holds(self) { Ok(()) } else { Err(broken(Self::Limits::CODE)) }
            }

            fn written(&self) -> impl Serialize {
                *self
            }
        }
    )+};
}
integer!(i32, i64);

impl FieldType for DateTime<Utc> {
    type Limits = Years;

    /// Reads a string that is not RFC 3339 as a time that no rule allows: its type is right, but it
    /// breaks a rule.
    fn read<'de, D: Deserializer<'de>>(source: D, _: &mut DecodeState) -> Result<Self, D::Error> {
        source
            .deserialize_str(timestamp::TextVisitor)
            .map(|time| time.unwrap_or(Self::MIN_UTC))
    }

    fn check(&self, limits: &Years) -> Result<(), ValidationErrorsKind> {
        if (limits.min..=limits.max).contains(&self.year()) {
            Ok(())
        } else {
            Err(broken(Years::CODE))
        }
    }

    fn written(&self) -> impl Serialize {
        Rfc3339(*self)
    }
}

/// An optional field. An absent field is `None` and stays absent when the order is written. `null`
/// is malformed, like a value of another type: it would be a second spelling of absent.
impl<T: FieldType> FieldType for Option<T> {
    type Limits = T::Limits;

    const OPTIONAL: bool = true;

    fn read<'de, D: Deserializer<'de>>(
        source: D,
        state: &mut DecodeState,
    ) -> Result<Self, D::Error> {
        T::read(source, state).map(Some)
    }

    fn check(&self, limits: &T::Limits) -> Result<(), ValidationErrorsKind> {
        self.as_ref().map_or(Ok(()), |value| value.check(limits))
    }

    fn written(&self) -> impl Serialize {
        self.as_ref().map(T::written)
    }

    fn absent() -> Option<Self> {
        Some(None)
    }

    fn is_absent(&self) -> bool {
        self.is_none()
    }
}

impl<T> FieldType for Vec<T>
where
    T: FieldType<Limits = &'static Entity> + Validate + Serialize,
{
    type Limits = List;

    fn read<'de, D: Deserializer<'de>>(
        source: D,
        state: &mut DecodeState,
    ) -> Result<Self, D::Error> {
        source.deserialize_seq(Elements::new(state))
    }

    fn check(&self, limits: &List) -> Result<(), ValidationErrorsKind> {
        if !(limits.min_items..=limits.max_items).contains(&self.len()) {
            return Err(broken(List::CODE));
        }
        let elements: BTreeMap<_, _> = self
            .iter()
            .enumerate()
            .filter_map(|(index, element)| Some((index, Box::new(element.validate().err()?))))
            .collect();
        if elements.is_empty() {
            Ok(())
        } else {
            Err(ValidationErrorsKind::List(elements))
        }
    }

    fn written(&self) -> impl Serialize {
        self.as_slice()
    }
}

//! The types of columns: how to write and read their values.

use std::{error::Error, str::FromStr};

use chrono::{DateTime, Utc};
use smol_str::SmolStr;
use sqlx::{
    Decode, Postgres as Driver, Row as _, Type,
    error::BoxDynError,
    postgres::{PgHasArrayType, PgRow, PgTypeInfo, PgValueRef},
};

use crate::{order::OrderUid, storage::rows::Row};

/// The epoch of Postgres, 2000-01-01, in microseconds since 1970.
const POSTGRES_EPOCH: i64 = 946_684_800_000_000;

/// A value of a column.
pub(in crate::storage) trait Value: Sized {
    /// The value as a parameter of a statement. The default is the value of an erased order.
    type Parameter<'v>: Default
    where
        Self: 'v;

    /// The value as the driver reads it.
    type Stored: for<'r> Decode<'r, Driver> + Type<Driver> + PgHasArrayType;

    /// Returns the value as a parameter of a statement.
    fn parameter(&self) -> Self::Parameter<'_>;

    /// Adds the value to a row of `COPY`.
    fn copy(&self, row: &mut Row<'_>);

    /// Returns the value that was read.
    fn from_stored(stored: Self::Stored) -> Self;
}

/// Returns the parameters for an array with a value per row.
pub(super) fn array<'v, V: Value + 'v>(
    rows: impl Iterator<Item = Option<&'v V>>,
) -> Vec<V::Parameter<'v>> {
    rows.map(|value| value.map(V::parameter).unwrap_or_default())
        .collect()
}

/// Reads the columns of a row from left to right.
pub(in crate::storage) struct Reader<'r> {
    row: &'r PgRow,
    next: usize,
}

impl<'r> Reader<'r> {
    pub(in crate::storage) fn new(row: &'r PgRow) -> Self {
        Self { row, next: 0 }
    }

    /// Reads the next column.
    pub(in crate::storage) fn value<V: Value>(&mut self) -> Result<V, sqlx::Error> {
        self.stored().map(V::from_stored)
    }

    /// Reads the next column, which is an array of values.
    pub(in crate::storage) fn array<V: Value>(
        &mut self,
    ) -> Result<impl ExactSizeIterator<Item = V> + use<V>, sqlx::Error> {
        let stored: Vec<V::Stored> = self.stored()?;
        Ok(stored.into_iter().map(V::from_stored))
    }

    fn stored<T: Decode<'r, Driver> + Type<Driver>>(&mut self) -> Result<T, sqlx::Error> {
        let index = self.next;
        self.next += 1;
        self.row.try_get(index)
    }
}

/// A text as the driver reads it. Unlike `String`, a short text needs no allocation.
pub(in crate::storage) struct Text<T>(T);

impl<T> Type<Driver> for Text<T> {
    fn type_info() -> PgTypeInfo {
        <str as Type<Driver>>::type_info()
    }

    fn compatible(of: &PgTypeInfo) -> bool {
        <str as Type<Driver>>::compatible(of)
    }
}

impl<T> PgHasArrayType for Text<T> {
    fn array_type_info() -> PgTypeInfo {
        <&str>::array_type_info()
    }

    fn array_compatible(of: &PgTypeInfo) -> bool {
        <&str>::array_compatible(of)
    }
}

impl<'r, T: FromStr<Err: Error + Send + Sync + 'static>> Decode<'r, Driver> for Text<T> {
    fn decode(value: PgValueRef<'r>) -> Result<Self, BoxDynError> {
        Ok(Self(<&str>::decode(value)?.parse()?))
    }
}

/// Implements [`Value`] for texts.
macro_rules! texts {
    ($($type:ty),+) => {$(
        impl Value for $type {
            type Parameter<'v> = &'v str;
            type Stored = Text<Self>;

            fn parameter(&self) -> &str {
                self.as_str()
            }

            fn copy(&self, row: &mut Row<'_>) {
                row.value(self.as_str().as_bytes());
            }

            fn from_stored(Text(text): Text<Self>) -> Self {
                text
            }
        }
    )+};
}
texts!(SmolStr, OrderUid);

/// Implements [`Value`] for types that the driver reads and writes itself.
macro_rules! plain {
    ($($type:ty => |$value:ident| $binary:expr;)+) => {$(
        impl Value for $type {
            type Parameter<'v> = Self;
            type Stored = Self;

            fn parameter(&self) -> Self {
                *self
            }

            fn copy(&self, row: &mut Row<'_>) {
                let $value = self;
                row.value(&$binary);
            }

            fn from_stored(stored: Self) -> Self {
                stored
            }
        }
    )+};
}
plain! {
    bool => |flag| [u8::from(*flag)];
    i16 => |number| number.to_be_bytes();
    i32 => |number| number.to_be_bytes();
    i64 => |number| number.to_be_bytes();
    DateTime<Utc> => |time| (time.timestamp_micros() - POSTGRES_EPOCH).to_be_bytes();
}

impl<V: Value> Value for Option<V> {
    type Parameter<'v>
        = Option<V::Parameter<'v>>
    where
        V: 'v;
    type Stored = Option<V::Stored>;

    fn parameter(&self) -> Option<V::Parameter<'_>> {
        self.as_ref().map(V::parameter)
    }

    fn copy(&self, row: &mut Row<'_>) {
        match self {
            Some(value) => value.copy(row),
            None => row.null(),
        }
    }

    fn from_stored(stored: Option<V::Stored>) -> Self {
        stored.map(V::from_stored)
    }
}

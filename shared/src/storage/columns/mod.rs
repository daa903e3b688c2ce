//! The columns of the four tables, each listed once.
//!
//! The column lists of all statements, the rows of `COPY`, the arrays of an upsert, and the readers
//! of rows follow from these lists. A field of the order without a column does not compile. To
//! store a new field, add a line here and a migration:
//!
//! ```text
//! FIELD: SQL_TYPE as COLUMN since REPRESENTATION else BLANK;
//! ```
//!
//! - `as` is needed only if the column has another name than the field.
//! - `since` is needed in `orders` only, for a field that the first shape of the document does not
//!   have. It is the value of [`REPRESENTATION`] that adds the field (see [`Column::since`]).
//! - `else` is needed only if that field is required: the SQL literal that is read for a row of an
//!   older shape.
//! - The column of an `Option` must be nullable.

mod macros;
mod sql;
#[cfg(test)]
mod tests;
mod value;

use smol_str::SmolStr;
use sqlx::{Postgres as Driver, postgres::PgArguments, query::Query};

pub(super) use sql::{Table, aggregated, blank, names, selected};
pub(super) use value::{Reader, Value};

use super::{Change, rows::Row};
use crate::order::{Delivery, Item, Order, OrderUid, Payment, REPRESENTATION, Version};
use macros::columns;
use value::array;

columns! {
    Stamp {
        order_uid: text;
        source_timestamp_ms: int8;
        source_offset: int8;
        source_partition: int4;
        representation: int2;
    }
}

columns! {
    Order with (order_uid: SmolStr, delivery: Delivery, payment: Payment, items: Vec<Item>) {
        track_number: text;
        entry: text;
        locale: text;
        internal_signature: text;
        customer_id: text;
        delivery_service: text;
        shardkey: text as shard_key;
        sm_id: int4;
        date_created: timestamptz;
        oof_shard: text;
    }
}

columns! {
    Delivery {
        name: text;
        phone: text;
        zip: text;
        city: text;
        address: text;
        region: text;
        email: text;
    }
}

columns! {
    Payment {
        transaction: text;
        request_id: text;
        currency: text;
        provider: text;
        amount: int8;
        payment_dt: int8;
        bank: text;
        delivery_cost: int8;
        goods_total: int8;
        custom_fee: int8;
    }
}

columns! {
    Item {
        chrt_id: int8;
        track_number: text;
        price: int8;
        rid: text;
        name: text;
        sale: int4;
        size: text;
        total_price: int8;
        nm_id: int8;
        brand: text;
        status: int4;
    }
}

/// `orders`. An upsert also sets `erased_at` and `updated_at`.
pub(super) static ORDERS: Table = Table {
    name: "orders",
    columns: &[&[Column::new("id", "int8")], Stamp::COLUMNS, Order::COLUMNS],
};

/// `deliveries`.
pub(super) static DELIVERIES: Table = Table {
    name: "deliveries",
    columns: &[&[ORDER_ID], Delivery::COLUMNS],
};

/// `payments`.
pub(super) static PAYMENTS: Table = Table {
    name: "payments",
    columns: &[&[ORDER_ID], Payment::COLUMNS],
};

/// `items`.
pub(super) static ITEMS: Table = Table {
    name: "items",
    columns: &[&[ORDER_ID, Column::new("line_no", "int4")], Item::COLUMNS],
};

const ORDER_ID: Column = Column::new("order_id", "int8");

/// A column.
pub(super) struct Column {
    pub(super) name: &'static str,
    /// The type as which the column is written and read. A migration may widen the column itself.
    pub(super) sql_type: &'static str,
    /// The lowest [`REPRESENTATION`] of a worker that writes the column.
    ///
    /// During a rolling upgrade, an older worker may replace a row without changing this column,
    /// which then belongs to an earlier version of the order. Such a row has a lower
    /// `orders.representation`, and `absent` is read instead of the column. Other tables need no
    /// `since`: every worker deletes and inserts their rows.
    pub(super) since: u8,
    /// The SQL literal that is read for a row of an older shape.
    pub(super) absent: &'static str,
}

impl Column {
    const fn new(name: &'static str, sql_type: &'static str) -> Self {
        Self {
            name,
            sql_type,
            since: 1,
            absent: "NULL",
        }
    }
}

/// A type whose fields are columns.
pub(super) trait Columns: Sized {
    /// The columns in the order of all methods.
    const COLUMNS: &'static [Column];

    /// Adds the values to a row of `COPY`.
    fn copy(&self, row: &mut Row<'_>);

    /// Binds each column as an array with a value for each of `rows`: blank, zero or null where
    /// there is none.
    fn bind<'q, 'v>(
        query: Insert<'q>,
        rows: impl Iterator<Item = Option<&'v Self>> + Clone,
    ) -> Insert<'q>
    where
        Self: 'v;
}

/// A type that is read from columns alone.
pub(super) trait ReadColumns: Columns {
    /// Reads a value from the next columns of a row.
    fn read(columns: &mut Reader<'_>) -> Result<Self, sqlx::Error>;

    /// Reads values from the next columns of a row, each an array with an element for each value.
    fn read_all(columns: &mut Reader<'_>) -> Result<Vec<Self>, sqlx::Error>;
}

/// A statement that inserts arrays.
pub(super) type Insert<'q> = Query<'q, Driver, PgArguments>;

/// States which version of which order a row of `orders` holds, and in which shape.
pub(super) struct Stamp {
    pub(super) order_uid: OrderUid,
    pub(super) source_timestamp_ms: i64,
    pub(super) source_offset: i64,
    pub(super) source_partition: i32,
    /// The shape that the writer of the row knows.
    pub(super) representation: i16,
}

impl Stamp {
    pub(super) fn of(change: &Change) -> Self {
        let Change { uid, version, .. } = change;
        Self {
            order_uid: *uid,
            source_timestamp_ms: version.timestamp_ms,
            source_offset: version.offset,
            source_partition: version.partition,
            representation: REPRESENTATION.into(),
        }
    }

    pub(super) fn version(&self) -> Version {
        Version::new(
            self.source_timestamp_ms,
            self.source_offset,
            self.source_partition,
        )
    }
}

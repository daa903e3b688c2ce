//! Writes new orders by `COPY` into the four tables.

use std::sync::LazyLock;

use sqlx::PgConnection;

use super::Candidate;
use crate::{
    fault::Moment,
    storage::{
        columns::{Columns as _, DELIVERIES, ITEMS, ORDERS, PAYMENTS, Stamp, Table, Value as _},
        rows::{Row, Rows},
    },
};

/// The statements, in the order of [`Copy`]. `orders` comes first, because the others refer to it.
static STATEMENTS: LazyLock<[String; 4]> =
    LazyLock::new(|| [&ORDERS, &DELIVERIES, &PAYMENTS, &ITEMS].map(Table::copy));

/// Bytes that are sent at once. The driver copies each piece once more.
const PIECE_BYTES: usize = 64 * 1024;

/// The rows of new orders. They are built before the transaction begins, so that it computes
/// nothing while it holds locks.
pub(super) struct Copy([Vec<u8>; 4]);

impl Copy {
    /// Builds the rows of `candidates`, which are orders, not erasures.
    pub(super) fn of(candidates: &[Candidate<'_>]) -> Self {
        let mut tables = [(); 4].map(|()| Rows::new());
        let [orders, deliveries, payments, items] = &mut tables;
        for Candidate { id, change } in candidates {
            let Some(order) = &change.order else { continue };
            push(orders, |row| {
                id.copy(row);
                Stamp::of(change).copy(row);
                order.copy(row);
            });
            push(deliveries, |row| {
                id.copy(row);
                order.delivery.copy(row);
            });
            push(payments, |row| {
                id.copy(row);
                order.payment.copy(row);
            });
            for (line_no, item) in (0_i32..).zip(&order.items) {
                push(items, |row| {
                    id.copy(row);
                    line_no.copy(row);
                    item.copy(row);
                });
            }
        }
        Self(tables.map(Rows::finish))
    }

    /// Sends the rows. Fails on one of our keys if another writer was faster.
    pub(super) async fn send(self, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
        for (number, (statement, rows)) in STATEMENTS.iter().zip(self.0).enumerate() {
            let mut copy = connection.copy_in_raw(statement.as_str()).await?;
            for piece in rows.chunks(PIECE_BYTES) {
                copy.send(piece).await?;
            }
            copy.finish().await?;
            if number == 0 {
                Moment::AfterUpsert.pass();
            }
        }
        Ok(())
    }
}

fn push(rows: &mut Rows, values: impl FnOnce(&mut Row<'_>)) {
    let mut row = rows.row();
    values(&mut row);
    row.end();
}

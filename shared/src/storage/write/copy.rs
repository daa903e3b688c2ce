//! Writes new orders by `COPY` into the four tables.

use sqlx::PgConnection;

use super::{Candidate, rows::Rows};
use crate::{
    fault::Moment,
    order::{Delivery, Item, Order, Payment, Version},
};

/// Makes `COPY` fail if one of the columns is not of an integer type: `numeric`, for example, has
/// no operator `|`. Binary rows carry no types, and `numeric` would read the eight bytes of a small
/// `int8` as another number. Costs nothing per row: Postgres simplifies the condition to `true`
/// once it has parsed the statement.
macro_rules! integers {
    ($columns:literal) => {
        concat!(
            " FROM STDIN (FORMAT binary) WHERE true OR (",
            $columns,
            ") = 0"
        )
    };
}

const ORDERS: &str = concat!(
    "COPY orders (id, order_uid, track_number, entry, locale, internal_signature, customer_id, delivery_service, \
                  shard_key, sm_id, date_created, oof_shard, source_timestamp_ms, source_offset, source_partition)",
    integers!("id | sm_id | source_timestamp_ms | source_offset | source_partition")
);

const DELIVERIES: &str = concat!(
    "COPY deliveries (order_id, name, phone, zip, city, address, region, email)",
    integers!("order_id | 0")
);

const PAYMENTS: &str = concat!(
    "COPY payments (order_id, transaction, request_id, currency, provider, amount, payment_dt, bank, delivery_cost, \
                    goods_total, custom_fee)",
    integers!("order_id | amount | payment_dt | delivery_cost | goods_total | custom_fee")
);

const ITEMS: &str = concat!(
    "COPY items (order_id, line_no, chrt_id, track_number, price, rid, name, sale, size, total_price, nm_id, brand, \
                 status)",
    integers!("order_id | line_no | chrt_id | price | sale | total_price | nm_id | status")
);

/// Bytes that are sent at once. The driver copies each piece once more.
const PIECE_BYTES: usize = 64 * 1024;

/// The rows of new orders. They are built before the transaction begins, so that it computes
/// nothing while it holds locks.
pub(super) struct Copy([(&'static str, Vec<u8>); 4]);

impl Copy {
    /// Builds the rows of `candidates`, which are orders, not erasures.
    pub(super) fn of(candidates: &[Candidate<'_>]) -> Self {
        let (mut orders, mut deliveries) = (Rows::new(), Rows::new());
        let (mut payments, mut items) = (Rows::new(), Rows::new());
        for Candidate { id, change } in candidates {
            let Some(order) = &change.order else { continue };
            push_order(&mut orders, *id, order, &change.version);
            push_delivery(&mut deliveries, *id, &order.delivery);
            push_payment(&mut payments, *id, &order.payment);
            for (line_no, item) in (0..).zip(&order.items) {
                push_item(&mut items, *id, line_no, item);
            }
        }
        Self([
            (ORDERS, orders.finish()),
            (DELIVERIES, deliveries.finish()),
            (PAYMENTS, payments.finish()),
            (ITEMS, items.finish()),
        ])
    }

    /// Sends the rows. Fails on one of our keys if another writer was faster.
    pub(super) async fn send(self, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
        for (number, (statement, rows)) in self.0.into_iter().enumerate() {
            let mut copy = connection.copy_in_raw(statement).await?;
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

fn push_order(rows: &mut Rows, id: i64, order: &Order, version: &Version) {
    rows.row()
        .int8(id)
        .text(&order.order_uid)
        .text(&order.track_number)
        .text(&order.entry)
        .text(&order.locale)
        .text(&order.internal_signature)
        .text(&order.customer_id)
        .text(&order.delivery_service)
        .text(&order.shardkey)
        .int4(order.sm_id)
        .timestamptz(order.date_created)
        .text(&order.oof_shard)
        .int8(version.timestamp_ms)
        .int8(version.offset)
        .int4(version.partition)
        .end();
}

fn push_delivery(rows: &mut Rows, order_id: i64, delivery: &Delivery) {
    rows.row()
        .int8(order_id)
        .text(&delivery.name)
        .text(&delivery.phone)
        .text(&delivery.zip)
        .text(&delivery.city)
        .text(&delivery.address)
        .text(&delivery.region)
        .text(&delivery.email)
        .end();
}

fn push_payment(rows: &mut Rows, order_id: i64, payment: &Payment) {
    rows.row()
        .int8(order_id)
        .text(&payment.transaction)
        .text(&payment.request_id)
        .text(&payment.currency)
        .text(&payment.provider)
        .int8(payment.amount)
        .int8(payment.payment_dt)
        .text(&payment.bank)
        .int8(payment.delivery_cost)
        .int8(payment.goods_total)
        .int8(payment.custom_fee)
        .end();
}

fn push_item(rows: &mut Rows, order_id: i64, line_no: i32, item: &Item) {
    rows.row()
        .int8(order_id)
        .int4(line_no)
        .int8(item.chrt_id)
        .text(&item.track_number)
        .int8(item.price)
        .text(&item.rid)
        .text(&item.name)
        .int4(item.sale)
        .text(&item.size)
        .int8(item.total_price)
        .int8(item.nm_id)
        .text(&item.brand)
        .int4(item.status)
        .end();
}

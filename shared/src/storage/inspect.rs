//! Reads orders to check them: whether the rows of the four tables belong together.

use std::{collections::HashSet, sync::LazyLock};

use sqlx::{Row as _, postgres::PgRow};

use super::{
    Postgres, StorageError,
    columns::{Columns as _, ReadColumns as _, Reader, Stamp, blank},
    read::{revision, select_revisions},
};
use crate::order::{Order, OrderUid, Revision};

/// The rows of an order as Postgres holds them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inspected {
    /// The order. Without a document if it is erased or has a flaw.
    pub revision: Revision,
    /// Why its rows are not one order; none if they are.
    pub flaw: Option<Flaw>,
}

/// Why the rows of an order in the four tables do not belong together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Flaw {
    /// No row in `deliveries`.
    #[error("no row in deliveries")]
    NoDelivery,
    /// No row in `payments`.
    #[error("no row in payments")]
    NoPayment,
    /// No row in `items`.
    #[error("no row in items")]
    NoItem,
    /// The numbers of the lines in `items` are not 0, 1, 2 and so on.
    #[error("line_no in items is not 0, 1, 2, ...")]
    LinesMissing,
    /// An erased order that still has a row in `deliveries`, `payments` or `items`.
    #[error("erased, but it has rows in deliveries, payments or items")]
    ErasedWithChildren,
    /// An erased order whose row in `orders` is not blank.
    #[error("erased, but its row in orders is not blank")]
    ErasedNotBlank,
}

static INSPECT: LazyLock<String> = LazyLock::new(|| {
    let presence = format!(
        ", o.erased_at IS NOT NULL AS erased, {blank} AS is_blank, \
         d.order_id IS NOT NULL AS delivery, p.order_id IS NOT NULL AS payment, \
         (SELECT count(*) FROM items WHERE order_id = o.id) AS item_count, \
         (SELECT coalesce(min(line_no) = 0 AND max(line_no) = count(*) - 1, true) \
          FROM items WHERE order_id = o.id) AS lines_are_complete",
        blank = blank("o", Order::COLUMNS)
    );
    select_revisions(&presence, "WHERE o.order_uid = ANY($1)")
});

/// Reads the unique index alone while the visibility map is up to date.
const UIDS_AFTER: &str = "\
    SELECT order_uid::text FROM orders WHERE order_uid > $1 ORDER BY order_uid LIMIT $2";

/// Reads the primary key at a random place. Its cost does not depend on the number of orders.
const RANDOM_UIDS: &str = "\
    SELECT order_uid::text FROM orders WHERE id >= ( \
        SELECT lowest + floor(random() * (highest - lowest + 1))::int8 \
        FROM (SELECT min(id) AS lowest, max(id) AS highest FROM orders) AS ids) \
    ORDER BY id LIMIT $1";

const UNFINISHED: &str = "\
    SELECT order_uid::text FROM cache_repairs WHERE order_uid = ANY($1) \
    UNION SELECT uid FROM cache_writes, unnest(order_uids::text[]) AS uid WHERE uid = ANY($1)";

impl Postgres {
    /// Returns the rows of those of the orders `uids` that Postgres holds, in any order. All rows
    /// of a call are of one moment.
    ///
    /// # Errors
    /// When Postgres does not answer.
    pub async fn inspect(&self, uids: &[OrderUid]) -> Result<Vec<Inspected>, StorageError> {
        let statement = sqlx::query(INSPECT.as_str()).bind(texts(uids));
        let rows = self
            .run("inspect", async |connection| {
                statement.fetch_all(connection).await
            })
            .await?;
        rows.iter().map(inspected).collect()
    }

    /// Returns at most `limit` uids behind `after`, or the first ones, in the order of the index.
    ///
    /// # Errors
    /// When Postgres does not answer.
    pub async fn uids_after(
        &self,
        after: Option<&OrderUid>,
        limit: u32,
    ) -> Result<Vec<OrderUid>, StorageError> {
        let statement = sqlx::query_scalar(UIDS_AFTER)
            .bind(after.map_or("", OrderUid::as_str))
            .bind(i64::from(limit));
        let uids = self
            .run("uids_after", async |connection| {
                statement.fetch_all(connection).await
            })
            .await?;
        parse_all(uids)
    }

    /// Returns the uids of at most `limit` orders that lie together at a random place.
    ///
    /// # Errors
    /// When Postgres does not answer.
    pub async fn random_uids(&self, limit: u32) -> Result<Vec<OrderUid>, StorageError> {
        let statement = sqlx::query_scalar(RANDOM_UIDS).bind(i64::from(limit));
        let uids = self
            .run("random_uids", async |connection| {
                statement.fetch_all(connection).await
            })
            .await?;
        parse_all(uids)
    }

    /// Returns those of the orders `uids` that Redis may lack: a repair mark or the note of an
    /// unfinished write names them.
    ///
    /// # Errors
    /// When Postgres does not answer.
    pub async fn unfinished_in_cache(
        &self,
        uids: &[OrderUid],
    ) -> Result<HashSet<OrderUid>, StorageError> {
        let statement = sqlx::query_scalar(UNFINISHED).bind(texts(uids));
        let uids = self
            .run("unfinished_in_cache", async |connection| {
                statement.fetch_all(connection).await
            })
            .await?;
        Ok(parse_all(uids)?.into_iter().collect())
    }
}

fn inspected(row: &PgRow) -> Result<Inspected, StorageError> {
    let presence = Presence {
        is_blank: row.try_get("is_blank")?,
        delivery: row.try_get("delivery")?,
        payment: row.try_get("payment")?,
        items: row.try_get("item_count")?,
        lines_are_complete: row.try_get("lines_are_complete")?,
    };
    let flaw = presence.flaw(row.try_get("erased")?);
    let revision = match flaw {
        None => revision(row)?,
        Some(_) => {
            let stamp = Stamp::read(&mut Reader::new(row))?;
            Revision {
                uid: stamp.order_uid,
                version: stamp.version(),
                document: None,
            }
        }
    };
    Ok(Inspected { revision, flaw })
}

/// Which rows of an order exist.
#[derive(Clone, Copy)]
struct Presence {
    /// Whether the row in `orders` is that of an erased order.
    is_blank: bool,
    delivery: bool,
    payment: bool,
    items: i64,
    lines_are_complete: bool,
}

impl Presence {
    fn flaw(self, erased: bool) -> Option<Flaw> {
        let has_children = self.delivery || self.payment || self.items > 0;
        match erased {
            true if has_children => Some(Flaw::ErasedWithChildren),
            true if !self.is_blank => Some(Flaw::ErasedNotBlank),
            true => None,
            false if !self.delivery => Some(Flaw::NoDelivery),
            false if !self.payment => Some(Flaw::NoPayment),
            false if self.items == 0 => Some(Flaw::NoItem),
            false if !self.lines_are_complete => Some(Flaw::LinesMissing),
            false => None,
        }
    }
}

fn texts(uids: &[OrderUid]) -> Vec<&str> {
    uids.iter().map(OrderUid::as_str).collect()
}

fn parse_all(uids: Vec<String>) -> Result<Vec<OrderUid>, StorageError> {
    uids.iter().map(|uid| parse(uid)).collect()
}

fn parse(uid: &str) -> Result<OrderUid, StorageError> {
    OrderUid::parse(uid).map_err(|error| StorageError::Unexpected(error.to_string()))
}

#[cfg(test)]
mod tests {
    use sqlx::{Connection as _, PgConnection};

    use super::*;
    use crate::testing::TestDatabase;

    /// Rows of which no statement may read all.
    const ROWS: &str = "\
        INSERT INTO orders (order_uid, track_number, entry, locale, internal_signature, \
            customer_id, delivery_service, shard_key, sm_id, date_created, oof_shard, \
            source_timestamp_ms, source_offset, source_partition, id) \
        SELECT 'order-' || n, '', '', '', '', '', '', '', 1, now(), '', 1, n, 0, n * 10 \
        FROM generate_series(1, 20000) n";

    async fn plan(connection: &mut PgConnection, statement: &str) -> String {
        let statement = statement.replace("$1", "10").replace("> 10", "> 'order-5'");
        let explain = format!("EXPLAIN {}", statement.replace("$2", "10"));
        let lines: Vec<String> = sqlx::query_scalar(sqlx::AssertSqlSafe(explain))
            .fetch_all(connection)
            .await
            .unwrap();
        lines.join("\n")
    }

    #[tokio::test]
    async fn pages_and_random_orders_are_found_without_reading_the_table() {
        let database = TestDatabase::migrated().await;
        let mut connection = PgConnection::connect(&database.url).await.unwrap();
        database.execute(ROWS).await;
        database.execute("VACUUM ANALYZE orders").await;
        let pages = plan(&mut connection, UIDS_AFTER).await;
        assert!(
            pages.contains("Index Only Scan using idx_orders_order_uid"),
            "{pages}"
        );
        let random = plan(&mut connection, RANDOM_UIDS).await;
        assert!(random.contains("Index Scan using orders_pkey"), "{random}");
        assert!(!(pages + &random).contains("Seq Scan"));
    }

    fn presence(delivery: bool, payment: bool, items: i64) -> Presence {
        Presence {
            is_blank: !delivery && !payment && items == 0,
            delivery,
            payment,
            items,
            lines_are_complete: true,
        }
    }

    #[test]
    fn every_missing_or_remaining_row_is_a_flaw() {
        let gap = Presence {
            lines_are_complete: false,
            ..presence(true, true, 2)
        };
        let written = Presence {
            is_blank: false,
            ..presence(false, false, 0)
        };
        for (erased, presence, flaw) in [
            (false, presence(true, true, 2), None),
            (false, presence(false, true, 2), Some(Flaw::NoDelivery)),
            (false, presence(true, false, 2), Some(Flaw::NoPayment)),
            (false, presence(true, true, 0), Some(Flaw::NoItem)),
            (false, gap, Some(Flaw::LinesMissing)),
            (true, presence(false, false, 0), None),
            (
                true,
                presence(true, false, 0),
                Some(Flaw::ErasedWithChildren),
            ),
            (
                true,
                presence(false, true, 0),
                Some(Flaw::ErasedWithChildren),
            ),
            (
                true,
                presence(false, false, 1),
                Some(Flaw::ErasedWithChildren),
            ),
            (true, written, Some(Flaw::ErasedNotBlank)),
        ] {
            assert_eq!(presence.flaw(erased), flaw);
        }
    }
}

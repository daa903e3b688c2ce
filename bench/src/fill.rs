//! A database with as many orders as one likes, without the hours that it would take to send them.

use anyhow::ensure;

use crate::copy_floor::{TABLES, connect};

/// Copies of the first orders that are made in one transaction.
const AT_ONCE: i64 = 10;

/// Ids of copies begin here, out of the way of the sequence.
const FIRST_ID: i64 = 1_000_000_000;

/// A database whose first orders are copied under other uids.
pub(crate) struct Fill {
    url: String,
    originals: i64,
    last_id: i64,
    copies: i64,
}

impl Fill {
    /// Of the orders that are there now.
    ///
    /// # Errors
    /// When there are none.
    pub(crate) async fn new(url: &str) -> anyhow::Result<Self> {
        let row = connect(url)
            .await?
            .query_one("SELECT count(*), coalesce(max(id), 0) FROM orders", &[])
            .await?;
        let (originals, last_id) = (row.get(0), row.get(1));
        ensure!(originals > 0, "there are no orders to copy");
        Ok(Self {
            url: url.to_owned(),
            originals,
            last_id,
            copies: 0,
        })
    }

    /// Copies until there are at least `rows` orders; then as if they had been there for long.
    ///
    /// # Errors
    /// When Postgres does not take them.
    pub(crate) async fn up_to(&mut self, rows: i64) -> anyhow::Result<()> {
        let client = connect(&self.url).await?;
        // Each copy belongs to its order as the original does; and a lost copy could be made again.
        client
            .batch_execute("SET session_replication_role = replica; SET synchronous_commit = off")
            .await?;
        let wanted = (rows - 1) / self.originals;
        while self.copies < wanted {
            let (first, last) = (self.copies + 1, (self.copies + AT_ONCE).min(wanted));
            let statements =
                TABLES.map(|(table, id, columns)| self.copy(table, id, columns, first, last));
            client
                .batch_execute(&format!("BEGIN; {}; COMMIT", statements.join("; ")))
                .await?;
            self.copies = last;
        }
        client.batch_execute("VACUUM (ANALYZE)").await?;
        client.batch_execute("CHECKPOINT").await?;
        Ok(())
    }

    /// Uids are as random as those of real orders, and so is what the lists are found by.
    fn copy(&self, table: &str, id: &str, columns: &str, first: i64, last: i64) -> String {
        let values: Vec<String> = columns
            .split(", ")
            .map(|column| match (table, column) {
                (_, column) if column == id => {
                    format!("{FIRST_ID} + copy * {} + {id}", self.last_id)
                }
                ("orders", "order_uid") => "md5(order_uid || copy)".to_owned(),
                ("orders", "track_number" | "customer_id") => {
                    format!("left(md5({column} || copy), length({column}))")
                }
                _ => column.to_owned(),
            })
            .collect();
        format!(
            "INSERT INTO {table} ({columns}) SELECT {} FROM {table}, generate_series({first}, {last}) AS copy \
             WHERE {id} <= {} ORDER BY copy, {id}",
            values.join(", "),
            self.last_id
        )
    }
}

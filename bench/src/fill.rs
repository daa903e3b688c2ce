//! Fills a database with many orders by copying rows, which saves the hours that sending them would
//! take.

use anyhow::ensure;

use crate::copy_floor::{TABLES, connect};

/// Number of copies of each original that one transaction makes.
const AT_ONCE: i64 = 10;

/// First id of the copies, far above the values of the sequence.
const FIRST_ID: i64 = 1_000_000_000;

/// A database whose first orders are copied under other uids.
pub(crate) struct Fill {
    url: String,
    originals: i64,
    last_id: i64,
    copies: i64,
}

impl Fill {
    /// Prepares to copy the orders that the database holds now.
    ///
    /// # Errors
    /// If the database holds no orders.
    pub(crate) async fn new(url: &str) -> anyhow::Result<Self> {
        let row = connect(url)
            .await?
            .query_one("SELECT count(*), coalesce(max(id), 0) FROM orders", &[])
            .await?;
        let (originals, last_id) = (row.get(0), row.get(1));
        ensure!(originals > 0, "no order to copy");
        Ok(Self {
            url: url.to_owned(),
            originals,
            last_id,
            copies: 0,
        })
    }

    /// Copies until there are at least `rows` orders. Then runs `VACUUM (ANALYZE)` and
    /// `CHECKPOINT`, so that the tables resemble those of a long-running system.
    ///
    /// # Errors
    /// If Postgres rejects a statement.
    pub(crate) async fn up_to(&mut self, rows: i64) -> anyhow::Result<()> {
        let client = connect(&self.url).await?;
        // `replica` skips the foreign-key checks, because each copied row refers to a copied order.
        // `synchronous_commit = off` is safe, because a lost copy can be made again.
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

    /// Returns the `INSERT` that copies one table. Uids are as random as those of real orders, and
    /// so are the columns that the lists are indexed by.
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
            "INSERT INTO {table} ({columns}) SELECT {} \
             FROM {table}, generate_series({first}, {last}) AS copy \
             WHERE {id} <= {} ORDER BY copy, {id}",
            values.join(", "),
            self.last_id
        )
    }
}

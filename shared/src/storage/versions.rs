//! Reads the versions of orders from Postgres, without the orders.

use std::sync::LazyLock;

use super::{
    Postgres, StorageError,
    columns::{Columns as _, ReadColumns as _, Reader, Stamp, selected},
};
use crate::order::{OrderUid, Version};

static VERSIONS: LazyLock<String> = LazyLock::new(|| {
    format!(
        "SELECT {} FROM orders o WHERE o.order_uid = ANY($1)",
        selected("o", Stamp::COLUMNS)
    )
});

impl Postgres {
    /// Returns the versions of those of the orders `uids` that Postgres holds, erased ones
    /// included, in any order.
    ///
    /// # Errors
    /// When Postgres does not answer.
    pub async fn versions(
        &self,
        uids: &[OrderUid],
    ) -> Result<Vec<(OrderUid, Version)>, StorageError> {
        let uids: Vec<&str> = uids.iter().map(OrderUid::as_str).collect();
        let statement = sqlx::query(VERSIONS.as_str()).bind(uids);
        let rows = self
            .run("versions", async |connection| {
                statement.fetch_all(connection).await
            })
            .await?;
        let stamps = rows.iter().map(|row| Stamp::read(&mut Reader::new(row)));
        let version = |stamp: Stamp| (stamp.order_uid, stamp.version());
        Ok(stamps
            .map(|stamp| stamp.map(version))
            .collect::<Result<_, sqlx::Error>>()?)
    }
}

//! A walk over the keys of all entries, step by step, on every server that holds keys.

use super::{Cache, CacheError, connection::Node, entry::PREFIX};

/// Approximate number of keys that one SCAN step examines.
const SCAN_COUNT: usize = 1000;

/// The position of a walk over all entries.
pub struct KeyScan {
    /// The servers that are left. The last one is being read.
    nodes: Vec<Node>,
    cursor: u64,
}

impl KeyScan {
    pub(super) fn new(nodes: Vec<Node>) -> Self {
        Self { nodes, cursor: 0 }
    }
}

impl Cache {
    /// Returns the next keys with our prefix, or none at the end.
    pub(super) async fn next_keys(
        &self,
        scan: &mut KeyScan,
    ) -> Result<Option<Vec<String>>, CacheError> {
        let Some(node) = scan.nodes.last() else {
            return Ok(None);
        };
        let mut command = redis::cmd("SCAN");
        command
            .arg(scan.cursor)
            .arg("MATCH")
            .arg(format!("{PREFIX}*"))
            .arg("COUNT")
            .arg(SCAN_COUNT);
        let (next, keys): (u64, Vec<String>) = self
            .run("scan", async {
                Ok(self.connection().await?.query_at(node, command).await?)
            })
            .await?;
        scan.cursor = next;
        if next == 0 {
            scan.nodes.pop();
        }
        Ok(Some(keys))
    }
}

//! Reads entries as they are, to compare them with Postgres. Changes nothing in Redis.

use redis::RedisResult;

use super::{
    Cache, CacheError, Cached, check::Reply, connection::Connection, entry::PREFIX, scan::KeyScan,
};
use crate::order::OrderUid;

/// What Redis holds of an order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Held {
    /// No entry: none was written, or it expired or was evicted.
    Nothing,
    /// An entry of any shape.
    Entry(Cached),
    /// Something other than an entry of ours for this order.
    Foreign,
    /// An entry without a right MAC. No reader uses it.
    Unverified,
}

impl Cache {
    /// Returns what Redis holds of each of `uids`, in their order. Unlike [`Cache::get`], returns
    /// entries of older shapes, too.
    ///
    /// # Errors
    /// When Redis does not answer or rejects a command.
    pub async fn inspect(&self, uids: &[OrderUid]) -> Result<Vec<Held>, CacheError> {
        if uids.is_empty() {
            return Ok(Vec::new());
        }
        let commands = uids.iter().map(|uid| self.read(uid)).collect();
        self.run("inspect", async {
            let mut connection = self.connection().await?;
            let replies: Vec<RedisResult<Reply>> = connection.query_each(commands).await?;
            let held = uids.iter().zip(replies);
            held.map(|(uid, reply)| self.held(uid, reply)).collect()
        })
        .await
    }

    fn held(&self, uid: &OrderUid, reply: RedisResult<Reply>) -> Result<Held, CacheError> {
        let reply = match reply.map_err(CacheError::from) {
            Ok(reply) => reply,
            Err(CacheError::Corrupt) => return Ok(Held::Foreign),
            Err(error) if error.is_wrong_type() => return Ok(Held::Foreign),
            Err(error) => return Err(error),
        };
        Ok(match reply.check(uid, self.mac_keys.as_deref()) {
            Ok(None) => Held::Nothing,
            Ok(Some(entry)) => Held::Entry(entry),
            Err(rejected) if rejected.flaw.is_unverified() => Held::Unverified,
            Err(_) => Held::Foreign,
        })
    }

    /// Returns the uids of at most `count` entries, chosen at random with repetition. Keys of other
    /// applications are left out. In a cluster, all entries come from one random master.
    ///
    /// # Errors
    /// When Redis does not answer or rejects a command.
    pub async fn random_uids(&self, count: usize) -> Result<Vec<OrderUid>, CacheError> {
        let keys = self
            .run("random_keys", async {
                let mut connection = self.connection().await?;
                random_keys(&mut connection, count).await
            })
            .await?;
        Ok(keys.iter().filter_map(|key| uid(key)).collect())
    }

    /// Starts a walk over all entries.
    ///
    /// # Errors
    /// When Redis does not answer or rejects a command.
    pub async fn scan(&self) -> Result<KeyScan, CacheError> {
        self.run("nodes", async {
            Ok(KeyScan::new(self.connection().await?.nodes().await?))
        })
        .await
    }

    /// Returns the uids of the next entries, or none at the end. An entry that moves meanwhile may
    /// be returned twice.
    ///
    /// # Errors
    /// When Redis does not answer or rejects the command. The same call can be repeated.
    pub async fn next_uids(&self, scan: &mut KeyScan) -> Result<Option<Vec<OrderUid>>, CacheError> {
        let keys = self.next_keys(scan).await?;
        Ok(keys.map(|keys| keys.iter().filter_map(|key| uid(key)).collect()))
    }
}

/// Returns the uid in the key of an entry; none for another key.
fn uid(key: &str) -> Option<OrderUid> {
    OrderUid::parse(key.strip_prefix(PREFIX)?).ok()
}

async fn random_keys(connection: &mut Connection, count: usize) -> Result<Vec<String>, CacheError> {
    let nodes = connection.nodes().await?;
    if nodes.is_empty() {
        return Ok(Vec::new());
    }
    let node = &nodes[fastrand::usize(..nodes.len())];
    let mut keys = Vec::with_capacity(count);
    for _ in 0..count {
        let key: Option<String> = connection.query_at(node, redis::cmd("RANDOMKEY")).await?;
        keys.extend(key);
    }
    Ok(keys)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_keys_of_orders_have_a_uid() {
        let expected = OrderUid::parse("b563feb7b2b84b6test").ok();
        assert_eq!(uid("order:b563feb7b2b84b6test"), expected);
        for key in ["order:~", "order:", "order-cache", "b563feb7b2b84b6test"] {
            assert_eq!(uid(key), None, "{key}");
        }
    }
}

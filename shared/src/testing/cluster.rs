//! A Redis Cluster for one test.

use std::{env, fs, path::PathBuf, process::Command, time::Instant};

use uuid::Uuid;

use super::{eventually, redis::TestRedis};
use crate::{
    cache::{Cache, CacheError, WriteOutcome},
    config,
    order::Revision,
};

/// A Redis Cluster of three masters for one test. Dropping the value ends it.
pub struct TestCluster {
    nodes: Vec<TestRedis>,
    folder: PathBuf,
}

impl TestCluster {
    /// Starts three empty servers and creates a cluster of them.
    pub fn start() -> Self {
        let folder = env::temp_dir().join(format!("order-service-cluster-{}", Uuid::new_v4()));
        fs::create_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        let nodes: Vec<TestRedis> = (0..3)
            .map(|_| TestRedis::start_cluster_node(&folder))
            .collect();
        let create = Command::new("redis-cli")
            .args(["--cluster", "create"])
            .args(nodes.iter().map(|node| format!("127.0.0.1:{}", node.port)))
            .arg("--cluster-yes")
            .output()
            .unwrap_or_else(|error| panic!("redis-cli: {error}"));
        assert!(
            create.status.success(),
            "{}",
            String::from_utf8_lossy(&create.stdout)
        );
        Self { nodes, folder }
    }

    /// Configuration for a client of the cluster.
    pub fn config(&self) -> config::Redis {
        let urls: Vec<String> = self.nodes.iter().map(TestRedis::url).collect();
        config::Redis {
            url: urls.join(","),
            ..self.nodes[0].config()
        }
    }

    /// The servers of the cluster.
    pub fn nodes(&self) -> &[TestRedis] {
        &self.nodes
    }
}

impl Drop for TestCluster {
    fn drop(&mut self) {
        self.nodes.clear();
        // A leftover folder in the temporary directory does no harm.
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// Writes `revisions` until Redis has accepted every one.
///
/// The nodes of a new cluster discover each other one by one. A write is too late if connecting
/// takes longer than a row stays fresh.
pub async fn write_until_taken(cache: &Cache, revisions: &[Revision]) {
    eventually("a Redis that takes writes", async || {
        let results = cache.write_batch(revisions, Instant::now()).await;
        let taken = |result: &Result<WriteOutcome, CacheError>| {
            matches!(result, Ok(WriteOutcome::Written | WriteOutcome::Unchanged))
        };
        results.iter().all(taken).then_some(())
    })
    .await;
}

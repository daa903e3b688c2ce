//! Connections to Redis: one node or a cluster, multiplexed or pooled.

use std::{sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use deadpool_redis::{Manager, Pool, Runtime};
use futures_util::future::join_all;
use redis::{
    AsyncConnectionConfig, Client, Cmd, FromRedisValue, Pipeline, RedisFuture, RedisResult, Value,
    aio::{ConnectionLike, ConnectionManager},
    cluster::ClusterClient,
    cluster_async::ClusterConnection,
    cluster_routing::{RoutingInfo, SingleNodeRoutingInfo},
};

use super::{
    CacheError,
    access::{self, Access, Clients},
    link::{Cluster, Node as SharedNode},
    read_pipeline::ReadPipeline,
};
use crate::config::ConfigError;

/// Maximum connections of the worker's pool: one for each batch that may be in its Redis stage, and
/// one for repairs.
const POOL_SIZE: usize = 8;

/// Concurrent commands in a cluster, where a pipeline cannot span nodes.
pub(super) const CLUSTER_CONCURRENCY: usize = 64;

pub(super) enum Connections {
    Shared(Arc<SharedNode>),
    Pooled(Box<Pooled>),
    Cluster(Arc<Cluster>),
}

impl Connections {
    pub(super) fn shared(access: &Access, timeout: Duration) -> Result<Self, ConfigError> {
        match access.clients()? {
            Clients::Cluster(client) => Ok(Self::cluster(*client, timeout)),
            Clients::Single(client) => SharedNode::new(*client, timeout)
                .map(|node| Self::Shared(Arc::new(node)))
                .map_err(|_| access::malformed()),
        }
    }

    pub(super) fn pooled(access: &Access, timeout: Duration) -> Result<Self, ConfigError> {
        match access.clients()? {
            Clients::Cluster(client) => Ok(Self::cluster(*client, timeout)),
            Clients::Single(client) => Ok(Self::Pooled(Box::new(Pooled {
                current: ArcSwap::from_pointee(pool(&client, timeout)?),
                client: ArcSwap::from_pointee(*client),
                timeout,
            }))),
        }
    }

    fn cluster(client: ClusterClient, timeout: Duration) -> Self {
        Self::Cluster(Arc::new(Cluster::new(client, timeout)))
    }

    /// Uses `clients` for new connections, and replaces the open ones once a new one answers. An
    /// error leaves the open connections in place: the server may not know the new password yet.
    ///
    /// # Errors
    /// When Redis does not answer on a new connection, or `clients` are of another kind.
    pub(super) async fn replace(&self, clients: Clients) -> Result<(), CacheError> {
        match (self, clients) {
            (Self::Shared(node), Clients::Single(client)) => {
                access::try_out(&client).await?;
                node.replace(*client);
            }
            (Self::Pooled(pooled), Clients::Single(client)) => {
                access::try_out(&client).await?;
                pooled.client.store(Arc::new(*client));
                pooled.renew();
            }
            (Self::Cluster(cluster), Clients::Cluster(client)) => {
                return cluster.replace_client(*client).await;
            }
            _ => {
                return Err(CacheError::Connection(
                    "REDIS_URL_FILE changed between one node and a cluster; restart the process"
                        .to_owned(),
                ));
            }
        }
        Ok(())
    }

    /// Returns the read pipeline of the connection that all callers share; none for a pool or a
    /// cluster.
    pub(super) fn read_pipeline(&self, timeout: Duration) -> Option<ReadPipeline> {
        match self {
            Self::Shared(node) => Some(ReadPipeline::new(Arc::clone(node), timeout)),
            Self::Pooled(_) | Self::Cluster(_) => None,
        }
    }

    pub(super) async fn connection(&self) -> Result<Connection, CacheError> {
        match self {
            Self::Shared(node) => Ok(Connection::Shared(node.connection())),
            // Boxed: otherwise every read of the api would reserve 14 kB for the state of
            // connecting.
            Self::Pooled(pooled) => Box::pin(pooled.connection()).await,
            Self::Cluster(cluster) => Box::pin(clustered(cluster)).await,
        }
    }

    /// Replaces connections that do not answer. Call it after a call that missed its deadline or
    /// lost its connection.
    pub(super) fn suspect(&self) {
        match self {
            Self::Shared(node) => node.suspect(),
            // A failure that killed one connection has often killed the idle ones too. Trying each
            // of them costs a deadline; connecting again costs little.
            Self::Pooled(pooled) => drop(pooled.current.load().retain(|_, _| false)),
            Self::Cluster(cluster) => cluster.suspect(),
        }
    }

    /// Replaces every connection, also those that answer. The next call connects again and resolves
    /// the name of the server again. A connection in use closes after its last call. A cluster
    /// reconnects in the background and keeps the old connections until the new ones answer.
    pub(super) fn renew(&self) {
        match self {
            Self::Shared(node) => node.renew(),
            Self::Pooled(pooled) => pooled.renew(),
            Self::Cluster(cluster) => cluster.renew(),
        }
    }

    pub(super) fn is_cluster(&self) -> bool {
        matches!(self, Self::Cluster(_))
    }
}

/// A pool, and the settings that create a new one.
pub(super) struct Pooled {
    client: ArcSwap<Client>,
    timeout: Duration,
    current: ArcSwap<Pool>,
}

impl Pooled {
    async fn connection(&self) -> Result<Connection, CacheError> {
        self.current
            .load_full()
            .get()
            .await
            .map(Connection::Pooled)
            .map_err(|error| match error {
                deadpool_redis::PoolError::Backend(error) => CacheError::from(error),
                other => CacheError::Connection(other.to_string()),
            })
    }

    fn renew(&self) {
        // The first pool was created with the same settings, so this does not fail.
        if let Ok(pool) = pool(&self.client.load(), self.timeout) {
            self.current.store(Arc::new(pool));
        }
    }
}

fn pool(client: &Client, timeout: Duration) -> Result<Pool, ConfigError> {
    let settings = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(timeout))
        .set_response_timeout(Some(timeout));
    let manager = Manager::new_with_config(client.get_connection_info().clone(), settings)
        .map_err(|_| access::malformed())?;
    Pool::builder(manager)
        .max_size(POOL_SIZE)
        .wait_timeout(Some(timeout))
        .create_timeout(Some(timeout))
        .recycle_timeout(Some(timeout))
        .runtime(Runtime::Tokio1)
        .build()
        .map_err(|error| ConfigError::malformed("REDIS_URL", error.to_string()))
}

async fn clustered(cluster: &Cluster) -> Result<Connection, CacheError> {
    Ok(Connection::Cluster(cluster.connection().await?))
}

/// One connection of any kind.
pub(super) enum Connection {
    Shared(ConnectionManager),
    Pooled(deadpool_redis::Connection),
    Cluster(ClusterConnection),
}

/// A server that holds keys: the only node, or a master of a cluster.
pub(super) enum Node {
    Only,
    Master { host: String, port: u16 },
}

impl Connection {
    /// Returns the servers that hold keys.
    pub(super) async fn nodes(&mut self) -> RedisResult<Vec<Node>> {
        let Self::Cluster(cluster) = self else {
            return Ok(vec![Node::Only]);
        };
        let nodes: String = redis::cmd("CLUSTER")
            .arg("NODES")
            .query_async(cluster)
            .await?;
        Ok(nodes.lines().filter_map(master).collect())
    }

    /// Runs `command` on `node` alone, so that the reply covers only the keys of that server.
    pub(super) async fn query_at<T: FromRedisValue>(
        &mut self,
        node: &Node,
        command: Cmd,
    ) -> RedisResult<T> {
        match (self, node) {
            (Self::Cluster(cluster), Node::Master { host, port }) => {
                let address = SingleNodeRoutingInfo::ByAddress {
                    host: host.clone(),
                    port: *port,
                };
                let value = cluster
                    .route_command(command, RoutingInfo::SingleNode(address))
                    .await?;
                Ok(T::from_redis_value(value)?)
            }
            (connection, _) => command.query_async(connection).await,
        }
    }

    /// Runs `commands`, each on one key, and returns their results in order. The keys may be in
    /// different slots.
    pub(super) async fn query_each<T: FromRedisValue>(
        &mut self,
        commands: Vec<Cmd>,
    ) -> RedisResult<Vec<RedisResult<T>>> {
        if let Self::Cluster(cluster) = self {
            let mut results = Vec::with_capacity(commands.len());
            for chunk in commands.chunks(CLUSTER_CONCURRENCY) {
                let mut calls = Vec::with_capacity(chunk.len());
                for command in chunk {
                    let mut connection = cluster.clone();
                    calls.push(async move { command.query_async(&mut connection).await });
                }
                results.extend(join_all(calls).await);
            }
            return Ok(results);
        }
        let mut pipeline = Pipeline::with_capacity(commands.len());
        pipeline.ignore_errors();
        commands.into_iter().for_each(|command| {
            pipeline.add_command(command);
        });
        pipeline.query_async(self).await
    }

    /// Deletes keys and returns how many existed. Sends one command per key, because keys may be in
    /// different slots.
    pub(super) async fn unlink(&mut self, keys: &[String]) -> RedisResult<u64> {
        let commands = keys.iter().map(|key| {
            let mut command = redis::cmd("UNLINK");
            command.arg(key);
            command
        });
        if let Self::Cluster(cluster) = self {
            let mut deletions = Vec::with_capacity(keys.len());
            for command in commands {
                let mut connection = cluster.clone();
                deletions.push(async move { command.query_async::<u64>(&mut connection).await });
            }
            return join_all(deletions).await.into_iter().sum();
        }
        let mut pipeline = Pipeline::with_capacity(keys.len());
        commands.for_each(|command| {
            pipeline.add_command(command);
        });
        let counts: Vec<u64> = pipeline.query_async(self).await?;
        Ok(counts.iter().sum())
    }
}

/// Parses a line of CLUSTER NODES, such as `ID HOST:PORT@BUS[,NAME] FLAGS ...`. Returns the address
/// of a master, or none for a replica.
fn master(line: &str) -> Option<Node> {
    let mut words = line.split(' ').skip(1);
    let (address, flags) = (words.next()?, words.next()?);
    let (host, port) = address.split('@').next()?.rsplit_once(':')?;
    flags
        .split(',')
        .any(|flag| flag == "master")
        .then_some(())?;
    Some(Node::Master {
        host: host.to_owned(),
        port: port.parse().ok()?,
    })
}

impl ConnectionLike for Connection {
    fn req_packed_command<'a>(&'a mut self, command: &'a Cmd) -> RedisFuture<'a, Value> {
        match self {
            Self::Shared(connection) => connection.req_packed_command(command),
            Self::Pooled(connection) => connection.req_packed_command(command),
            Self::Cluster(connection) => connection.req_packed_command(command),
        }
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        pipeline: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        match self {
            Self::Shared(connection) => connection.req_packed_commands(pipeline, offset, count),
            Self::Pooled(connection) => connection.req_packed_commands(pipeline, offset, count),
            Self::Cluster(connection) => connection.req_packed_commands(pipeline, offset, count),
        }
    }

    fn get_db(&self) -> i64 {
        match self {
            Self::Shared(connection) => connection.get_db(),
            Self::Pooled(connection) => connection.get_db(),
            Self::Cluster(connection) => connection.get_db(),
        }
    }
}

//! Connections to Redis: one node or a cluster, multiplexed or pooled.

use std::{sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use deadpool_redis::{Manager, Pool, Runtime};
use futures_util::future::join_all;
use redis::{
    AsyncConnectionConfig, Client, Cmd, FromRedisValue, IntoConnectionInfo, Pipeline, RedisFuture,
    RedisResult, Value,
    aio::{ConnectionLike, ConnectionManager},
    cluster::ClusterClient,
    cluster_async::ClusterConnection,
    cluster_routing::{RoutingInfo, SingleNodeRoutingInfo},
    io::tcp::TcpSettings,
};

use super::{
    CacheError,
    link::{Cluster, Node as SharedNode},
    read_pipeline::ReadPipeline,
};
use crate::config::{self, ConfigError};

/// Maximum connections of the worker's pool: one for each batch that may be in its Redis stage, and
/// one for repairs.
const POOL_SIZE: usize = 8;

/// Concurrent commands in a cluster, where a pipeline cannot span nodes.
pub(super) const CLUSTER_CONCURRENCY: usize = 64;

/// How long sent data may stay unacknowledged by the server's kernel.
const SILENCE: Duration = Duration::from_secs(5);

pub(super) enum Connections {
    Shared(Arc<SharedNode>),
    Pooled(Box<Pooled>),
    Cluster(Arc<Cluster>),
}

impl Connections {
    pub(super) fn shared(config: &config::Redis) -> Result<Self, ConfigError> {
        let Some(client) = single_client(config)? else {
            return Self::cluster(config);
        };
        SharedNode::new(client, config.timeout)
            .map(|node| Self::Shared(Arc::new(node)))
            .map_err(|_| malformed())
    }

    pub(super) fn pooled(config: &config::Redis) -> Result<Self, ConfigError> {
        let Some(client) = single_client(config)? else {
            return Self::cluster(config);
        };
        let pool = pool(&client, config.timeout)?;
        Ok(Self::Pooled(Box::new(Pooled {
            client,
            timeout: config.timeout,
            current: ArcSwap::from_pointee(pool),
        })))
    }

    fn cluster(config: &config::Redis) -> Result<Self, ConfigError> {
        let client = ClusterClient::builder(urls(config))
            .connection_timeout(config.timeout)
            .response_timeout(config.timeout)
            .tcp_settings(tcp_settings())
            .build()
            .map_err(|_| malformed())?;
        Ok(Self::Cluster(Arc::new(Cluster::new(
            client,
            config.timeout,
        ))))
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
    client: Client,
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
        if let Ok(pool) = pool(&self.client, self.timeout) {
            self.current.store(Arc::new(pool));
        }
    }
}

fn pool(client: &Client, timeout: Duration) -> Result<Pool, ConfigError> {
    let settings = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(timeout))
        .set_response_timeout(Some(timeout));
    let manager = Manager::new_with_config(client.get_connection_info().clone(), settings)
        .map_err(|_| malformed())?;
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

/// Returns the addresses of `REDIS_URL`.
pub(super) fn urls(config: &config::Redis) -> Vec<&str> {
    config
        .url
        .split(',')
        .map(str::trim)
        .filter(|url| !url.is_empty())
        .collect()
}

/// Creates a client for the node at `url`.
pub(super) fn client(url: &str) -> Result<Client, redis::RedisError> {
    let info = url.into_connection_info()?;
    Client::open(info.set_tcp_settings(tcp_settings()))
}

/// TCP settings without Nagle's delay. On Linux, the kernel ends a connection when the server
/// acknowledges nothing for `SILENCE`. The default of the kernel is a quarter of an hour.
fn tcp_settings() -> TcpSettings {
    let settings = TcpSettings::default().set_nodelay(true);
    #[cfg(target_os = "linux")]
    let settings = settings.set_user_timeout(SILENCE);
    settings
}

/// Creates the client of the only node; returns none for a cluster.
fn single_client(config: &config::Redis) -> Result<Option<Client>, ConfigError> {
    if config.timeout.is_zero() {
        return Err(ConfigError::malformed(
            "REDIS_TIMEOUT",
            "must be longer than 0; write 100ms, for example",
        ));
    }
    match urls(config).as_slice() {
        [] => Err(ConfigError::malformed(
            "REDIS_URL",
            "holds no address; write redis://HOST:6379",
        )),
        [url] => client(url).map(Some).map_err(|_| malformed()),
        _ => Ok(None),
    }
}

/// The error for a URL that the client rejects. It quotes nothing: the URL may hold a password.
fn malformed() -> ConfigError {
    ConfigError::malformed(
        "REDIS_URL",
        "not a redis:// or rediss:// URL; write redis://HOST:6379",
    )
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_malformed_url_is_an_error_that_says_what_to_write() {
        for url in ["http://:secret@host", "host:6379", "redis://host:x"] {
            let config = config::Redis {
                url: url.to_owned(),
                ..config::Redis::default()
            };
            let error = single_client(&config).unwrap_err().to_string();
            assert_eq!(
                error,
                "REDIS_URL: not a redis:// or rediss:// URL; write redis://HOST:6379"
            );
        }
    }
}

//! Where connections to Redis come from: one node or a cluster, multiplexed or pooled.

use std::time::Duration;

use deadpool_redis::{Manager, Pool, Runtime};
use redis::{
    AsyncConnectionConfig, Client, Cmd, IntoConnectionInfo, Pipeline, RedisFuture, Value,
    aio::{ConnectionLike, ConnectionManager, ConnectionManagerConfig},
    cluster::ClusterClient,
    cluster_async::ClusterConnection,
    io::tcp::TcpSettings,
};
use tokio::sync::OnceCell;

use super::CacheError;
use crate::config::{self, ConfigError};

/// Connections that the worker's pool may hold: one for each batch that may be in its Redis stage, and one for repairs.
const POOL_SIZE: usize = 8;

pub(super) enum Source {
    Shared(ConnectionManager),
    Pooled(Pool),
    /// Connects when first used; afterwards it follows the cluster by itself.
    Cluster(Box<ClusterClient>, OnceCell<ClusterConnection>),
}

impl Source {
    pub(super) fn shared(config: &config::Redis) -> Result<Self, ConfigError> {
        let Some(client) = single_client(config)? else {
            return Self::cluster(config);
        };
        let settings = ConnectionManagerConfig::new()
            .set_connection_timeout(Some(config.timeout))
            .set_response_timeout(Some(config.timeout))
            .set_number_of_retries(1)
            .set_min_delay(Duration::from_millis(10));
        ConnectionManager::new_lazy_with_config(client, settings)
            .map(Self::Shared)
            .map_err(|error| malformed(&error))
    }

    pub(super) fn pooled(config: &config::Redis) -> Result<Self, ConfigError> {
        let Some(client) = single_client(config)? else {
            return Self::cluster(config);
        };
        let settings = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(config.timeout))
            .set_response_timeout(Some(config.timeout));
        let manager = Manager::new_with_config(client.get_connection_info().clone(), settings)
            .map_err(|error| malformed(&error))?;
        Pool::builder(manager)
            .max_size(POOL_SIZE)
            .wait_timeout(Some(config.timeout))
            .create_timeout(Some(config.timeout))
            .recycle_timeout(Some(config.timeout))
            .runtime(Runtime::Tokio1)
            .build()
            .map(Self::Pooled)
            .map_err(|error| ConfigError::malformed("REDIS_URL", error.to_string()))
    }

    fn cluster(config: &config::Redis) -> Result<Self, ConfigError> {
        let client = ClusterClient::builder(urls(config))
            .connection_timeout(config.timeout)
            .response_timeout(config.timeout)
            .tcp_settings(TcpSettings::default().set_nodelay(true))
            .build()
            .map_err(|error| malformed(&error))?;
        Ok(Self::Cluster(Box::new(client), OnceCell::new()))
    }

    pub(super) async fn connection(&self) -> Result<Connection, CacheError> {
        match self {
            Self::Shared(manager) => Ok(Connection::Shared(manager.clone())),
            Self::Pooled(pool) => {
                pool.get()
                    .await
                    .map(Connection::Pooled)
                    .map_err(|error| match error {
                        deadpool_redis::PoolError::Backend(error) => CacheError::from(error),
                        other => CacheError::Connection(other.to_string()),
                    })
            }
            Self::Cluster(client, connected) => {
                let connection = connected
                    .get_or_try_init(|| client.get_async_connection())
                    .await?;
                Ok(Connection::Cluster(connection.clone()))
            }
        }
    }

    pub(super) fn is_cluster(&self) -> bool {
        matches!(self, Self::Cluster(..))
    }
}

/// The addresses of `REDIS_URL`.
pub(super) fn urls(config: &config::Redis) -> Vec<&str> {
    config
        .url
        .split(',')
        .map(str::trim)
        .filter(|url| !url.is_empty())
        .collect()
}

/// A client for the node at `url`, without Nagle's delay.
pub(super) fn client(url: &str) -> Result<Client, redis::RedisError> {
    let info = url.into_connection_info()?;
    Client::open(info.set_tcp_settings(TcpSettings::default().set_nodelay(true)))
}

/// The client of the one node, or none for a cluster.
fn single_client(config: &config::Redis) -> Result<Option<Client>, ConfigError> {
    if config.timeout.is_zero() {
        return Err(ConfigError::malformed(
            "REDIS_TIMEOUT",
            "must be longer than nothing",
        ));
    }
    match urls(config).as_slice() {
        [] => Err(ConfigError::malformed("REDIS_URL", "no address")),
        [url] => client(url).map(Some).map_err(|error| malformed(&error)),
        _ => Ok(None),
    }
}

fn malformed(error: &redis::RedisError) -> ConfigError {
    ConfigError::malformed("REDIS_URL", error.category())
}

/// One connection, of whatever kind.
pub(super) enum Connection {
    Shared(ConnectionManager),
    Pooled(deadpool_redis::Connection),
    Cluster(ClusterConnection),
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

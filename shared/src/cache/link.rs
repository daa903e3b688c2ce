//! Connections that all callers share, and their replacement when they stop answering.
//!
//! A middlebox may acknowledge every packet of a connection that it no longer forwards. The kernel
//! then sees a live peer, so neither keep-alive nor `TCP_USER_TIMEOUT` ends the connection. Only a
//! missing answer reveals it.
//!
//! So a missed deadline starts one check: a PING with its own deadline. A connection that answers
//! was only slow and stays. A silent connection is replaced, and its socket closes when the last
//! call on it ends.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use redis::{
    Client, RedisResult,
    aio::{ConnectionManager, ConnectionManagerConfig},
    cluster::ClusterClient,
    cluster_async::ClusterConnection,
    cluster_routing::{MultipleNodeRoutingInfo, ResponsePolicy, RoutingInfo},
};
use tokio::{
    sync::OnceCell,
    time::{sleep, timeout},
};

use super::CacheError;

/// Time limit for reconnecting to every node of a cluster.
const CONNECT_CLUSTER: Duration = Duration::from_secs(5);

/// Pause between two checks of a cluster. A node that is down misses deadlines all the time, and
/// new connections to the other nodes do not help.
const CLUSTER_PAUSE: Duration = Duration::from_secs(1);

/// One multiplexed connection to one server. It connects at first use and reconnects when it
/// breaks.
pub(super) struct Node {
    client: ArcSwap<Client>,
    timeout: Duration,
    current: ArcSwap<ConnectionManager>,
    checking: AtomicBool,
}

impl Node {
    pub(super) fn new(client: Client, timeout: Duration) -> RedisResult<Self> {
        Ok(Self {
            current: ArcSwap::from_pointee(manager(&client, timeout)?),
            client: ArcSwap::from_pointee(client),
            timeout,
            checking: AtomicBool::new(false),
        })
    }

    /// Returns the connection for the next call. Keep it no longer than that: a kept clone keeps a
    /// dead socket open.
    pub(super) fn connection(&self) -> ConnectionManager {
        ConnectionManager::clone(&self.current.load())
    }

    /// Replaces the connection, also one that answers.
    pub(super) fn renew(&self) {
        match manager(&self.client.load(), self.timeout) {
            Ok(manager) => self.current.store(Arc::new(manager)),
            Err(error) => tracing::warn!(
                error = error.category(),
                "replacing a Redis connection failed"
            ),
        }
    }

    /// Replaces the client and the connection.
    pub(super) fn replace(&self, client: Client) {
        self.client.store(Arc::new(client));
        self.renew();
    }

    /// Checks the connection in the background, unless a check is already running. Call it after a
    /// missed deadline.
    pub(super) fn suspect(self: &Arc<Self>) {
        if !self.checking.swap(true, Ordering::AcqRel) {
            tokio::spawn(Arc::clone(self).check());
        }
    }

    async fn check(self: Arc<Self>) {
        let (ping, mut connection) = (redis::cmd("PING"), self.connection());
        // An error is an answer too. If it is a broken connection, the manager replaces it by
        // itself.
        let answer = timeout(
            self.timeout,
            ping.query_async::<redis::Value>(&mut connection),
        )
        .await;
        if answer.is_err() {
            self.renew();
            tracing::debug!("replaced a silent Redis connection");
        }
        self.checking.store(false, Ordering::Release);
    }
}

fn manager(client: &Client, timeout: Duration) -> RedisResult<ConnectionManager> {
    let settings = ConnectionManagerConfig::new()
        .set_connection_timeout(Some(timeout))
        // Each call has its own deadline. A second timer would be set and cancelled at every read.
        .set_response_timeout(None)
        .set_number_of_retries(1)
        .set_min_delay(Duration::from_millis(10));
    ConnectionManager::new_lazy_with_config(client.clone(), settings)
}

/// The connections to the nodes of a cluster. They open at first use and then follow the cluster.
pub(super) struct Cluster {
    client: ArcSwap<ClusterClient>,
    timeout: Duration,
    current: OnceCell<ArcSwap<ClusterConnection>>,
    checking: AtomicBool,
}

impl Cluster {
    pub(super) fn new(client: ClusterClient, timeout: Duration) -> Self {
        Self {
            client: ArcSwap::from_pointee(client),
            timeout,
            current: OnceCell::new(),
            checking: AtomicBool::new(false),
        }
    }

    /// Returns the connection for the next call.
    pub(super) async fn connection(&self) -> RedisResult<ClusterConnection> {
        let connect = || async {
            let connection = self.client.load_full().get_async_connection().await?;
            RedisResult::Ok(ArcSwap::from_pointee(connection))
        };
        let current = self.current.get_or_try_init(connect).await?;
        Ok(ClusterConnection::clone(&current.load()))
    }

    /// Replaces the connections in the background, also those that answer.
    pub(super) fn renew(self: &Arc<Self>) {
        let cluster = Arc::clone(self);
        tokio::spawn(async move {
            if let Some(current) = cluster.current.get() {
                // The old connections stay if this fails.
                let _ = cluster.replace(current).await;
            }
        });
    }

    /// Uses `client` for new connections, and replaces the open ones if every master answers.
    ///
    /// # Errors
    /// When a master does not answer. The open connections stay.
    pub(super) async fn replace_client(&self, client: ClusterClient) -> Result<(), CacheError> {
        self.client.store(Arc::new(client));
        match self.current.get() {
            Some(current) => self.replace(current).await,
            // The first connection is still to be opened.
            None => Ok(()),
        }
    }

    /// Checks the connections in the background, unless a check is already running. Call it after a
    /// missed deadline.
    pub(super) fn suspect(self: &Arc<Self>) {
        if !self.checking.swap(true, Ordering::AcqRel) {
            tokio::spawn(Arc::clone(self).check());
        }
    }

    async fn check(self: Arc<Self>) {
        if let Some(current) = self.current.get() {
            let connection = ClusterConnection::clone(&current.load());
            if self.answers(connection).await.is_err() {
                // The old connections stay if this fails.
                let _ = self.replace(current).await;
            }
        }
        sleep(CLUSTER_PAUSE).await;
        self.checking.store(false, Ordering::Release);
    }

    /// Replaces the connections if every master answers on the new ones. While a master is down,
    /// the old connections serve the other masters just as well.
    async fn replace(&self, current: &ArcSwap<ClusterConnection>) -> Result<(), CacheError> {
        let client = self.client.load_full();
        let connection = timeout(CONNECT_CLUSTER, client.get_async_connection())
            .await
            .map_err(|_| CacheError::Deadline(CONNECT_CLUSTER))??;
        self.answers(connection.clone()).await?;
        current.store(Arc::new(connection));
        tracing::debug!("replaced a connection to a Redis cluster");
        Ok(())
    }

    async fn answers(&self, mut connection: ClusterConnection) -> Result<(), CacheError> {
        let masters = (
            MultipleNodeRoutingInfo::AllMasters,
            Some(ResponsePolicy::AllSucceeded),
        );
        let ping = connection.route_command(redis::cmd("PING"), RoutingInfo::MultiNode(masters));
        timeout(self.timeout, ping)
            .await
            .map_err(|_| CacheError::Deadline(self.timeout))??;
        Ok(())
    }
}

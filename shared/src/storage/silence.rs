//! Idle connections that may be dead, and the test that detects them.
//!
//! A middlebox that forgets connections often forgets many at once, and may still acknowledge what
//! is sent on them. A pool would try such connections one by one, each for a whole deadline.
//!
//! So the pool tests a connection before use if a call failed after the connection was last used,
//! or if it was idle for long. A test is one round trip with a short limit. No connection is tested
//! twice for the same failure.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use sqlx::{
    Connection, PgConnection, Postgres as Driver,
    pool::{PoolConnection, PoolConnectionMetadata},
};
use tokio::time::timeout;

/// Idle time after which a connection is tested. Firewalls and load balancers drop idle connections
/// after some minutes.
const IDLE: Duration = Duration::from_secs(10);

/// The deadline of a call divided by the limit of a test. After a test, the call must have time to
/// connect and to run.
const SHARE: u32 = 5;

/// The last failure on any connection to one server. Clones share it.
#[derive(Clone)]
pub(super) struct Silence {
    epoch: Instant,
    /// Microseconds after `epoch`; 0 before the first failure.
    failed_at: Arc<AtomicU64>,
    limit: Duration,
}

impl Silence {
    /// Creates the state for calls with the deadline `timeout`.
    pub(super) fn new(timeout: Duration) -> Self {
        Self {
            epoch: Instant::now(),
            failed_at: Arc::default(),
            limit: timeout / SHARE,
        }
    }

    /// Records that a call missed its deadline or lost its connection just now.
    pub(super) fn record_failure(&self) {
        self.failed_at.fetch_max(self.now(), Ordering::Relaxed);
    }

    /// Returns whether the pool may hand out `connection`, which was idle. Tests it if it is
    /// suspect.
    pub(super) async fn is_fit(
        &self,
        connection: &mut PgConnection,
        metadata: PoolConnectionMetadata,
    ) -> bool {
        if !self.is_suspect(metadata.idle_for) {
            return true;
        }
        let fit = matches!(timeout(self.limit, connection.ping()).await, Ok(Ok(())));
        if !fit {
            tracing::debug!("replacing a silent Postgres connection");
        }
        fit
    }

    /// Returns `connection` to its pool, which tests it with a round trip first. Without a limit, a
    /// connection that dies at this moment would occupy its place in the pool forever.
    pub(super) fn release(&self, mut connection: PoolConnection<Driver>) {
        let (silence, returned) = (self.clone(), connection.return_to_pool());
        tokio::spawn(async move {
            if timeout(silence.limit, returned).await.is_err() {
                silence.record_failure();
            }
        });
    }

    fn is_suspect(&self, idle_for: Duration) -> bool {
        let failed_at = self.failed_at.load(Ordering::Relaxed);
        let idle = u64::try_from(idle_for.as_micros()).unwrap_or(u64::MAX);
        idle_for > IDLE || self.now().saturating_sub(idle) < failed_at
    }

    fn now(&self) -> u64 {
        // Overflows only after half a million years.
        u64::try_from(self.epoch.elapsed().as_micros()).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt, copy},
        net::{TcpListener, TcpStream, tcp},
    };

    use super::*;
    use crate::{
        config::Database,
        storage::{Postgres, Role},
        testing::TestDatabase,
    };

    /// The message that a pool sends to test a connection.
    const SYNC: [u8; 5] = [b'S', 0, 0, 0, 4];

    #[test]
    fn a_connection_is_suspect_after_a_failure_elsewhere_or_a_long_idle_time() {
        let silence = Silence::new(Duration::from_secs(1));
        assert!(!silence.is_suspect(Duration::ZERO));
        assert!(silence.is_suspect(IDLE + Duration::from_secs(1)));
        while silence.now() == 0 {
            std::hint::spin_loop();
        }
        silence.record_failure();
        let failed = Duration::from_micros(silence.failed_at.load(Ordering::Relaxed));
        let since = silence.epoch.elapsed() - failed;
        assert!(silence.is_suspect(since + Duration::from_millis(1)));
        assert!(!silence.is_suspect(Duration::ZERO), "used afterwards");
    }

    /// Forwards everything except the messages that test a connection.
    async fn pass_on(mut client: tcp::OwnedReadHalf, mut server: tcp::OwnedWriteHalf) {
        let mut buffer = [0; 4096];
        while let Ok(length @ 1..) = client.read(&mut buffer).await {
            if buffer[..length] != SYNC && server.write_all(&buffer[..length]).await.is_err() {
                break;
            }
        }
    }

    /// Returns a URL of the server at `url` behind a proxy. Through it, connections die when they
    /// return to their pool.
    async fn forgetful(url: &str) -> String {
        let address = url.rsplit_once('@').unwrap().1.split('/').next().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let ours = listener.local_addr().unwrap().to_string();
        let (url, server) = (url.replacen(address, &ours, 1), address.to_owned());
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (receive, mut reply) = client.into_split();
                let (mut answers, send) = TcpStream::connect(&server).await.unwrap().into_split();
                tokio::spawn(pass_on(receive, send));
                tokio::spawn(async move { copy(&mut answers, &mut reply).await });
            }
        });
        url
    }

    #[tokio::test]
    async fn a_connection_that_dies_during_its_return_frees_its_pool_slot() {
        let database = TestDatabase::empty().await;
        let config = Database {
            max_connections: 1,
            timeout: Some(Duration::from_secs(10)),
            ..Database::default()
        };
        let url = forgetful(&database.url).await;
        let postgres = Postgres::new(&url, &config, Role::Api).unwrap();
        for _ in 0..2 {
            postgres.now().await.unwrap();
        }
    }
}

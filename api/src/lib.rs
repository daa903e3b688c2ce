//! The api: serves order lookups from a local cache, Redis and Postgres.
//!
//! ```text
//! http ─┬─▶ events ─┐
//!       └───────────┴▶ lookup ──▶ local_cache
//!                         ├─▶ shared::cache (Redis)
//!                         └─▶ shared::storage (Postgres)
//! announcements ──▶ invalidation ──▶ local_cache, then events
//! ```
//!
//! | module | responsibility |
//! |---|---|
//! | [`cli`] | commands |
//! | [`config`] | the api's own variables and their defaults |
//! | [`http`] | requests and responses; independent of SQL and Redis |
//! | [`lookup`] | order of the tiers, single-flight; independent of HTTP |
//! | [`events`] | streams of changes for watchers; independent of HTTP |
//! | [`answer`] | the state of an order, and what a caller may see of it |
//! | [`local_cache`] | the cache inside the process, its fence and its limits |
//! | [`invalidation`] | applies announcements to the local cache, then to the events |
//! | [`health`] | start, readiness, liveness |
//! | [`redis_health`] | whether the api may serve from Redis |
//! | [`auth`], [`rate_limit`] | which callers may read, and how often |
//! | [`access_log`] | which caller read which order |
//! | [`metrics`] | every metric of the api |
//! | [`trace`] | spans |
//! | [`web`] | the web page |

// `println!` panics if the reader of a pipe is gone; `runtime::output` does not.
#![warn(clippy::print_stdout, clippy::print_stderr)]

pub mod access_log;
pub mod answer;
pub mod auth;
pub mod cli;
pub mod config;
pub mod events;
pub mod health;
pub mod http;
pub mod invalidation;
pub mod local_cache;
pub mod lookup;
pub mod metrics;
pub mod rate_limit;
pub mod redis_health;
pub mod trace;
pub mod web;

use std::{io, sync::Arc, time::Duration};

use anyhow::anyhow;
use futures_util::future::{OptionFuture, join};
use prometheus::{IntGauge, Registry};
use shared::{
    cache::{Cache, MacKeys},
    runtime::{
        admin::Admin,
        descriptors,
        transport::{ConnectionMetrics, HttpServer, Limits},
    },
    storage::{Postgres, Role},
};
use tokio::{net::lookup_host, sync::watch, task::spawn_blocking, time::timeout};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use access_log::AccessLog;
use auth::Auth;
use config::Config;
use events::Events;
use health::Health;
use http::HttpService;
use local_cache::{LocalCache, Settings};
use lookup::{Lookup, Tiers};
use metrics::Metrics;
use redis_health::{Link, RedisHealth};

/// Maximum time to close the connections to Postgres. Nothing depends on them any more.
const CLOSE: Duration = Duration::from_secs(1);

/// The api with both ports bound, not serving yet.
pub struct App {
    server: HttpServer,
    service: HttpService,
    admin_port: u16,
    admin_stop: CancellationToken,
    health: Arc<Health>,
    local: Arc<LocalCache>,
    lookup: Lookup,
    postgres: Postgres,
    replica: Option<Postgres>,
    /// The shared cache, and the events that follow from its announcements; `None` if the caches
    /// are disabled.
    redis: Option<(Cache, Events)>,
    announcements_up: IntGauge,
    auth: Arc<Auth>,
    /// Changes when the key file is to be reread at once.
    hangup: watch::Receiver<()>,
    access_log: Option<AccessLog>,
    config: Config,
}

/// Creates the local cache, which stores nothing if the caches are disabled.
fn new_local_cache(config: &Config) -> LocalCache {
    LocalCache::new(Settings {
        max_bytes: if config.cache.enabled {
            config.local_cache.max_bytes
        } else {
            0
        },
        ttl: config.local_cache.ttl,
        negative_ttl: config.negative_cache.ttl,
    })
}

/// Creates the events of this replica, without watchers. Each stream takes a connection as long as
/// its client stays, so a quarter of the connections is reserved for short requests.
fn new_events(lookup: &Lookup, config: &Config, metrics: &Metrics, connections: usize) -> Events {
    let settings = events::Settings {
        watchers: connections / 4 * 3,
        staleness: config.local_cache.ttl,
    };
    Events::new(lookup.clone(), settings, metrics.events.clone())
}

/// Connections of the api to Redis: one for reads, one for writes, the subscription, the watermark,
/// and as many that replace them.
const REDIS_CONNECTIONS: usize = 8;

/// Returns the number of clients that may connect.
fn client_connections(config: &Config) -> anyhow::Result<usize> {
    let database = &config.database;
    let pools = if database.read_url.is_some() { 2 } else { 1 };
    descriptors::client_connections(database.max_connections as usize * pools + REDIS_CONNECTIONS)
}

/// Binds the public port.
async fn bind(
    config: &config::Api,
    connections: usize,
    registry: &Registry,
) -> anyhow::Result<HttpServer> {
    let addr = &config.addr;
    let per_address = config.max_connections_per_address as usize;
    let limits = Limits::public(connections, per_address);
    let metrics = ConnectionMetrics::register(registry, "public")?;
    HttpServer::bind(addr, limits, metrics)
        .await
        .map_err(|error| {
            anyhow!("API_ADDR: cannot listen on {addr}: {error}; write a free 0.0.0.0:PORT")
        })
}

impl App {
    /// Binds both ports and prepares everything that needs no other service.
    ///
    /// # Errors
    /// Returns an error that names the variable with an unusable value.
    pub async fn build(config: Config, registry: Registry) -> anyhow::Result<Self> {
        let connections = client_connections(&config)?;
        let metrics = Metrics::register(&registry)?;
        let auth = Arc::new(Auth::new(&config.api, &metrics.access, &metrics.oidc)?);
        let enabled = config.cache.enabled;
        let local = Arc::new(new_local_cache(&config));
        let mac_keys = MacKeys::of(&config.cache)?;
        let redis = enabled.then(|| Cache::shared(&config.redis)).transpose()?;
        let redis = redis.map(|redis| redis.with_mac_keys(mac_keys));
        let database = &config.database;
        let postgres = Postgres::new(&database.url, database, Role::Api)?;
        let replica = Postgres::replica(database, Role::Api)?;
        let health = Arc::new(Health::new(
            local.clone(),
            enabled,
            replica.is_some(),
            auth.oidc(),
        ));
        let tiers = Tiers {
            local: local.clone(),
            redis: redis.clone(),
            postgres: postgres.clone(),
            health: health.postgres(),
            replica: replica.clone().zip(health.replica()),
        };
        let lookup = Lookup::new(tiers, metrics.cache.clone());
        let redis = redis.map(|redis| (redis, new_events(&lookup, &config, &metrics, connections)));
        let events = redis.as_ref().map(|(_, events)| events.clone());
        let server = bind(&config.api, connections, &registry).await?;
        auth.allow_anonymous(&config.api, is_loopback(&config.api.addr).await)?;
        let access_log = start_access_log(&config.api, &auth, &metrics)?;
        let access = (auth.clone(), access_log.clone());
        let service = HttpService::new(&config.api, access, lookup.clone(), events, &metrics)?;
        let admin = Admin::new(&health, Health::live, Health::ready, registry);
        let admin_stop = CancellationToken::new();
        let admin_port = admin.serve(&config.admin.addr, admin_stop.clone()).await?;
        Ok(Self {
            server,
            service,
            admin_port,
            admin_stop,
            health,
            local,
            lookup,
            postgres,
            replica,
            redis,
            announcements_up: metrics.cache.announcements_up.clone(),
            auth,
            hangup: watch::channel(()).1,
            access_log,
            config,
        })
    }

    /// The public port in use; not 0, even if the address has port 0.
    pub fn port(&self) -> u16 {
        self.server.port()
    }

    /// The admin port in use; not 0, even if the address has port 0.
    pub fn admin_port(&self) -> u16 {
        self.admin_port
    }

    /// Rereads the key file at once when `hangup` changes.
    #[must_use]
    pub fn reread_on(mut self, hangup: watch::Receiver<()>) -> Self {
        self.hangup = hangup;
        self
    }

    /// Serves until `shutdown`. Then reports not ready, ends event streams, stops accepting
    /// connections, drains requests in flight (at most 10 seconds), stops the background tasks,
    /// writes the end of the access log and closes the connections to Postgres and its replica.
    pub async fn run_until_stopped(self, shutdown: CancellationToken) {
        let background = CancellationToken::new();
        let tasks = self.spawn_background(&background);
        tokio::spawn({
            let (health, shutdown) = (self.health.clone(), shutdown.clone());
            let events = self.redis.as_ref().map(|(_, events)| events.clone());
            async move {
                shutdown.cancelled().await;
                health.stop();
                if let Some(events) = events {
                    events.close();
                }
            }
        });
        self.server.serve(self.service, shutdown).await;
        self.health.stop();
        background.cancel();
        tasks.wait().await;
        if let Some(log) = self.access_log {
            // A task that panics has logged it.
            let _ = spawn_blocking(move || log.close()).await;
        }
        self.admin_stop.cancel();
        let replica = self.replica.as_ref().map(Postgres::close);
        let closed = join(self.postgres.close(), OptionFuture::from(replica));
        if timeout(CLOSE, closed).await.is_err() {
            tracing::debug!(limit = ?CLOSE, "connections to Postgres still open at exit");
        }
    }

    fn spawn_background(&self, stop: &CancellationToken) -> TaskTracker {
        let tasks = TaskTracker::new();
        let (tried, subscription_tried) = watch::channel(self.redis.is_none());
        let (link, links) = watch::channel(Link::default());
        if let Some((_, events)) = &self.redis {
            let listener = invalidation::Listener {
                local: self.local.clone(),
                events: events.clone(),
                redis: self.config.redis.clone(),
                up: self.announcements_up.clone(),
                tried,
                links,
            };
            tasks.spawn(stop.clone().run_until_cancelled_owned(listener.run()));
            tasks.spawn(stop.clone().run_until_cancelled_owned(events.clone().run()));
        }
        tasks.spawn({
            let (auth, hangup) = (self.auth.clone(), self.hangup.clone());
            stop.clone()
                .run_until_cancelled_owned(async move { auth.watch(hangup).await })
        });
        let redis_health = self.redis.clone().zip(self.health.redis());
        let redis_health = redis_health.map(|((redis, events), health)| {
            RedisHealth::new(redis, health, self.lookup.clone(), events, link)
        });
        let watch = health::watch(self.health.clone(), self.postgres.clone(), redis_health);
        tasks.spawn(stop.clone().run_until_cancelled_owned(watch));
        if let Some((replica, health)) = self.replica.clone().zip(self.health.replica()) {
            let watch = health::watch_replica(replica, health);
            tasks.spawn(stop.clone().run_until_cancelled_owned(watch));
        }
        if let Some(oidc) = self.auth.oidc() {
            let run = async move { oidc.run().await };
            tasks.spawn(stop.clone().run_until_cancelled_owned(run));
        }
        // Without Redis the caches are disabled, so a warm-up would load orders that are not kept.
        let warmup = if self.redis.is_some() {
            self.config.cache.warmup
        } else {
            0
        };
        let start = health::start(
            self.health.clone(),
            self.lookup.clone(),
            self.postgres.clone(),
            subscription_tried,
            warmup,
        );
        tasks.spawn(stop.clone().run_until_cancelled_owned(start));
        tasks.close();
        tasks
    }
}

/// Returns whether `addr` is reachable only from this machine.
async fn is_loopback(addr: &str) -> bool {
    let addresses = lookup_host(addr).await;
    addresses.is_ok_and(|mut all| all.all(|one| one.ip().to_canonical().is_loopback()))
}

/// Starts the access log: as the operator says, else where callers have credentials.
fn start_access_log(
    config: &config::Api,
    auth: &Auth,
    metrics: &Metrics,
) -> io::Result<Option<AccessLog>> {
    let is_on = config.access_log.unwrap_or(auth.is_on());
    let dropped = metrics.access.log_dropped.clone();
    is_on
        .then(|| AccessLog::start(io::stderr(), dropped))
        .transpose()
}

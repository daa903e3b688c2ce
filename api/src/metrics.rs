//! All metrics of the api.
//!
//! They use the registry behind `/metrics` directly, without OpenTelemetry. The api counts them for
//! each request, and a handle kept per label set costs a quarter of an instrument that looks up
//! attributes.

mod access;

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry,
};
use shared::telemetry::metrics::LATENCY_SECONDS;
use strum::{IntoStaticStr, VariantNames};

pub use access::AccessFamilies;

/// Handles of all metrics. Clones share them.
#[derive(Clone)]
pub struct Metrics {
    /// Metrics of the public port, without series yet.
    pub http: HttpFamilies,
    /// Metrics of the cache tiers.
    pub cache: Arc<CacheMetrics>,
    /// Metrics of event streams.
    pub events: Arc<EventMetrics>,
    /// Metrics of callers and of the access log.
    pub access: AccessFamilies,
    /// Metrics of OpenID Connect.
    pub oidc: OidcMetrics,
}

impl Metrics {
    /// Registers all metrics, at zero.
    ///
    /// # Errors
    /// Returns an error if one of them is registered already.
    pub fn register(registry: &Registry) -> prometheus::Result<Self> {
        Ok(Self {
            http: HttpFamilies::register(registry)?,
            cache: Arc::new(CacheMetrics::register(registry)?),
            events: Arc::new(EventMetrics::register(registry)?),
            access: AccessFamilies::register(registry)?,
            oidc: OidcMetrics::register(registry)?,
        })
    }
}

/// `http_requests_total` and `http_request_duration_seconds`. [`HttpMetrics`] records them.
#[derive(Clone)]
pub struct HttpFamilies {
    requests: IntCounterVec,
    durations: HistogramVec,
}

/// Series of [`HttpFamilies`] for each route.
pub struct HttpMetrics {
    requests: IntCounterVec,
    /// Values of the label `method`. Any other method counts as [`OTHER`].
    methods: Vec<&'static str>,
    routes: Vec<RouteMetrics>,
}

/// Method and path template of a route.
pub type Series = (&'static str, &'static str);

struct RouteMetrics {
    template: &'static str,
    duration: Histogram,
    /// One slot for each pair of a method and one of [`STATUSES`], filled by the first such
    /// request.
    requests: Vec<OnceLock<IntCounter>>,
}

/// Methods that every route may be requested with.
const METHODS: [&str; 3] = ["GET", "HEAD", "OPTIONS"];

/// Any other method, because a client may send any.
const OTHER: &str = "other";

/// Statuses with a cached counter. The counter of any other status is looked up each time.
const STATUSES: [u16; 12] = [200, 204, 304, 400, 401, 403, 404, 405, 410, 429, 500, 503];

impl HttpFamilies {
    fn register(registry: &Registry) -> prometheus::Result<Self> {
        let requests = IntCounterVec::new(
            Opts::new("http_requests_total", "Responses sent on the public port"),
            &["method", "route", "status"],
        )?;
        let durations = HistogramVec::new(
            HistogramOpts::new(
                "http_request_duration_seconds",
                "Time from the head of a request to the head of its response",
            )
            .buckets(LATENCY_SECONDS.to_vec()),
            &["route"],
        )?;
        registry.register(Box::new(requests.clone()))?;
        registry.register(Box::new(durations.clone()))?;
        Ok(Self {
            requests,
            durations,
        })
    }
}

impl HttpMetrics {
    /// Creates the series of `routes`. [`HttpMetrics::record`] takes an index into this list. For
    /// the method of each route, the series of status 200 and of each of `failures` exist from the
    /// start.
    pub fn new(families: &HttpFamilies, routes: &[Series], failures: &[u16]) -> Self {
        let HttpFamilies {
            requests,
            durations,
        } = families;
        let mut methods = METHODS.to_vec();
        for (method, _) in routes {
            if !methods.contains(method) {
                methods.push(method);
            }
        }
        methods.push(OTHER);
        let slots = methods.len() * STATUSES.len();
        let routes = routes.iter().map(|(method, template)| {
            for status in failures.iter().chain(&[200]) {
                requests.with_label_values(&[*method, template, status.to_string().as_str()]);
            }
            RouteMetrics {
                template,
                duration: durations.with_label_values(&[template]),
                requests: (0..slots).map(|_| OnceLock::new()).collect(),
            }
        });
        Self {
            requests: requests.clone(),
            routes: routes.collect(),
            methods,
        }
    }

    /// Counts one response of the route with the index `route`.
    pub fn record(&self, route: usize, method: &str, status: u16, took: Duration) {
        let Some(route) = self.routes.get(route) else {
            return;
        };
        route.duration.observe(took.as_secs_f64());
        let method = self
            .methods
            .iter()
            .position(|known| *known == method)
            .unwrap_or(self.methods.len() - 1);
        let counter = |status: u16| {
            self.requests.with_label_values(&[
                self.methods[method],
                route.template,
                status.to_string().as_str(),
            ])
        };
        match STATUSES.iter().position(|known| *known == status) {
            Some(place) => route.requests[method * STATUSES.len() + place]
                .get_or_init(|| counter(status))
                .inc(),
            None => counter(status).inc(),
        }
    }
}

/// `cache_requests_total`, `cache_announcements_up`, and `cache_operation_duration_seconds` of the
/// local cache. The Redis client in `shared` records the durations of Redis.
pub struct CacheMetrics {
    local: Box<[IntCounter]>,
    redis: Box<[IntCounter]>,
    /// Time of one read of the local cache.
    pub local_get: Histogram,
    /// 1 while the api receives announcements of changed orders, else 0.
    pub announcements_up: IntGauge,
}

/// Result of a read of the local cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq, VariantNames)]
#[strum(serialize_all = "snake_case")]
pub enum LocalResult {
    /// An order, or an erased one.
    Hit,
    /// No entry.
    Miss,
    /// A negative entry: the order does not exist.
    Negative,
}

/// Result of a read of Redis.
#[derive(Clone, Copy, Debug, PartialEq, Eq, VariantNames)]
#[strum(serialize_all = "snake_case")]
pub enum RedisResult {
    /// An order, or an erased one.
    Hit,
    /// No entry.
    Miss,
    /// Something other than an entry of ours for this order.
    Corrupt,
    /// An entry without a right MAC.
    Unverified,
    /// Redis did not answer in time, or rejected the command.
    Error,
    /// Redis was not read: disabled, under repair, or failing.
    Bypass,
}

impl CacheMetrics {
    fn register(registry: &Registry) -> prometheus::Result<Self> {
        let requests = IntCounterVec::new(
            Opts::new("cache_requests_total", "Lookups in a cache tier, by result"),
            &["tier", "result"],
        )?;
        registry.register(Box::new(requests.clone()))?;
        let durations = HistogramVec::new(
            HistogramOpts::new(
                "cache_operation_duration_seconds",
                "Time of one operation on a cache tier",
            )
            .buckets(LATENCY_SECONDS.to_vec()),
            &["operation", "tier"],
        )?;
        registry.register(Box::new(durations.clone()))?;
        let announcements_up = IntGauge::new(
            "cache_announcements_up",
            "1 while subscribed to announcements of changed orders, else 0; \
             the local cache then keeps entries for at most 1 s",
        )?;
        registry.register(Box::new(announcements_up.clone()))?;
        let counters = |tier, results: &[&str]| {
            let counter = |result: &&str| requests.with_label_values(&[tier, *result]);
            results.iter().map(counter).collect()
        };
        Ok(Self {
            announcements_up,
            local: counters("local", LocalResult::VARIANTS),
            redis: counters("redis", RedisResult::VARIANTS),
            local_get: durations.with_label_values(&["get", "local"]),
        })
    }

    /// Counts a read of the local cache.
    pub fn local(&self, result: LocalResult) {
        self.local[result as usize].inc();
    }

    /// Counts a read of Redis, or a bypass.
    pub fn redis(&self, result: RedisResult) {
        self.redis[result as usize].inc();
    }
}

/// `event_watchers`, `events_sent_total` and `event_watchers_slow_total`.
pub struct EventMetrics {
    watchers: Box<[IntGauge]>,
    sent: Box<[IntCounter]>,
    slow: IntCounter,
}

/// What a watcher watches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, VariantNames)]
#[strum(serialize_all = "snake_case")]
pub enum StreamKind {
    /// One order.
    Order,
    /// All orders.
    Orders,
}

/// Name of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, VariantNames)]
#[strum(serialize_all = "snake_case")]
pub enum EventKind {
    /// The current document of a watched order.
    Order,
    /// A watched order was erased.
    Erased,
    /// Some order changed.
    Change,
    /// Changes may have been missed.
    Reset,
}

impl EventMetrics {
    fn register(registry: &Registry) -> prometheus::Result<Self> {
        let watchers = IntGaugeVec::new(
            Opts::new("event_watchers", "Open event streams"),
            &["stream"],
        )?;
        registry.register(Box::new(watchers.clone()))?;
        let sent = IntCounterVec::new(
            Opts::new(
                "events_sent_total",
                "Events sent to watchers; an event counts once for each of them",
            ),
            &["event"],
        )?;
        registry.register(Box::new(sent.clone()))?;
        let slow = IntCounter::new(
            "event_watchers_slow_total",
            "Event streams ended because the client fell behind the buffer",
        )?;
        registry.register(Box::new(slow.clone()))?;
        let gauge = |stream: &&str| watchers.with_label_values(&[*stream]);
        let counter = |event: &&str| sent.with_label_values(&[*event]);
        Ok(Self {
            watchers: StreamKind::VARIANTS.iter().map(gauge).collect(),
            sent: EventKind::VARIANTS.iter().map(counter).collect(),
            slow,
        })
    }

    /// Number of watchers of one kind of stream.
    pub fn watchers(&self, stream: StreamKind) -> &IntGauge {
        &self.watchers[stream as usize]
    }

    /// Counts events that were sent to one watcher.
    pub fn sent(&self, event: EventKind, count: u32) {
        self.sent[event as usize].inc_by(count.into());
    }

    /// Counts a stream that ended because its client was too slow.
    pub fn slow(&self) {
        self.slow.inc();
    }

    /// Number of streams that ended because their clients were too slow.
    #[cfg(test)]
    pub(crate) fn slow_watchers(&self) -> u64 {
        self.slow.get()
    }
}

/// Reason why a token is rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoStaticStr, VariantNames)]
#[strum(serialize_all = "snake_case")]
pub enum TokenRejection {
    /// The token is not a signed JWT within our limits, or a claim has an unusable value.
    Malformed,
    /// The algorithm is not RS256, ES256 or EdDSA.
    Algorithm,
    /// The token is of another issuer.
    Issuer,
    /// The token is for another audience.
    Audience,
    /// The token has expired.
    Expired,
    /// `nbf` or `iat` is in the future.
    NotYetValid,
    /// The issuer does not publish the key that the token names.
    UnknownKey,
    /// The signature is wrong.
    Signature,
}

/// `oidc_rejected_tokens_total`.
#[derive(Clone)]
pub struct OidcMetrics {
    rejected: Arc<[IntCounter]>,
}

impl OidcMetrics {
    /// Registers the counters, at zero.
    ///
    /// # Errors
    /// Returns an error if they are registered already.
    pub fn register(registry: &Registry) -> prometheus::Result<Self> {
        let rejected = IntCounterVec::new(
            Opts::new(
                "oidc_rejected_tokens_total",
                "Tokens that are no valid ones of the OpenID Connect issuer, by the first reason",
            ),
            &["reason"],
        )?;
        registry.register(Box::new(rejected.clone()))?;
        let counter = |reason: &&str| rejected.with_label_values(&[*reason]);
        Ok(Self {
            rejected: TokenRejection::VARIANTS.iter().map(counter).collect(),
        })
    }

    /// Counts a rejected token.
    pub fn rejected(&self, reason: TokenRejection) {
        self.rejected[reason as usize].inc();
    }
}

#[cfg(test)]
mod tests {
    use shared::telemetry::metrics::render;

    use super::*;

    #[test]
    fn counters_start_at_zero() {
        let registry = Registry::new();
        let metrics = Metrics::register(&registry).unwrap();
        let http = HttpMetrics::new(
            &metrics.http,
            &[
                ("GET", "/order/{order_uid}"),
                ("GET", "/orders"),
                ("POST", "/batch"),
            ],
            &[503],
        );
        let text = || String::from_utf8(render(&registry).unwrap()).unwrap();
        for line in [
            r#"http_requests_total{method="GET",route="/order/{order_uid}",status="200"} 0"#,
            r#"http_requests_total{method="GET",route="/orders",status="503"} 0"#,
            r#"http_requests_total{method="POST",route="/batch",status="503"} 0"#,
            r#"http_request_duration_seconds_count{route="/orders"} 0"#,
            r#"cache_requests_total{result="negative",tier="local"} 0"#,
            r#"cache_requests_total{result="bypass",tier="redis"} 0"#,
            "cache_announcements_up 0",
            r#"cache_operation_duration_seconds_count{operation="get",tier="local"} 0"#,
            r#"event_watchers{stream="orders"} 0"#,
            r#"events_sent_total{event="change"} 0"#,
            "event_watchers_slow_total 0",
        ] {
            assert!(text().contains(line), "{line} is not in\n{}", text());
        }
        http.record(1, "GET", 200, Duration::from_millis(3));
        http.record(1, "BREW", 418, Duration::from_millis(3));
        http.record(2, "POST", 200, Duration::from_millis(3));
        metrics.cache.local(LocalResult::Negative);
        metrics.cache.redis(RedisResult::Bypass);
        for line in [
            r#"http_requests_total{method="GET",route="/orders",status="200"} 1"#,
            r#"http_requests_total{method="other",route="/orders",status="418"} 1"#,
            r#"http_requests_total{method="POST",route="/batch",status="200"} 1"#,
            r#"http_request_duration_seconds_count{route="/orders"} 2"#,
            r#"cache_requests_total{result="negative",tier="local"} 1"#,
            r#"cache_requests_total{result="bypass",tier="redis"} 1"#,
        ] {
            assert!(text().contains(line), "{line} is not in\n{}", text());
        }
    }
}

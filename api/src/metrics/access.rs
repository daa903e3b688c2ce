//! Metrics of callers and of the access log.

use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};

/// Metrics of callers, without series yet, and of the access log.
/// [`Usage`](crate::auth::Usage) creates the series of each key.
#[derive(Clone)]
pub struct AccessFamilies {
    /// `api_key_requests_total`.
    pub requests: IntCounterVec,
    /// `api_key_distinct_orders`.
    pub distinct_orders: IntGaugeVec,
    /// `api_keys_file_broken`.
    pub keys_broken: IntGauge,
    /// `access_log_dropped_total`.
    pub log_dropped: IntCounter,
}

impl AccessFamilies {
    /// Registers the metrics.
    ///
    /// # Errors
    /// Returns an error if one of them is registered already.
    pub fn register(registry: &Registry) -> prometheus::Result<Self> {
        let requests = IntCounterVec::new(
            Opts::new(
                "api_key_requests_total",
                "Responses to requests that need a caller, by the name of its key; \
                 `none` without a valid token, `oidc` for all tokens of OpenID Connect",
            ),
            &["key", "status"],
        )?;
        let distinct_orders = IntGaugeVec::new(
            Opts::new(
                "api_key_distinct_orders",
                "Estimate of how many different orders a caller requested or was sent in the last \
                 5 to 10 minutes, without exports; for `oidc` the caller with the most",
            ),
            &["key"],
        )?;
        let keys_broken = IntGauge::new(
            "api_keys_file_broken",
            "1 while the key file is missing or malformed and earlier keys stay valid, else 0",
        )?;
        let log_dropped = IntCounter::new(
            "access_log_dropped_total",
            "Lines that the access log lacks, because they were not read from standard error in \
             time",
        )?;
        registry.register(Box::new(requests.clone()))?;
        registry.register(Box::new(distinct_orders.clone()))?;
        registry.register(Box::new(keys_broken.clone()))?;
        registry.register(Box::new(log_dropped.clone()))?;
        Ok(Self {
            requests,
            distinct_orders,
            keys_broken,
            log_dropped,
        })
    }
}

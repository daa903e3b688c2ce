//! How long Redis takes.

use std::time::Duration;

use opentelemetry::{
    KeyValue,
    metrics::{BoundHistogram, Histogram},
};

use crate::telemetry::metrics::{LATENCY_SECONDS, meter};

/// The operation that every read of the api makes.
pub(super) const GET: &str = "get";

/// `cache_operation_duration_seconds` of Redis.
pub(super) struct Durations {
    all: Histogram<f64>,
    /// Its labels are looked up once and not at every read.
    get: BoundHistogram<f64>,
}

impl Durations {
    pub(super) fn new() -> Self {
        let all = meter()
            .f64_histogram("cache_operation_duration_seconds")
            .with_description("Time of one operation on a cache tier")
            .with_boundaries(LATENCY_SECONDS.to_vec())
            .build();
        Self {
            get: all.bind(&labels(GET)),
            all,
        }
    }

    /// Records that `operation` took so long, whether it succeeded or not.
    pub(super) fn record(&self, operation: &'static str, took: Duration) {
        let seconds = took.as_secs_f64();
        match operation {
            GET => self.get.record(seconds),
            _ => self.all.record(seconds, &labels(operation)),
        }
    }
}

fn labels(operation: &'static str) -> [KeyValue; 2] {
    [
        KeyValue::new("tier", "redis"),
        KeyValue::new("operation", operation),
    ]
}

//! Durations of Redis operations.

use std::time::Duration;

use opentelemetry::{
    KeyValue,
    metrics::{BoundHistogram, Histogram},
};

use crate::telemetry::metrics::{LATENCY_SECONDS, meter};

/// Name of the operation that every read of the api runs.
pub(super) const GET: &str = "get";

/// The histogram `cache_operation_duration_seconds` for the tier `redis`.
pub(super) struct Durations {
    all: Histogram<f64>,
    /// The series of `get`, whose labels are looked up once instead of at every read.
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

    /// Records how long `operation` took, whether it succeeded or not.
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

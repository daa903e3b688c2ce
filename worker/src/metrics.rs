//! The worker's metrics.

use std::time::Duration;

use opentelemetry::{
    KeyValue,
    metrics::{Counter, Gauge, Histogram},
};
use shared::{
    order::Reason,
    telemetry::metrics::{LATENCY_SECONDS, meter},
};
use strum::{EnumIter, IntoEnumIterator, IntoStaticStr};

/// The outcome of a record.
#[derive(Clone, Copy, Debug, EnumIter, IntoStaticStr, PartialEq, Eq)]
#[strum(serialize_all = "snake_case")]
pub enum Outcome {
    /// It is now the newest version of its order.
    Stored,
    /// It erased its order.
    Erased,
    /// It lost to the same or a newer version.
    Stale,
    /// Rejected for its size, time, encoding or a rule of a field.
    Invalid,
    /// Rejected by Postgres.
    Failed,
}

impl Outcome {
    /// Returns its name in metrics and spans.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// The result of comparing an order in Postgres and Redis.
#[derive(Clone, Copy, Debug, EnumIter, IntoStaticStr, PartialEq, Eq)]
#[strum(serialize_all = "snake_case")]
pub enum CheckResult {
    /// The entry holds what Postgres holds.
    Consistent,
    /// Redis has no entry. That is normal: entries expire and are evicted.
    Missing,
    /// Redis differs, and the system knows that: a repair is pending.
    Pending,
    /// The entry has no right MAC, so no reader uses it.
    Unverified,
    /// The entry is older than the row.
    Stale,
    /// The entry is newer than the row.
    Ahead,
    /// The entry has the version of the row and another document.
    Different,
    /// Redis has an entry, and Postgres has no row.
    Orphaned,
    /// The key of the entry holds something else.
    Foreign,
    /// The rows in the four tables are not one order.
    Incomplete,
}

impl CheckResult {
    /// Returns its name in metrics, logs and output.
    pub fn as_str(self) -> &'static str {
        self.into()
    }

    /// Returns whether the tiers differ, and no pending repair explains it.
    pub fn is_difference(self) -> bool {
        match self {
            Self::Consistent | Self::Missing | Self::Pending | Self::Unverified => false,
            Self::Stale
            | Self::Ahead
            | Self::Different
            | Self::Orphaned
            | Self::Foreign
            | Self::Incomplete => true,
        }
    }
}

/// Codes of `worker_fetch_errors_total` that start at zero: an outage, and batches that no retry
/// can read. Other codes appear with their first error.
const FETCH_ERRORS: [&str; 4] = [
    "AllBrokersDown",
    "BadCompression",
    "BrokerTransportFailure",
    "InvalidMessage",
];

/// A stage of a batch, whose time is measured.
#[derive(Clone, Copy, Debug, IntoStaticStr, PartialEq, Eq)]
#[strum(serialize_all = "snake_case")]
pub enum BatchStage {
    /// Lookup, write and COMMIT in Postgres, including retries.
    Persist,
    /// Compare-and-set in Redis, including repair marks.
    WriteThrough,
    /// Sending to the dead letter topic, including retries.
    DeadLetter,
}

/// The instruments. Clones share them.
#[derive(Clone)]
pub struct Metrics {
    messages: Counter<u64>,
    dead_letters: Counter<u64>,
    unknown_fields: Counter<u64>,
    clock_steps: Counter<u64>,
    offset_gap: Counter<u64>,
    went_back: Counter<u64>,
    fetch_errors: Counter<u64>,
    unreadable: Gauge<u64>,
    batch_size: Histogram<u64>,
    batch_duration: Histogram<f64>,
    end_to_end: Histogram<f64>,
    visibility: Histogram<f64>,
    lag: Gauge<i64>,
    stored_offset: Gauge<i64>,
    repair_age: Gauge<f64>,
    consistency: Counter<u64>,
}

impl Metrics {
    /// Creates the instruments; counters start at zero.
    #[expect(clippy::too_many_lines, reason = "a table of instruments")]
    pub fn new() -> Self {
        let meter = meter();
        let metrics = Self {
            messages: meter
                .u64_counter("worker_messages_total")
                .with_description("Finished records, by outcome")
                .build(),
            dead_letters: meter
                .u64_counter("dead_letter_messages_total")
                .with_description("Records that the dead letter topic acknowledged, by reason")
                .build(),
            unknown_fields: meter
                .u64_counter("worker_unknown_fields_total")
                .with_description("Ignored fields that an order does not have")
                .build(),
            clock_steps: meter
                .u64_counter("worker_clock_steps_total")
                .with_description("Records that lost to a lower offset: a clock stepped back")
                .build(),
            offset_gap: meter
                .u64_counter("worker_offset_gap_records_total")
                .with_description("Records that Kafka deleted before the group read them")
                .build(),
            went_back: meter
                .u64_counter("worker_partition_went_back_total")
                .with_description("Restarts of partitions that were recreated or truncated")
                .build(),
            fetch_errors: meter
                .u64_counter("worker_fetch_errors_total")
                .with_description("Fetch errors of Kafka, by librdkafka's error code")
                .build(),
            unreadable: meter
                .u64_gauge("worker_partition_unreadable")
                .with_description("1 while a partition cannot be read although brokers answer")
                .build(),
            batch_size: meter
                .u64_histogram("worker_batch_size")
                .with_description("Records in one batch")
                .with_boundaries(vec![
                    1.0, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1000.0, 2000.0,
                ])
                .build(),
            batch_duration: meter
                .f64_histogram("worker_batch_duration_seconds")
                .with_description("Duration of one stage of a batch")
                .with_boundaries(LATENCY_SECONDS.to_vec())
                .build(),
            end_to_end: meter
                .f64_histogram("worker_end_to_end_latency_seconds")
                .with_description("Time from the timestamp of a record to the end of its writes")
                .with_boundaries(
                    LATENCY_SECONDS
                        .iter()
                        .copied()
                        .chain([30.0, 60.0, 300.0, 1800.0])
                        .collect(),
                )
                .build(),
            visibility: meter
                .f64_histogram("worker_visibility_delay_seconds")
                .with_description("Time from COMMIT until Redis has the change, or a repair mark")
                .with_boundaries(LATENCY_SECONDS.to_vec())
                .build(),
            lag: meter
                .i64_gauge("worker_consumer_lag")
                .with_description("Unfinished records of an assigned partition")
                .build(),
            stored_offset: meter
                .i64_gauge("worker_stored_offset")
                .with_description("Next offset to read after a restart; lower ones are finished")
                .build(),
            repair_age: meter
                .f64_gauge("worker_cache_repair_age_seconds")
                .with_description("Age of the oldest repair mark; 0 without marks")
                .build(),
            consistency: meter
                .u64_counter("consistency_checks_total")
                .with_description("Random orders compared in Postgres and Redis, by result")
                .build(),
        };
        Outcome::iter().for_each(|outcome| metrics.finished(outcome, 0));
        Reason::ALL
            .into_iter()
            .for_each(|reason| metrics.dead_lettered(reason, 0));
        CheckResult::iter().for_each(|result| metrics.compared(result, 0));
        metrics.unknown_fields(0);
        metrics.clock_stepped_back(0);
        metrics.offset_gap(0);
        FETCH_ERRORS
            .into_iter()
            .for_each(|code| metrics.count_fetch_errors(code, 0));
        metrics
    }

    /// Counts finished records.
    pub fn finished(&self, outcome: Outcome, count: u64) {
        self.messages
            .add(count, &[KeyValue::new("outcome", outcome.as_str())]);
    }

    /// Counts records that the dead letter topic acknowledged.
    pub fn dead_lettered(&self, reason: Reason, count: u64) {
        self.dead_letters
            .add(count, &[KeyValue::new("reason", reason.as_str())]);
    }

    /// Counts ignored fields.
    pub fn unknown_fields(&self, count: u64) {
        self.unknown_fields.add(count, &[]);
    }

    /// Counts records that lost to a version with a lower offset in their own partition.
    pub fn clock_stepped_back(&self, count: u64) {
        self.clock_steps.add(count, &[]);
    }

    /// Counts records that Kafka deleted before they were read.
    pub fn offset_gap(&self, count: u64) {
        self.offset_gap.add(count, &[]);
    }

    /// Counts the times that a partition turned out to have another log and was read from its
    /// beginning.
    pub fn partition_went_back(&self, partition: i32, times: u64) {
        self.went_back
            .add(times, &[KeyValue::new("partition", i64::from(partition))]);
    }

    /// Counts an error while reading from Kafka.
    pub fn fetch_error(&self, code: &str) {
        self.count_fetch_errors(code, 1);
    }

    fn count_fetch_errors(&self, code: &str, count: u64) {
        self.fetch_errors
            .add(count, &[KeyValue::new("code", code.to_owned())]);
    }

    /// Sets whether a partition cannot be read although brokers answer.
    pub fn unreadable(&self, partition: i32, unreadable: bool) {
        self.unreadable.record(
            u64::from(unreadable),
            &[KeyValue::new("partition", i64::from(partition))],
        );
    }

    /// Records the size of a batch.
    pub fn batch(&self, records: usize) {
        self.batch_size.record(records as u64, &[]);
    }

    /// Records the time of a batch in one stage.
    pub fn stage(&self, stage: BatchStage, duration: Duration) {
        self.batch_duration.record(
            duration.as_secs_f64(),
            &[KeyValue::new("stage", <&str>::from(stage))],
        );
    }

    /// Records the time from a record's timestamp to its finished write, in seconds.
    pub fn end_to_end(&self, seconds: f64) {
        self.end_to_end.record(seconds, &[]);
    }

    /// Records the time from a COMMIT until every reader gets what it changed.
    pub fn visible(&self, delay: Duration) {
        self.visibility.record(delay.as_secs_f64(), &[]);
    }

    /// Sets how long Redis may have lacked a change.
    pub fn repair_age(&self, age: Duration) {
        self.repair_age.record(age.as_secs_f64(), &[]);
    }

    /// Counts orders that the worker compared in Postgres and Redis.
    pub fn compared(&self, result: CheckResult, orders: u64) {
        self.consistency
            .add(orders, &[KeyValue::new("result", result.as_str())]);
    }

    /// Exports the current waits of the pipeline at each scrape. `counts` returns each reason to
    /// wait and the number of its current waits.
    pub fn show_waits<C>(&self, counts: impl Fn() -> C + Send + Sync + 'static)
    where
        C: IntoIterator<Item = (&'static str, usize)>,
    {
        // The meter keeps the instrument; the handle is not needed.
        let _registered = meter()
            .u64_observable_gauge("worker_waiting")
            .with_description("Waiting batches, by reason")
            .with_callback(move |observer| {
                for (reason, count) in counts() {
                    observer.observe(count as u64, &[KeyValue::new("reason", reason)]);
                }
            })
            .build();
    }

    /// Sets the frontier of one partition.
    pub fn stored_offset(&self, partition: i32, offset: i64) {
        self.stored_offset
            .record(offset, &[KeyValue::new("partition", i64::from(partition))]);
    }

    /// Sets the lag of one partition.
    pub fn lag(&self, partition: i32, lag: i64) {
        self.lag
            .record(lag, &[KeyValue::new("partition", i64::from(partition))]);
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

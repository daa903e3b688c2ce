//! Spans of the records whose producer asked for a trace. They are made when the batch is done, from its times, so that
//! a batch without traced records pays nothing.

use std::time::SystemTime;

use opentelemetry::{
    Context, KeyValue,
    trace::{Span, SpanKind, TraceContextExt, Tracer},
};
use shared::telemetry::traces;

use crate::kafka::Record;

/// The times of one batch, and who wants to know them.
pub(super) struct BatchTrace {
    traced: Vec<Traced>,
    began: SystemTime,
    persisted: SystemTime,
    written_through: SystemTime,
}

struct Traced {
    parent: Context,
    partition: i32,
    offset: i64,
}

impl BatchTrace {
    pub(super) fn begin<'a>(records: impl Iterator<Item = &'a Record>) -> Self {
        let now = SystemTime::now();
        let traced = match traces::enabled() {
            false => Vec::new(),
            true => records
                .filter_map(|record| {
                    let header = std::str::from_utf8(record.header(traces::TRACEPARENT)?).ok()?;
                    let parent = traces::sampled_parent(header)?;
                    Some(Traced {
                        parent,
                        partition: record.partition,
                        offset: record.offset,
                    })
                })
                .collect(),
        };
        Self {
            traced,
            began: now,
            persisted: now,
            written_through: now,
        }
    }

    /// When Postgres, and when Redis had everything.
    pub(super) fn stored(&mut self, persisted: SystemTime, written_through: SystemTime) {
        (self.persisted, self.written_through) = (persisted, written_through);
    }

    /// Hands the spans out: one for the record, below it one for Postgres and one for Redis.
    pub(super) fn finished(self) {
        if self.traced.is_empty() {
            return;
        }
        let (tracer, end) = (traces::tracer(), SystemTime::now());
        let span = |name: &'static str, kind, from, attributes, parent: &Context| {
            tracer
                .span_builder(name)
                .with_kind(kind)
                .with_start_time(from)
                .with_attributes::<Vec<KeyValue>>(attributes)
                .start_with_context(&tracer, parent)
        };
        for traced in &self.traced {
            let attributes = vec![
                KeyValue::new("messaging.system", "kafka"),
                KeyValue::new(
                    "messaging.destination.partition.id",
                    traced.partition.to_string(),
                ),
                KeyValue::new("messaging.kafka.offset", traced.offset),
            ];
            let process = span(
                "orders process",
                SpanKind::Consumer,
                self.began,
                attributes,
                &traced.parent,
            );
            let context = traced.parent.with_span(process);
            let postgres = vec![KeyValue::new("db.system.name", "postgresql")];
            span(
                "postgres apply",
                SpanKind::Client,
                self.began,
                postgres,
                &context,
            )
            .end_with_timestamp(self.persisted);
            let redis = vec![KeyValue::new("db.system.name", "redis")];
            span(
                "redis write",
                SpanKind::Client,
                self.persisted,
                redis,
                &context,
            )
            .end_with_timestamp(self.written_through);
            context.span().end_with_timestamp(end);
        }
    }
}

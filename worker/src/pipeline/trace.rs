//! Spans of the records that carry a trace context.
//!
//! The spans are created from recorded times when the batch is finished, so that a batch without
//! traced records pays nothing.

use std::time::SystemTime;

use opentelemetry::{
    Context, KeyValue,
    trace::{Span, SpanKind, TraceContextExt, Tracer},
};
use shared::telemetry::traces;

use crate::{kafka::Record, metrics::Outcome};

/// The times of one batch, and its traced records.
pub(super) struct BatchTrace {
    traced: Vec<Traced>,
    records: usize,
    began: SystemTime,
    times: Times,
}

/// When each part of a batch ended. The parts run concurrently.
#[derive(Clone, Copy)]
pub(super) struct Times {
    /// Postgres had stored or rejected every change.
    pub(super) persisted: SystemTime,
    /// Redis had every stored change, or it was marked for repair.
    pub(super) written_through: SystemTime,
    /// The dead letter topic had the records that decoding rejected.
    pub(super) dead_lettered: SystemTime,
}

struct Traced {
    parent: Context,
    /// Index of the record in the batch.
    index: usize,
    attributes: Vec<KeyValue>,
    name: String,
}

impl Traced {
    fn new(index: usize, record: &Record) -> Option<Self> {
        let header = std::str::from_utf8(record.header(traces::TRACEPARENT)?).ok()?;
        let topic = record.topic.to_string();
        Some(Self {
            parent: traces::sampled_parent(header)?,
            index,
            name: format!("process {topic}"),
            attributes: vec![
                KeyValue::new("messaging.system", "kafka"),
                KeyValue::new("messaging.operation.type", "process"),
                KeyValue::new("messaging.destination.name", topic),
                KeyValue::new(
                    "messaging.destination.partition.id",
                    record.partition.to_string(),
                ),
                KeyValue::new("messaging.kafka.offset", record.offset),
            ],
        })
    }
}

impl BatchTrace {
    pub(super) fn begin<'a>(records: impl ExactSizeIterator<Item = &'a Record>) -> Self {
        let began = SystemTime::now();
        Self {
            records: records.len(),
            traced: match traces::enabled() {
                false => Vec::new(),
                true => records
                    .enumerate()
                    .filter_map(|(index, record)| Traced::new(index, record))
                    .collect(),
            },
            began,
            times: Times {
                persisted: began,
                written_through: began,
                dead_lettered: began,
            },
        }
    }

    /// Sets when the parts ended.
    pub(super) fn parts_are_over(&mut self, times: Times) {
        self.times = times;
    }

    /// Exports the spans: one per traced record, with a child per place that the record was written
    /// to. The records of a batch are written together, so they have the same times.
    pub(super) fn finished(self, outcomes: &[Outcome]) {
        let end = SystemTime::now();
        for mut traced in self.traced {
            let Some(outcome) = outcomes.get(traced.index).copied() else {
                continue;
            };
            traced.attributes.extend([
                KeyValue::new("order.outcome", outcome.as_str()),
                KeyValue::new("messaging.batch.message_count", self.records as i64),
            ]);
            let process = start(
                traced.name,
                SpanKind::Consumer,
                self.began,
                traced.attributes,
                &traced.parent,
            );
            let context = traced.parent.with_span(process);
            for place in places(outcome, self.began, self.times, end) {
                let attributes = vec![place.system];
                start(place.name, place.kind, place.from, attributes, &context)
                    .end_with_timestamp(place.to);
            }
            context.span().end_with_timestamp(end);
        }
    }
}

/// A place that a record was written to, and when.
struct Place {
    name: &'static str,
    kind: SpanKind,
    system: KeyValue,
    from: SystemTime,
    to: SystemTime,
}

/// Returns the places that a record with this outcome was written to.
fn places(outcome: Outcome, began: SystemTime, times: Times, end: SystemTime) -> Vec<Place> {
    let postgres = Place {
        name: "postgres apply",
        kind: SpanKind::Client,
        system: KeyValue::new("db.system.name", "postgresql"),
        from: began,
        to: times.persisted,
    };
    let redis = Place {
        name: "redis write",
        kind: SpanKind::Client,
        system: KeyValue::new("db.system.name", "redis"),
        from: times.persisted,
        to: times.written_through,
    };
    let dead_letter = |from, to| Place {
        name: "dead letter",
        kind: SpanKind::Producer,
        system: KeyValue::new("messaging.system", "kafka"),
        from,
        to,
    };
    match outcome {
        // For an outdated record, Redis gets the version that Postgres holds.
        Outcome::Stored | Outcome::Erased | Outcome::Stale => vec![postgres, redis],
        Outcome::Invalid => vec![dead_letter(began, times.dead_lettered)],
        Outcome::Failed => {
            let from = times.written_through.max(times.dead_lettered);
            vec![postgres, dead_letter(from, end)]
        }
    }
}

fn start(
    name: impl Into<std::borrow::Cow<'static, str>>,
    kind: SpanKind,
    from: SystemTime,
    attributes: Vec<KeyValue>,
    parent: &Context,
) -> opentelemetry::global::BoxedSpan {
    let tracer = traces::tracer();
    tracer
        .span_builder(name)
        .with_kind(kind)
        .with_start_time(from)
        .with_attributes(attributes)
        .start_with_context(&tracer, parent)
}

//! Spans of traced requests. The api creates spans by hand, and only for traced requests. Every
//! other request only checks whether a span is active.

use std::{future::Future, pin::Pin};

use futures_util::future::Either;
use opentelemetry::{
    Context, KeyValue,
    context::FutureExt,
    trace::{Span, SpanKind, Status, TraceContextExt, Tracer},
};
use shared::telemetry::traces::{sampled_parent, tracer};

/// The span of one request.
pub struct RequestSpan {
    context: Context,
}

impl RequestSpan {
    /// Starts a span for a request to `route`.
    ///
    /// With a sampled `traceparent` the span is its child. Without `traceparent` it is a root, and
    /// the sampler decides. Returns `None` if the trace of `traceparent` is not sampled.
    pub fn start(method: &str, route: &'static str, traceparent: Option<&str>) -> Option<Self> {
        let parent = match traceparent {
            Some(traceparent) => sampled_parent(traceparent)?,
            None => Context::new(),
        };
        Some(Self::child_of(&parent, method, route))
    }

    fn child_of(parent: &Context, method: &str, route: &'static str) -> Self {
        let tracer = tracer();
        let attributes = [
            KeyValue::new("http.request.method", method.to_owned()),
            KeyValue::new("http.route", route),
        ];
        let span = tracer
            .span_builder(format!("{method} {route}"))
            .with_kind(SpanKind::Server)
            .with_attributes(attributes)
            .start_with_context(&tracer, parent);
        Self {
            context: parent.with_span(span),
        }
    }

    /// Runs `work` inside this span and ends the span with the HTTP status that `status` reads.
    pub async fn run<T>(self, work: impl Future<Output = T>, status: impl FnOnce(&T) -> u16) -> T {
        let answer = work.with_context(self.context.clone()).await;
        let status = status(&answer);
        let span = self.context.span();
        span.set_attribute(KeyValue::new(
            "http.response.status_code",
            i64::from(status),
        ));
        if status >= 500 {
            span.set_status(Status::error(""));
        }
        span.end();
        answer
    }
}

fn is_traced() -> bool {
    Context::map_current(|context| {
        context.has_active_span() && context.span().span_context().is_sampled()
    })
}

/// Adds the tier that answered to the span of the request, if the request is traced.
pub fn answered_by(tier: &'static str) {
    if is_traced() {
        let source = KeyValue::new("order.source", tier);
        Context::map_current(|context| context.span().set_attribute(source));
    }
}

/// Runs `work`, a call of the service `name`, inside a span of its own if the request is traced.
///
/// Not an async function: its future would hold `work` twice.
pub fn in_span<F: Future>(
    name: &'static str,
    work: F,
) -> Either<F, Pin<Box<impl Future<Output = F::Output>>>> {
    if !is_traced() {
        return Either::Left(work);
    }
    let span = tier_span(name, SpanKind::Client);
    let context = Context::current_with_span(span);
    Either::Right(Box::pin(async move {
        let answer = work.with_context(context.clone()).await;
        context.span().end();
        answer
    }))
}

/// Like [`in_span`], for work that neither waits nor leaves the process.
pub fn in_span_sync<T>(name: &'static str, work: impl FnOnce() -> T) -> T {
    if !is_traced() {
        return work();
    }
    let mut span = tier_span(name, SpanKind::Internal);
    let answer = work();
    span.end();
    answer
}

/// Keeps `work` in the current trace when it runs on another task.
pub fn carried<F: Future>(work: F) -> impl Future<Output = F::Output> {
    work.with_context(Context::current())
}

fn tier_span(name: &'static str, kind: SpanKind) -> opentelemetry::global::BoxedSpan {
    let tracer = tracer();
    tracer.span_builder(name).with_kind(kind).start(&tracer)
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{Arc, Mutex},
        time::Duration,
    };

    use opentelemetry::{Context, global, trace::SpanId};
    use opentelemetry_sdk::{
        error::OTelSdkResult,
        trace::{SdkTracerProvider, Span as SdkSpan, SpanData, SpanProcessor},
    };

    use super::*;

    #[derive(Clone, Debug, Default)]
    struct Collected(Arc<Mutex<Vec<SpanData>>>);

    impl SpanProcessor for Collected {
        fn on_start(&self, _: &mut SdkSpan, _: &Context) {}

        fn on_end(&self, span: SpanData) {
            self.0.lock().unwrap().push(span);
        }

        fn force_flush(&self) -> OTelSdkResult {
            Ok(())
        }

        fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
            Ok(())
        }
    }

    #[tokio::test]
    async fn spans_of_the_tiers_are_children_of_the_request_on_every_task() {
        let collected = Collected::default();
        global::set_tracer_provider(
            SdkTracerProvider::builder()
                .with_span_processor(collected.clone())
                .build(),
        );
        assert_eq!(in_span("untraced", async { 1 }).await, 1);
        let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let request = RequestSpan::child_of(
            &sampled_parent(parent).unwrap(),
            "GET",
            "/order/{order_uid}",
        );
        let work = async {
            in_span_sync("local cache", || ());
            in_span("redis", async {}).await;
            tokio::spawn(carried(in_span("postgres", async {})))
                .await
                .unwrap();
            503
        };
        assert_eq!(request.run(work, |status| *status).await, 503);

        let spans = collected.0.lock().unwrap();
        let names: Vec<&str> = spans.iter().map(|span| span.name.as_ref()).collect();
        assert_eq!(
            names,
            ["local cache", "redis", "postgres", "GET /order/{order_uid}"]
        );
        let (root, tiers) = spans.split_last().unwrap();
        assert_eq!(
            root.parent_span_id,
            SpanId::from_hex("b7ad6b7169203331").unwrap()
        );
        assert!(matches!(root.status, Status::Error { .. }));
        for tier in tiers {
            assert_eq!(
                tier.parent_span_id,
                root.span_context.span_id(),
                "{}",
                tier.name
            );
            assert_eq!(
                tier.span_context.trace_id(),
                root.span_context.trace_id(),
                "{}",
                tier.name
            );
        }
    }
}

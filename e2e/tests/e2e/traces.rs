//! The path of a record, and of a request, as their traces show it.

use std::collections::BTreeSet;

use e2e::{Admin, Draft, Http, Ledger, OtlpReceiver, Proxy, Span, SpanKind, Stack, Stored, until};
use serde_json::Value;
use shared::order::sample::Generator;

/// A system that sends its spans to `receiver` without the usual delay of five seconds.
fn stack(test: &'static str, receiver: &OtlpReceiver) -> Stack {
    Stack::builder(test)
        .workers(1)
        .variable("OTEL_EXPORTER_OTLP_ENDPOINT", &receiver.url())
        .variable("OTEL_BSP_SCHEDULE_DELAY", "100")
        .start()
}

fn children<'a>(spans: &'a [Span], parent: &Span) -> Vec<&'a Span> {
    spans
        .iter()
        .filter(|span| span.trace == parent.trace && span.parent == parent.id)
        .collect()
}

fn names(spans: &[&Span]) -> BTreeSet<String> {
    spans.iter().map(|span| span.name.clone()).collect()
}

#[track_caller]
fn set<const N: usize>(names: [&str; N]) -> BTreeSet<String> {
    names.map(str::to_owned).into()
}

#[track_caller]
fn assert_within(inner: &Span, outer: &Span) {
    let ((begin, end), (first, last)) = (inner.times, outer.times);
    assert!(
        first <= begin && begin <= end && end <= last,
        "{inner:?} in {outer:?}"
    );
}

/// Asserts that the spans of the destinations lie within the span of the record, and name their
/// systems.
#[track_caller]
fn assert_destinations(process: &Span, destinations: &[&Span]) {
    for place in destinations {
        assert_within(place, process);
        let system = match place.name.as_str() {
            "postgres apply" => ("db.system.name", "postgresql"),
            "redis write" => ("db.system.name", "redis"),
            _ => ("messaging.system", "kafka"),
        };
        assert_eq!(place.attribute(system.0), system.1);
    }
}

#[track_caller]
fn assert_no_personal_data(spans: &[Span], sent: &[Stored]) {
    for record in sent {
        let order: Value =
            serde_json::from_slice(record.value.as_deref().unwrap()).unwrap_or_default();
        for field in ["name", "phone", "zip", "city", "address", "region", "email"] {
            let Some(datum) = order["delivery"][field].as_str() else {
                continue;
            };
            for text in spans.iter().flat_map(Span::texts) {
                assert!(
                    text != datum && !(datum.len() > 6 && text.contains(datum)),
                    "{field}"
                );
            }
        }
    }
}

#[test]
fn a_record_is_one_trace_from_the_producer_to_every_destination() {
    let receiver = OtlpReceiver::start();
    let stack = stack("traces", &receiver);
    let arguments = ["send", "-n", "20", "--seed", "3", "--invalid-json", "3"];
    stack.command("producer", &arguments).succeeded();
    stack.settle();
    let topic = stack.addresses().topic.clone();
    let sent = stack.broker().read(&topic);
    let process = format!("process {topic}");
    let spans = receiver.until("a span of each record from the worker", |spans| {
        let processed = spans.iter().filter(|span| span.name == process).count();
        match processed == sent.len() {
            true => Ok(spans.to_vec()),
            false => Err(format!("{processed} of {}", sent.len())),
        }
    });

    let roots: Vec<&Span> = spans.iter().filter(|span| span.parent.is_empty()).collect();
    assert_eq!(roots.len(), 23);
    let traces: BTreeSet<&str> = roots.iter().map(|root| root.trace.as_str()).collect();
    assert_eq!(traces.len(), 23);
    let mut places = BTreeSet::new();
    let mut outcomes = [0, 0];
    for root in roots {
        assert_eq!(root.name, format!("create {topic}"));
        assert_eq!(
            (root.service(), root.kind),
            ("producer", SpanKind::Producer)
        );
        let [process] = children(&spans, root)[..] else {
            panic!("children of {root:?}")
        };
        assert_eq!(
            (process.service(), process.kind),
            ("worker", SpanKind::Consumer)
        );
        assert_eq!(process.attribute("messaging.destination.name"), topic);
        places.insert((
            process.attribute("messaging.destination.partition.id"),
            process.attribute("messaging.kafka.offset"),
        ));
        let went = children(&spans, process);
        match process.attribute("order.outcome") {
            "stored" => {
                outcomes[0] += 1;
                assert_eq!(names(&went), set(["postgres apply", "redis write"]));
            }
            "invalid" => {
                outcomes[1] += 1;
                assert_eq!(names(&went), set(["dead letter"]));
            }
            other => panic!("{other} in {process:?}"),
        }
        assert_destinations(process, &went);
    }
    assert_eq!(outcomes, [20, 3]);
    assert_eq!(places.len(), 23, "each record has its place");

    assert_no_personal_data(&spans, &sent);
}

#[test]
fn an_unsampled_trace_exports_nothing_beside_a_sampled_record() {
    let receiver = OtlpReceiver::start();
    let stack = stack("sampling", &receiver);
    let traceparent =
        |trace: u8, flags: &str| format!("00-{trace:032x}-00000000000000aa-{flags}").into_bytes();
    let drafts: Vec<Draft> = Generator::new(5, 1..=2)
        .take(3)
        .zip([Some((1, "00")), Some((2, "01")), None])
        .map(|(order, header)| match header {
            Some((trace, flags)) => {
                Draft::order(&order).with_header("traceparent", Some(&traceparent(trace, flags)))
            }
            None => Draft::order(&order),
        })
        .collect();
    let mut ledger = Ledger::default();
    stack.send(&mut ledger, &drafts);
    stack.settle();
    let spans = receiver.until("the trace that is sampled", |spans| match spans.len() {
        3 => Ok(spans.to_vec()),
        count => Err(format!("{count} spans")),
    });
    let sampled = format!("{:032x}", 2);
    for span in &spans {
        assert_eq!(span.trace, sampled, "{span:?}");
    }
    let process = spans
        .iter()
        .find(|span| span.parent == "00000000000000aa")
        .unwrap();
    assert_eq!(
        names(&children(&spans, process)),
        set(["postgres apply", "redis write"])
    );

    // The worker does not continue the trace of a producer that samples nothing. The record of the
    // next producer, which samples, comes after all spans that the unsampled ones could have
    // caused.
    let unsampled = [("OTEL_TRACES_SAMPLER", "always_off")];
    for (count, variables) in [("10", &unsampled[..]), ("1", &[])] {
        let arguments = ["send", "-n", count];
        stack
            .command_with("producer", &arguments, variables)
            .succeeded();
        stack.settle();
    }
    let all = receiver.until("the trace of the last record", |spans| {
        let last = spans
            .iter()
            .any(|span| span.trace != sampled && span.service() == "worker");
        match last && spans.len() >= 7 {
            true => Ok(spans.to_vec()),
            false => Err(format!("{} spans", spans.len())),
        }
    });
    assert_eq!(all.len(), 7, "{all:?}");
}

#[test]
fn an_absent_receiver_costs_only_spans() {
    let builder = Stack::builder("no-receiver")
        .workers(1)
        .apis(1)
        // The discard port, which has no listener.
        .variable("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9");
    let mut stack = builder.start();
    let log = send(&stack, 100);
    assert_eq!(
        log.matches("trace collector does not answer").count(),
        1,
        "{log}"
    );
    let uid = stack.database().orders().into_keys().next().unwrap();
    assert_eq!(stack.apis[0].order(&uid).status, 200);
    assert_eq!(stack.database().count(), 100);
    stack.stop_workers();
    stack.apis[0].process.terminate();
}

/// Sends this many records, each with its own trace, and waits until they are finished. Returns the
/// producer's log.
#[track_caller]
fn send(stack: &Stack, count: usize) -> String {
    let sent = stack.command("producer", &["send", "-n", &count.to_string()]);
    let log = sent.stderr.clone();
    sent.succeeded();
    stack.settle();
    log
}

fn lost(admin: &Admin, reason: &str) -> u64 {
    admin.metric("trace_spans_dropped_total", &format!("\"{reason}\""))
}

#[track_caller]
fn await_export(admin: &Admin, up: u64) {
    until(&format!("trace_export_up to be {up}"), || {
        match admin.metric("trace_export_up", "") {
            seen if seen == up => Ok(()),
            other => Err(other.to_string()),
        }
    });
}

/// Waits until each span was either received or counted as lost. Each record has three spans in the
/// worker.
fn await_all_spans(receiver: &OtlpReceiver, admin: &Admin, records: u64) {
    until("each span to be received or counted", || {
        let received = receiver
            .spans()
            .into_iter()
            .filter(|span| span.service() == "worker");
        let lost = ["queue_full", "export_failed"].map(|reason| lost(admin, reason));
        match (received.count() as u64, lost) {
            (received, [full, failed]) if full > 0 && received + full + failed == 3 * records => {
                Ok(())
            }
            other => Err(format!("{other:?} of {}", 3 * records)),
        }
    });
}

#[test]
fn a_receiver_outage_is_logged_once_and_lost_spans_are_counted() {
    let receiver = OtlpReceiver::start();
    let link = Proxy::to(&receiver.url());
    link.cut();
    let mut stack = Stack::builder("lost-spans")
        .workers(1)
        .variable("OTEL_EXPORTER_OTLP_ENDPOINT", &link.url(&receiver.url()))
        .variable("OTEL_EXPORTER_OTLP_TIMEOUT", "1000")
        .variable("OTEL_BSP_SCHEDULE_DELAY", "100")
        .variable("OTEL_BSP_MAX_QUEUE_SIZE", "20")
        .start();
    let worker = &stack.workers[0];
    for reason in ["queue_full", "export_failed"] {
        assert_eq!(lost(&worker.admin, reason), 0);
    }
    let (mut records, mut failed) = (0, 0);
    for _ in 0..3 {
        send(&stack, 200);
        records += 200;
        until("one more export that failed", || {
            match lost(&worker.admin, "export_failed") {
                now if now > failed => {
                    failed = now;
                    Ok(())
                }
                same => Err(same.to_string()),
            }
        });
    }
    await_export(&worker.admin, 0);
    link.restore();
    until("spans that arrive", || {
        send(&stack, 1);
        records += 1;
        match receiver
            .spans()
            .iter()
            .any(|span| span.service() == "worker")
        {
            true => Ok(()),
            false => Err("none"),
        }
    });
    await_export(&worker.admin, 1);
    await_all_spans(&receiver, &worker.admin, records);
    let log = worker.process.log();
    for line in ["trace collector does not answer", "trace collector is back"] {
        assert_eq!(log.matches(line).count(), 1, "{line} in {log}");
    }
    stack.stop_workers();
}

#[test]
fn a_dead_connection_to_the_receiver_is_replaced() {
    let receiver = OtlpReceiver::start();
    let link = Proxy::to(&receiver.url());
    let stack = Stack::builder("forgotten-receiver")
        .workers(1)
        .variable("OTEL_EXPORTER_OTLP_ENDPOINT", &link.url(&receiver.url()))
        .variable("OTEL_EXPORTER_OTLP_TIMEOUT", "1000")
        .variable("OTEL_BSP_SCHEDULE_DELAY", "100")
        .start();
    let worker = &stack.workers[0];
    send(&stack, 1);
    await_export(&worker.admin, 1);
    link.forget_connections();
    until("the worker to close the dead connection", || {
        send(&stack, 1);
        match link.forgotten() {
            0 => Ok(()),
            left => Err(format!("{left} still open")),
        }
    });
    let before = receiver.spans().len();
    until("spans that arrive", || {
        send(&stack, 1);
        match receiver.spans().len() > before {
            true => Ok(()),
            false => Err("none"),
        }
    });
    await_export(&worker.admin, 1);
}

/// Waits for the spans of a request: that of the api, and those of the tiers below it.
fn await_request(receiver: &OtlpReceiver, trace: &str) -> (Span, Vec<Span>) {
    receiver.until(&format!("the trace {trace}"), |spans| {
        let spans: Vec<Span> = spans
            .iter()
            .filter(|span| span.trace == trace)
            .cloned()
            .collect();
        let server = spans
            .iter()
            .find(|span| span.parent == "00000000000000aa")
            .ok_or("none yet")?
            .clone();
        let asked: Vec<Span> = children(&spans, &server).into_iter().cloned().collect();
        Ok::<_, &str>((server, asked))
    })
}

/// Asserts that the spans of the tiers lie within the span of the api, and that the tier that
/// answered was queried last.
#[track_caller]
fn assert_request(server: &Span, asked: &[Span], source: &str) {
    assert_eq!(server.name, "GET /order/{order_uid}");
    assert_eq!(
        (server.service(), server.kind),
        ("order-api", SpanKind::Server)
    );
    assert!(!server.failed);
    for tier in asked {
        assert_within(tier, server);
    }
    let last = asked.iter().max_by_key(|tier| tier.times.1).unwrap();
    assert_eq!(last.name.trim_end_matches(" cache"), source);
}

#[test]
fn a_request_is_one_trace_down_to_the_tier_that_answered() {
    let receiver = OtlpReceiver::start();
    let mut stack = stack("request-traces", &receiver);
    let mut ledger = Ledger::default();
    let order = Generator::new(9, 1..=2).next().unwrap();
    stack.send(&mut ledger, &[Draft::order(&order)]);
    stack.settle();
    stack.start_api_with(&[("CACHE_WARMUP", "0"), ("OTEL_SERVICE_NAME", "order-api")]);
    let (api, uid) = (&stack.apis[0], ledger.some_uid());
    let path = format!("/order/{uid}");

    // The api continues the client's trace, and does not trace a request that the client does not
    // sample.
    let get = |number: u8, path: &str, flags: &str| {
        let header = format!("00-{number:032x}-00000000000000aa-{flags}");
        Http::new().get_with(
            &format!("{}{path}", api.url()),
            &[("traceparent", header.as_str())],
        )
    };
    get(0x10, &path, "00");
    // First Postgres, past the caches. Then the local cache, once it holds the order. Then an order
    // that does not exist.
    get(0x11, &format!("{path}?nocache=1"), "01");
    api.await_source(&uid, "local");
    get(0x12, &path, "01");
    stack.redis.evict("unknown");
    get(0x13, "/order/unknown", "01");

    let expected = [
        (0x11, "postgres", set(["postgres"]), "200"),
        (0x12, "local", set(["local cache"]), "200"),
        (
            0x13,
            "postgres",
            set(["local cache", "redis", "postgres"]),
            "404",
        ),
    ];
    for (number, source, tiers, status) in expected {
        let trace = format!("{number:032x}");
        let (server, asked) = await_request(&receiver, &trace);
        assert_eq!(server.attribute("order.source"), source);
        assert_eq!(server.attribute("http.response.status_code"), status);
        assert_eq!(names(&asked.iter().collect::<Vec<_>>()), tiers);
        assert_request(&server, &asked, source);
    }
    let spans = receiver.spans();
    assert!(
        spans
            .iter()
            .all(|span| span.trace != format!("{:032x}", 0x10))
    );
    for text in spans.iter().flat_map(Span::texts) {
        assert!(!text.contains(&uid), "{text}");
    }
}

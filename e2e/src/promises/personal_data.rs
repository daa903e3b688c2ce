//! Promise 16: personal data is only where orders are.

use serde_json::{Value, json};
use shared::order::{
    Order, Reason,
    sample::{Defect, Generator},
};

use super::{
    rejection::{reject, rejected},
    run::Run,
    trial::{Promise, Trial},
};
use crate::{
    http::Http, ledger::Ledger, otlp::OtlpReceiver, proxy::Proxy, record::Draft, stack::Stack,
    wait::until,
};

pub(super) const PROMISE: Promise = Promise {
    number: 16,
    sentence: "No personal data of an order appears in a log, metric, trace, error or dead letter \
               header.",
    trials: &[Trial {
        name: "personal_data_stays_out_of_logs_metrics_traces_and_errors",
        fault: "valid, invalid and rejected orders, keys and requests hold unique texts, and \
                every process logs at its most verbose level",
        body: kept_private,
    }],
};

/// Texts that no process may reveal, in lower case.
const CANARIES: [&str; 2] = ["canary7f3a", "14815162342108"];

/// Returns the order with canaries in every field except its uid.
fn canary(mut order: Order) -> Order {
    let code = "Canary7f3a";
    let text = "Canary7f3a ä";
    order.track_number = code.into();
    for field in [
        &mut order.entry,
        &mut order.internal_signature,
        &mut order.customer_id,
        &mut order.delivery_service,
        &mut order.delivery.name,
        &mut order.delivery.city,
        &mut order.delivery.address,
        &mut order.delivery.region,
        &mut order.payment.request_id,
        &mut order.payment.provider,
        &mut order.payment.bank,
    ] {
        *field = text.into();
    }
    order.delivery.phone = "+14815162342108".into();
    order.delivery.zip = code.into();
    order.delivery.email = "canary7f3a@example.com".into();
    order.shardkey = "14815162342108".into();
    order.oof_shard = "14815162342108".into();
    order.payment.transaction = code.into();
    order.payment.goods_total = 14_815_162_342_108;
    for item in &mut order.items {
        for field in [&mut item.name, &mut item.brand, &mut item.size] {
            *field = text.into();
        }
        item.track_number = code.into();
        item.rid = code.into();
        item.nm_id = 14_815_162_342_108;
    }
    order
}

/// Returns the document of an order with another value at a JSON pointer.
fn with(order: &Order, pointer: &str, value: Value) -> Vec<u8> {
    let mut document: Value = serde_json::from_slice(&order.to_json()).unwrap();
    *document.pointer_mut(pointer).expect("a field") = value;
    document.to_string().into_bytes()
}

fn drafts(run: &Run) -> Vec<Draft> {
    let mut orders = Generator::new(run.seed, 1..=2).map(canary);
    let mut order = || orders.next().expect("the generator has no end");
    let mut drafts: Vec<Draft> = (0..20).map(|_| Draft::order(&order())).collect();
    drafts.extend((0..5).map(|_| rejected(order()).1));
    // Each rule: first with canaries in all other fields, then in the value that breaks the rule.
    drafts.extend(Defect::ALL.iter().map(|defect| {
        let order = order();
        Draft::rejected(defect.reason(), defect.apply(&order))
    }));
    let wrong = [
        ("/order_uid", json!("canary7f3a@example.com")),
        ("/track_number", json!("canary7f3a@example.com")),
        ("/locale", json!("canary7f3a@example.com")),
        ("/shardkey", json!("canary7f3a@example.com")),
        ("/payment/currency", json!("canary7f3a@example.com")),
        ("/payment/transaction", json!("canary7f3a@example.com")),
        ("/delivery/phone", json!("canary7f3a@example.com")),
        ("/delivery/zip", json!("canary7f3a@example.com")),
        ("/delivery/email", json!("Canary7f3a")),
        ("/delivery/name", json!("Canary7f3a\u{7}")),
        ("/items/0/rid", json!("canary7f3a@example.com")),
        ("/date_created", json!("Canary7f3a")),
    ];
    drafts.extend(wrong.into_iter().map(|(pointer, value)| {
        Draft::rejected(Reason::InvalidOrder, with(&order(), pointer, value))
    }));
    let malformed = [
        ("/payment/amount", json!("Canary7f3a")),
        ("/payment/amount", json!(["Canary7f3a"])),
        ("/sm_id", json!(14_815_162_342_108_i64)),
        ("/items/0/sale", json!(14_815_162_342_108_i64)),
        ("/delivery", json!("Canary7f3a")),
        ("/items", json!({"Canary7f3a": 1})),
    ];
    drafts.extend(malformed.into_iter().map(|(pointer, value)| {
        Draft::rejected(Reason::MalformedJson, with(&order(), pointer, value))
    }));
    let whole = order().to_json();
    drafts.extend(broken(&whole));
    // Unknown fields, keys that are not uids, and foreign headers.
    let foreign = b"{\"Canary7f3a\":\"Canary7f3a\",".iter().chain(&whole[1..]);
    drafts.push(Draft::valid(foreign.copied().collect()));
    let key = b"canary7f3a@example.com";
    drafts.push(Draft::order(&order()).with_key(Some(key)));
    drafts.push(Draft::rejected(Reason::MalformedJson, "{").with_key(Some(key)));
    let erasure = Draft::erasure("canary7f3a@example.com");
    drafts.push(erasure.but_rejected(Reason::InvalidOrder));
    drafts.push(
        Draft::order(&order())
            .with_header("replay-version", Some(b"Canary7f3a"))
            .but_rejected(Reason::InvalidOrder),
    );
    drafts.push(Draft::order(&order()).with_header("traceparent", Some(b"Canary7f3a")));
    drafts
}

/// Returns values that are no JSON text of an order.
fn broken(whole: &[u8]) -> impl Iterator<Item = Draft> {
    let twice = b"{\"Canary7f3a\":1,\"Canary7f3a\":2,"
        .iter()
        .chain(&whole[1..]);
    let values = [
        whole[..whole.len() / 2].to_vec(),
        [whole, b" Canary7f3a"].concat(),
        twice.copied().collect(),
        b"Canary7f3a".to_vec(),
        b"\"Canary7f3a\"".to_vec(),
    ];
    let values = values.into_iter();
    values.map(|value| Draft::rejected(Reason::MalformedJson, value))
}

#[track_caller]
fn assert_silent(who: &str, said: &str) {
    let small = said.to_lowercase();
    let line = small
        .lines()
        .find(|line| CANARIES.iter().any(|canary| line.contains(canary)));
    assert_eq!(line, None, "{who} contains personal data");
}

/// Ends the worker and the api, and asserts that their logs hold no personal data.
fn stop_silently(stack: &mut Stack) {
    let (mut worker, mut api) = (stack.workers.remove(0), stack.apis.remove(0));
    for (who, process) in [
        ("the worker", &mut worker.process),
        ("the api", &mut api.process),
    ] {
        process.terminate();
        assert!(process.log().contains("\"DEBUG\""), "{who} logs at DEBUG");
        assert_silent(who, &process.log());
    }
}

fn kept_private(run: &mut Run) {
    let receiver = OtlpReceiver::start();
    let mut stack = run
        .stack("canary")
        .variable(
            "RUST_LOG",
            "debug,sqlx=debug,librdkafka=debug,rdkafka=debug,opentelemetry=debug,poem=debug",
        )
        .variable("OTEL_EXPORTER_OTLP_ENDPOINT", &receiver.url())
        .variable("OTEL_BSP_SCHEDULE_DELAY", "100")
        .workers(1)
        .start();
    let proxy = Proxy::to(&stack.addresses().database_url);
    let url = proxy.url(&stack.addresses().database_url);
    stack.start_api_with(&[("DATABASE_URL", &url), ("DATABASE_TIMEOUT", "1s")]);
    reject(&stack.database());
    let mut ledger = Ledger::default();
    stack.send(&mut ledger, &drafts(run));
    stack.settle();
    stack.check().tiers(&ledger);
    stack.check().api(&ledger, &stack.apis[0].url(), "local");

    let answers = ask(&stack, &ledger, &proxy);
    for path in ["/metrics", "/readyz", "/livez"] {
        assert_silent("the worker", &stack.workers[0].admin.get(path).text());
        assert_silent("the api", &stack.apis[0].admin.get(path).text());
    }
    let said = [
        &["dead-letters", "list"][..],
        &["dead-letters", "list", "--json"],
        &["dead-letters", "count", "--by", "rule"],
        &["dead-letters", "replay", "--all", "--dry-run"],
        &["verify", "--topic", "--json"],
    ];
    for command in said {
        let list = stack.command("worker", command);
        assert_silent(command[0], &list.stdout);
        assert_silent(command[0], &list.stderr);
    }
    let letters = stack.broker().read(&stack.addresses().dead_letter_topic);
    for (name, value) in letters.iter().flat_map(|letter| &letter.headers) {
        if name.starts_with("dlq-") {
            let value = value.as_deref().unwrap_or_default();
            assert_silent(name, &String::from_utf8_lossy(value));
        }
    }
    stop_silently(&mut stack);
    let spans = receiver.spans();
    for span in &spans {
        span.texts()
            .for_each(|text| assert_silent(&span.name, text));
    }
    run.figure("records", ledger.records().len());
    run.figure("dead letters", letters.len());
    run.figure("api errors", answers);
    run.figure("spans", spans.len());
    run.zero("leaks", 0);
}

/// Sends requests that the api rejects or that fail. Returns the number of errors it answered.
fn ask(stack: &Stack, ledger: &Ledger, proxy: &Proxy) -> usize {
    let api = &stack.apis[0];
    let http = Http::new();
    let mut answers = 0;
    let mut expect = |path: &str, status| {
        let headers = [
            ("Authorization", "Bearer Canary7f3a"),
            ("User-Agent", "Canary7f3a"),
            ("traceparent", "Canary7f3a"),
        ];
        let answer = http.get_with(&format!("{}{path}", api.url()), &headers);
        assert_eq!(answer.status, status, "{path}: {}", answer.text());
        assert_silent(path, &answer.text());
        answers += 1;
    };
    let uid = ledger.some_uid();
    for (path, status) in [
        ("/order/canary7f3a@example.com", 400),
        ("/order/canary7f3a%40example.com?nocache=1", 400),
        (&format!("/order/{uid}?nocache=canary7f3a@example.com"), 400),
        ("/order/unknown?email==canary7f3a@example.com", 400),
        ("/orders?limit=canary7f3a@example.com", 400),
        ("/orders?cursor=canary7f3a@example.com", 400),
        ("/canary7f3a@example.com", 404),
    ] {
        expect(path, status);
    }
    // The canaries are found, and are in the response, but nowhere else.
    let found = http.get(&format!(
        "{}/orders?customer_id=Canary7f3a%20%C3%A4",
        api.url()
    ));
    assert!(found.text().contains("order_uid"), "{}", found.text());

    let found = http.get(&format!(
        "{}/orders?email=canary7f3a@example.com",
        api.url()
    ));
    assert_eq!(found.status, 200, "{}", found.text());

    proxy.cut();
    until("Postgres is seen to be down", || {
        match api.admin.state_of("postgres") {
            state if state == "down" => Ok(()),
            other => Err(other),
        }
    });
    expect("/orders?customer_id=Canary7f3a", 503);
    expect("/orders?email=canary7f3a@example.com", 503);
    expect("/orders/export?email=canary7f3a@example.com", 503);
    proxy.restore();
    answers
}

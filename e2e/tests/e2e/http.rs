//! What a client sees.

use std::collections::BTreeSet;

use e2e::{Answer, Draft, Http, Ledger, Stack};
use serde_json::Value;
use shared::order::sample::Generator;

#[track_caller]
fn source(answer: &Answer) -> &str {
    let duration = answer.header("X-Duration-Ms").expect("X-Duration-Ms");
    assert!(
        duration.parse::<f64>().is_ok_and(|ms| ms >= 0.0),
        "{duration}"
    );
    answer.header("X-Source").expect("X-Source")
}

fn orders(seed: u64, count: usize) -> Vec<Draft> {
    Generator::new(seed, 1..=3)
        .take(count)
        .map(|order| Draft::order(&order))
        .collect()
}

#[test]
fn an_order_is_answered_by_the_nearest_tier_that_has_it() {
    let mut stack = Stack::builder("http").workers(1).start();
    let mut ledger = Ledger::default();
    stack.send(&mut ledger, &orders(41, 3));
    stack.settle();
    let uid = ledger.some_uid();
    let json = ledger.orders()[&uid].json.clone().unwrap();
    for _ in 0..2 {
        // What was loaded before it is ready would be answered by the local cache at once.
        stack.start_api_with(&[("CACHE_WARMUP", "0")]);
    }
    let (one, other) = (&stack.apis[0], &stack.apis[1]);

    let first = one.order(&uid);
    assert_eq!((first.status, source(&first)), (200, "redis"));
    assert_eq!(first.header("Content-Type"), Some("application/json"));
    one.await_source(&uid, "local");
    assert_eq!(source(&one.order_in_postgres(&uid)), "postgres");
    one.await_source(&uid, "local");

    stack.redis.evict(&uid);
    let missed = other.order(&uid);
    assert_eq!(source(&missed), "postgres");
    other.await_source(&uid, "local");
    assert_eq!(missed.body, json);
    assert_eq!(missed.header("ETag"), first.header("ETag"));
    // Whoever missed it has put it back.
    stack.check().redis(&ledger);
}

#[test]
fn a_known_version_is_not_sent_again() {
    let mut stack = Stack::builder("etag").workers(1).start();
    let mut ledger = Ledger::default();
    stack.send(&mut ledger, &orders(42, 1));
    stack.settle();
    let uid = ledger.some_uid();
    let api = stack.start_api();
    let (http, url) = (Http::new(), format!("{}/order/{uid}", api.url()));
    let etag = http.get(&url).header("ETag").unwrap().to_owned();
    let lists = [
        etag.clone(),
        "*".to_owned(),
        format!("\"other\", {etag}"),
        format!("W/{etag}"),
    ];
    for known in &lists {
        for url in [&url, &format!("{url}?nocache=1")] {
            let answer = http.get_with(url, &[("If-None-Match", known)]);
            assert_eq!(answer.status, 304, "{known}: {}", answer.text());
            assert!(answer.body.is_empty());
            assert_eq!(answer.header("ETag"), Some(etag.as_str()));
        }
    }
    for unknown in ["\"other\"", "\"0\", \"1\""] {
        let answer = http.get_with(&url, &[("If-None-Match", unknown)]);
        assert_eq!(answer.status, 200, "{unknown}");
    }
}

#[test]
fn what_is_not_there_is_a_problem() {
    let stack = Stack::builder("problem").apis(1).start();
    let (http, url) = (Http::new(), stack.apis[0].url());
    for path in [
        "/order/nobody",
        "/order/nobody",
        "/order/nobody?nocache=1",
        "/nothing/here",
    ] {
        http.get(&format!("{url}{path}")).problem(404);
    }
    let long = "a".repeat(65);
    for uid in ["a%20b", "a.b", "%00", "%ff", "a%2Fb", "%C3%A4", &long] {
        http.get(&format!("{url}/order/{uid}")).problem(400);
    }
    for parameters in [
        "limit=0",
        "limit=101",
        "limit=ten",
        "limit=-1",
        "cursor=nonsense",
    ] {
        let answer = http.get(&format!("{url}/orders?{parameters}"));
        assert_eq!(answer.status, 400, "{parameters}: {}", answer.text());
        answer.problem(400);
    }
    for (path, content_type) in [
        ("/", "text/html"),
        ("/docs", "text/html"),
        ("/openapi.json", "application/json"),
        ("/openapi.yaml", "yaml"),
    ] {
        let answer = http.get(&format!("{url}{path}"));
        assert_eq!(answer.status, 200, "{path}");
        let found = answer.header("Content-Type").unwrap_or_default();
        assert!(found.contains(content_type), "{path}: {found}");
    }
}

/// Every page of a list.
fn pages(url: &str) -> Vec<Vec<Value>> {
    let http = Http::new();
    let mut pages = Vec::new();
    let mut cursor = String::new();
    loop {
        let answer = http.get(&format!("{url}{cursor}"));
        assert_eq!(answer.status, 200, "{}", answer.text());
        let page: Value = serde_json::from_slice(&answer.body).unwrap();
        pages.push(page["orders"].as_array().unwrap().clone());
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return pages,
        }
    }
}

fn uids(pages: &[Vec<Value>]) -> Vec<String> {
    let uid = |order: &Value| order["order_uid"].as_str().unwrap().to_owned();
    pages.iter().flatten().map(uid).collect()
}

#[test]
fn lists_have_each_order_once_newest_first() {
    let mut stack = Stack::builder("lists").workers(1).start();
    let mut ledger = Ledger::default();
    let mut drafts = Vec::new();
    for (index, mut order) in Generator::new(43, 1..=2).take(45).enumerate() {
        order.customer_id = if index % 3 == 0 { "one" } else { "other" }.to_owned();
        order.track_number = format!("TRACK{}", index % 5);
        drafts.push(Draft::order(&order));
    }
    stack.send(&mut ledger, &drafts);
    let erased = ledger.some_uid();
    stack.send(&mut ledger, &[Draft::erasure(&erased)]);
    stack.settle();
    let rows = stack.database().orders();
    let newest_first = |filter: &dyn Fn(&Value) -> bool| -> Vec<String> {
        let mut rows: Vec<_> = rows
            .iter()
            .filter(|(_, row)| !row.erased && filter(&row.columns))
            .map(|(uid, row)| ((row.created_at, row.id), uid.clone()))
            .collect();
        rows.sort();
        rows.into_iter().rev().map(|(_, uid)| uid).collect()
    };

    let api = stack.start_api();
    let list = |query: &str| pages(&format!("{}/orders?{query}", api.url()));
    let all = list("limit=7");
    assert!(all.iter().rev().skip(1).all(|page| page.len() == 7));
    assert_eq!(uids(&all), newest_first(&|_| true));
    assert_eq!(uids(&all).iter().collect::<BTreeSet<_>>().len(), 44);
    assert_eq!(list("x=1")[0].len(), 20);
    let (one, track) = (
        list("limit=4&customer_id=one"),
        list("limit=100&track_number=TRACK2"),
    );
    assert_eq!(
        uids(&one),
        newest_first(&|order| order["customer_id"] == "one")
    );
    assert_eq!(
        uids(&track),
        newest_first(&|order| order["track_number"] == "TRACK2")
    );
    assert!(list("customer_id=nobody")[0].is_empty());
}

//! Lists and exports, while other users store orders.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, SecondsFormat};
use e2e::{Draft, Http, Ledger, Row, System};
use serde_json::Value;

use crate::orders;

/// Returns the pages of a list, up to the first one that `enough` accepts.
#[track_caller]
fn pages(url: &str, mut enough: impl FnMut(&[Value]) -> bool) -> Vec<Vec<Value>> {
    let http = Http::new();
    let mut pages = Vec::new();
    let mut cursor = String::new();
    loop {
        let answer = http.get(&format!("{url}{cursor}"));
        assert_eq!(answer.status, 200, "{}", answer.text());
        let page: Value = serde_json::from_slice(&answer.body).unwrap();
        let orders = page["orders"].as_array().unwrap().clone();
        let done = enough(&orders);
        pages.push(orders);
        match page["next_cursor"].as_str() {
            Some(next) if !done => cursor = format!("&cursor={next}"),
            _ => return pages,
        }
    }
}

fn uids(pages: &[Vec<Value>]) -> Vec<String> {
    let uid = |order: &Value| order["order_uid"].as_str().unwrap().to_owned();
    pages.iter().flatten().map(uid).collect()
}

/// Returns the orders that a list must hold, in its order.
fn newest_first(rows: &BTreeMap<String, Row>, filter: impl Fn(&Row) -> bool) -> Vec<String> {
    let mut rows: Vec<_> = rows
        .iter()
        .filter(|(_, row)| !row.erased && filter(row))
        .map(|(uid, row)| ((row.created_at, row.id), uid.clone()))
        .collect();
    rows.sort();
    rows.into_iter().rev().map(|(_, uid)| uid).collect()
}

/// Asserts that a page has 20 orders by default, and each summary its fields and its link.
#[track_caller]
fn assert_summaries(url: &str) {
    let default = pages(&format!("{url}/orders?"), |_| true);
    assert_eq!(default[0].len(), 20);
    for order in &default[0] {
        for field in ["track_number", "customer_id", "date_created", "created_at"] {
            assert!(order[field].is_string(), "{field} in {order}");
        }
        let link = order["links"]["self"].as_str().unwrap_or_default();
        let uid = order["order_uid"].as_str().unwrap();
        assert!(link.ends_with(&format!("/order/{uid}")), "{order}");
    }
}

#[test]
fn lists_return_each_order_once_newest_first() {
    let system = System::join();
    let (one, other) = (
        format!("one-{:016x}", system.seed),
        format!("other-{:016x}", system.seed),
    );
    let track = |number: usize| format!("TRACK-{:016x}-{number}", system.seed);
    let drafts: Vec<Draft> = orders(&system)
        .take(45)
        .enumerate()
        .map(|(index, mut order)| {
            order.customer_id = if index % 3 == 0 { &one } else { &other }.into();
            order.track_number = track(index % 5).into();
            Draft::order(&order)
        })
        .collect();
    let mut ledger = Ledger::default();
    system.send(&mut ledger, &drafts);
    let erased = ledger.some_uid();
    system.send(&mut ledger, &[Draft::erasure(&erased)]);
    system.settle(&ledger);
    let rows = system.database().orders_of(&ledger.uids());

    for url in system.api_urls() {
        let list = |query: &str| pages(&format!("{url}/orders?{query}"), |_| false);
        for (field, value) in [
            ("customer_id", &one),
            ("customer_id", &other),
            ("track_number", &track(2)),
        ] {
            let found = list(&format!("limit=7&{field}={value}"));
            assert!(found.iter().rev().skip(1).all(|page| page.len() == 7));
            let expected = newest_first(&rows, |row| row.columns[field] == **value);
            assert_eq!(uids(&found), expected, "{field}={value}");
        }
        assert!(list("customer_id=unknown-customer")[0].is_empty());

        // Our orders among those of all users, who may add more during the test.
        let mut left = 44;
        let ours = |uid: &String| rows.contains_key(uid);
        let found = pages(&format!("{url}/orders?limit=100"), |page| {
            let page = uids(&[page.to_vec()]);
            left -= page.iter().filter(|uid| ours(uid)).count();
            left == 0
        });
        let all = uids(&found);
        assert_eq!(
            all.iter().collect::<BTreeSet<_>>().len(),
            all.len(),
            "an order twice"
        );
        let mut of_all = all;
        of_all.retain(ours);
        assert_eq!(of_all, newest_first(&rows, |_| true));
        assert_summaries(url);
    }
}

/// A period that begins with one order and ends before another one.
fn period(from: &Row, to: &Row) -> String {
    let time = |row: &Row| {
        let time = DateTime::from_timestamp_micros(row.created_at).unwrap();
        time.to_rfc3339_opts(SecondsFormat::Micros, true)
    };
    format!("created_from={}&created_to={}", time(from), time(to))
}

/// Asserts that the list and both forms of the export have the orders `expected`.
#[track_caller]
fn assert_listed_and_exported(http: &Http, url: &str, query: &str, expected: &[String]) {
    let found = pages(&format!("{url}/orders?limit=2&{query}"), |_| false);
    assert_eq!(uids(&found), expected, "{query}");
    let export = http.get(&format!("{url}/orders/export?{query}"));
    assert_eq!(export.status, 200, "{}", export.text());
    let documents = expected.iter().map(|uid| {
        let order = http.get(&format!("{url}/order/{uid}?nocache=1"));
        order.text() + "\n"
    });
    assert_eq!(export.text(), documents.collect::<String>(), "{query}");
    let csv = [("Accept", "text/csv")];
    let csv = http.get_with(&format!("{url}/orders/export?{query}"), &csv);
    assert_eq!(csv.text().lines().count(), 1 + expected.len(), "{query}");
}

#[test]
fn lists_and_exports_have_the_same_filters() {
    let system = System::join();
    let phone = format!("+9{:014}", system.seed % 100_000_000_000_000);
    let email = format!("e+{:016x}@example.com", system.seed);
    let customer = format!("customer-{:016x}", system.seed);
    let mut ledger = Ledger::default();
    for (index, mut order) in orders(&system).take(12).enumerate() {
        order.customer_id = customer.as_str().into();
        if index % 2 == 0 {
            order.delivery.phone = phone.as_str().into();
        }
        if index % 3 == 0 {
            order.delivery.email = email.as_str().into();
        }
        system.send(&mut ledger, &[Draft::order(&order)]);
    }
    let erased = ledger.some_uid();
    system.send(&mut ledger, &[Draft::erasure(&erased)]);
    system.settle(&ledger);
    let rows = system.database().orders_of(&ledger.uids());
    let delivery =
        |row: &Row, field: &str| row.document.as_ref().unwrap()["delivery"][field].clone();
    let oldest_first: Vec<_> = newest_first(&rows, |_| true).into_iter().rev().collect();
    let [from, to] = [2, 8].map(|index| &rows[&oldest_first[index]]);
    let is_within = |row: &Row| (from.created_at..to.created_at).contains(&row.created_at);

    let encoded = |text: &str| text.replace('+', "%2B");
    let (by_phone, by_email) = (
        format!("phone={}", encoded(&phone)),
        format!("email={}", encoded(&email)),
    );
    let by_period = format!("customer_id={customer}&{}", period(from, to));
    let has_phone = |row: &Row| delivery(row, "phone") == *phone;
    let has_email = |row: &Row| delivery(row, "email") == *email;
    let cases = [
        (by_phone.clone(), newest_first(&rows, has_phone)),
        (by_email.clone(), newest_first(&rows, has_email)),
        (
            format!("{by_phone}&{by_email}"),
            newest_first(&rows, |row| has_phone(row) && has_email(row)),
        ),
        (by_period, newest_first(&rows, is_within)),
    ];
    let http = Http::new();
    for url in system.api_urls() {
        for (query, expected) in &cases {
            assert_listed_and_exported(&http, url, query, expected);
        }
        for (query, code) in [
            ("e-mail=a@example.com", "unknown_parameter"),
            ("limit=1&limit=2", "repeated_parameter"),
        ] {
            let rejected = http.get(&format!("{url}/orders?{query}"));
            assert_eq!(rejected.problem(400), code);
        }
    }
}

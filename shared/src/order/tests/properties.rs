//! Properties of every order, tested on many orders.

use std::collections::HashSet;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::*;
use crate::order::sample::{Defect, Generator, broken_json, gibberish};
use crate::order::{OrderUid, Version};

#[test]
fn generated_orders_are_valid_and_their_json_is_stable() {
    for order in Generator::new(1, 1..=20).take(500) {
        let json = order.to_json();
        let decoded =
            decode(&json, UnknownFields::Reject).unwrap_or_else(|rejection| panic!("{rejection}"));
        assert!(decoded.order == order);
        assert_eq!(decoded.order.to_json(), json);
        assert!(OrderUid::parse(&order.order_uid).is_ok());
    }
}

#[test]
fn every_accepted_document_round_trips() {
    let mut order = model();
    order["delivery"]["name"] = "\u{2028}\"\\/ \u{e9} e\u{301} \u{10ffff}".into();
    order["internal_signature"] = "\u{1}\u{8}\t\n\u{c}\r\u{1f}\u{7f}".into();
    order["date_created"] = "2025-09-01T12:34:56.123456789+03:00".into();
    order["foreign"] = Value::Null;
    let first = read(&order).unwrap().order;
    let json = first.to_json();
    let second = decode(&json, UnknownFields::Reject).unwrap().order;
    assert!(first == second);
    assert_eq!(second.to_json(), json);
    assert_eq!(first.delivery.name.as_str(), order["delivery"]["name"]);
    assert_eq!(
        first.internal_signature.as_str(),
        order["internal_signature"]
    );
}

#[test]
fn generator_follows_its_seed() {
    let jsons = |seed| {
        Generator::new(seed, 1..=5)
            .take(200)
            .map(|order| order.to_json())
            .collect::<Vec<_>>()
    };
    assert_eq!(jsons(7), jsons(7));
    let uids: HashSet<_> = (0..5)
        .flat_map(|seed| Generator::new(seed, 1..=5).take(200))
        .map(|order| order.order_uid)
        .collect();
    assert_eq!(uids.len(), 1000);
    assert!(uids.iter().any(|uid| uid.contains('-')) && uids.iter().any(|uid| !uid.contains('-')));
    let counts: HashSet<usize> = Generator::new(7, 2..=4)
        .take(100)
        .map(|order| order.items.len())
        .collect();
    assert_eq!(counts, HashSet::from([2, 3, 4]));
}

#[test]
fn each_defect_is_rejected_with_its_reason() {
    let orders: Vec<_> = Generator::new(2, 1..=3).take(20).collect();
    for defect in Defect::ALL {
        for order in &orders {
            let json = defect.apply(order);
            assert!(serde_json::from_slice::<Value>(&json).is_ok(), "{defect:?}");
            let rejection = decode(&json, UnknownFields::Reject).unwrap_err();
            assert_eq!(rejection.reason, defect.reason(), "{defect:?}: {rejection}");
            // One defect breaks exactly one rule.
            assert!(
                !rejection.detail.contains(", ") || rejection.reason != Reason::InvalidOrder,
                "{rejection}"
            );
        }
    }
    assert!(Defect::of_rules().count() > 30);
}

#[test]
fn broken_json_and_gibberish_are_malformed() {
    let mut rng = StdRng::seed_from_u64(3);
    for order in Generator::new(3, 1..=5).take(500) {
        assert_malformed(broken_json(&order, &mut rng), "");
        assert_malformed(gibberish(&mut rng), "not ");
    }
}

#[test]
fn versions_sort_like_their_texts() {
    let mut rng = StdRng::seed_from_u64(4);
    // Few values, so that equal parts are common, and the greatest values, so that carries are
    // common.
    let mut number = |max: i64| match rng.random_range(0..3) {
        0 => rng.random_range(0..3),
        1 => rng.random_range(0..=max),
        _ => max,
    };
    let versions: Vec<Version> = (0..300)
        .map(|_| {
            let partition = i32::try_from(number(i64::from(i32::MAX))).unwrap();
            Version::new(number(i64::MAX), number(i64::MAX), partition)
        })
        .collect();
    for a in &versions {
        assert_eq!(a.to_string().parse(), Ok(*a));
        for b in &versions {
            assert_eq!(a.cmp(b), a.to_string().cmp(&b.to_string()));
        }
    }
}

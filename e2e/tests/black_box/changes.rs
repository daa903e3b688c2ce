//! A change reaches every tier and every replica.

use e2e::{Answer, Draft, Ledger, System};
use shared::order::Order;

use crate::{order, orders};

/// Returns a check that the answer is this order. The error describes what differs.
fn is(order: &Order) -> impl Fn(&Answer) -> Result<(), String> {
    let json = order.to_json();
    move |answer| match answer.status == 200 && answer.body == json {
        true => Ok(()),
        false => Err(format!("{}: {}", answer.status, answer.text())),
    }
}

#[test]
fn a_change_is_visible_on_every_replica() {
    let system = System::join();
    let mut ledger = Ledger::default();
    let first = orders(&system).next().unwrap();
    let path = format!("/order/{}", first.order_uid);
    system.send(&mut ledger, &[Draft::order(&first)]);
    system.await_everywhere(&path, is(&first));
    for seed in 0..5 {
        let changed = order(&first.order_uid, seed);
        system.send(&mut ledger, &[Draft::order(&changed)]);
        system.await_everywhere(&path, is(&changed));
    }
    system.settle(&ledger);
    system.check_all(&ledger);
}

#[test]
fn an_order_cached_as_not_found_is_found_when_it_arrives() {
    let system = System::join();
    let mut ledger = Ledger::default();
    for order in orders(&system).take(3) {
        system.await_everywhere(&format!("/order/{}", order.order_uid), |answer| {
            // Any other answer fails the test at once.
            answer.problem(404);
            Ok(())
        });
        system.send(&mut ledger, &[Draft::order(&order)]);
        system.await_everywhere(&format!("/order/{}", order.order_uid), is(&order));
    }
    system.settle(&ledger);
    system.check_all(&ledger);
}

//! An order that is erased, stays erased, and comes back with a newer record.

use e2e::{Draft, Ledger, Stack};
use shared::order::{Order, sample::Generator};

fn order(uid: &str, seed: u64) -> Order {
    let mut order = Generator::new(seed, 2..=4)
        .next()
        .expect("the generator has no end");
    order.order_uid = uid.to_owned();
    order
}

#[test]
fn an_erased_order_stays_erased_until_a_newer_record_comes() {
    let mut stack = Stack::builder("erasure").workers(2).apis(2).start();
    let mut ledger = Ledger::default();
    let neighbours: Vec<Draft> = Generator::new(81, 1..=3)
        .take(20)
        .map(|order| Draft::order(&order))
        .collect();
    stack.send(&mut ledger, &neighbours);
    stack.send(&mut ledger, &[Draft::order(&order("gone", 82))]);
    stack.await_status("gone", 200);
    let before = stack.database().order("gone");

    // As the command does it: the newest record of the topic is then the one that it has sent.
    stack.command("producer", &["erase", "gone"]).succeeded();
    stack.await_status("gone", 410);
    stack.send(&mut ledger, &[Draft::erasure("gone")]);
    // An erasure of what was never there is remembered, too.
    stack.send(&mut ledger, &[Draft::erasure("never-there")]);
    stack.settle();
    stack.check().tiers(&ledger);
    stack.await_status("never-there", 410);
    for api in &stack.apis {
        for answer in [api.order("gone"), api.order_in_postgres("gone")] {
            assert!(answer.header("ETag").is_none());
            answer.problem(410);
        }
        let list = e2e::Http::new().get(&format!("{}/orders?limit=100", api.url()));
        assert!(!list.text().contains("\"gone\""));
    }

    // Everything once more, from the beginning, by a group that has seen nothing.
    stack.stop_workers();
    stack.use_new_group();
    stack.start_worker();
    stack.settle();
    stack.check().tiers(&ledger);
    for api in &stack.apis {
        api.order("gone").problem(410);
        api.order_in_postgres("gone").problem(410);
    }

    // An older record does not bring it back.
    let old =
        Draft::order(&order("gone", 83)).with_header("replay-version", Some(b"1600000000000/7/0"));
    stack.send(&mut ledger, &[old]);
    stack.settle();
    stack.check().tiers(&ledger);

    stack.send(&mut ledger, &[Draft::order(&order("gone", 84))]);
    stack.await_status("gone", 200);
    stack.settle();
    stack.check().tiers(&ledger);
    let after = stack.database().order("gone");
    assert_eq!((after.id, after.created_at), (before.id, before.created_at));
    for api in &stack.apis {
        stack.check().api(&ledger, &api.url(), "local");
        stack.check().api_in_postgres(&ledger, &api.url());
    }
}

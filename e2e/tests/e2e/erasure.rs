//! Erasure as an operator does it, and what a replay makes of it.

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
fn an_erased_order_stays_erased_when_everything_is_read_again() {
    let mut stack = Stack::builder("erasure").workers(2).apis(2).start();
    let mut ledger = Ledger::default();
    let neighbours: Vec<Draft> = Generator::new(81, 1..=3)
        .take(20)
        .map(|order| Draft::order(&order))
        .collect();
    stack.send(&mut ledger, &neighbours);
    stack.send(&mut ledger, &[Draft::order(&order("gone", 82))]);
    stack.await_status("gone", 200);

    // As the command does it: the newest record of the topic is then the one that it has sent.
    stack.command("producer", &["erase", "gone"]).succeeded();
    stack.await_status("gone", 410);
    stack.send(&mut ledger, &[Draft::erasure("gone")]);
    stack.settle();
    stack.check().tiers(&ledger);

    // By a group that has seen nothing.
    stack.stop_workers();
    stack.use_new_group();
    stack.start_worker();
    stack.settle();
    stack.check().tiers(&ledger);
    for api in &stack.apis {
        stack.check().api(&ledger, &api.url(), "local");
        stack.check().api_in_postgres(&ledger, &api.url());
    }
}

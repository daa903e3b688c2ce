//! A Redis Cluster, configured by its addresses only.

use e2e::{Api, Draft, Ledger, Stack, entries, rejected_samples, until, valid_samples};
use shared::{
    order::{Order, sample::Generator},
    testing::TestCluster,
};

/// Cached for so long that only an announcement can cause a new answer.
const FOR_EVER: [(&str, &str); 2] = [("LOCAL_CACHE_TTL", "1h"), ("NEGATIVE_CACHE_TTL", "1h")];

/// Waits until the replica returns every order in its newest version.
fn await_changes(api: &Api, ledger: &Ledger, orders: &[Order]) {
    until("every change on every replica", || {
        let newest = ledger.orders();
        let old = orders.iter().find(|order| {
            let answer = api.order(&order.order_uid);
            answer.status == 200
                && Some(&answer.body) != newest[order.order_uid.as_str()].json.as_ref()
        });
        old.map_or(Ok(()), |order| Err(order.order_uid.clone()))
    });
}

#[test]
fn a_redis_cluster_needs_only_its_addresses() {
    let cluster = TestCluster::start();
    let masters = cluster.config().url;
    let stack = FOR_EVER
        .iter()
        .fold(Stack::builder("cluster"), |builder, (name, value)| {
            builder.variable(name, value)
        })
        .redis(&masters)
        .workers(2)
        .apis(2)
        .start();
    let orders: Vec<Order> = Generator::new(181, 1..=3).take(300).collect();
    let mut ledger = Ledger::default();
    stack.send(
        &mut ledger,
        &orders.iter().map(Draft::order).collect::<Vec<_>>(),
    );
    stack.send(&mut ledger, &valid_samples(181));
    stack.send(&mut ledger, &rejected_samples(181));
    stack.settle();
    stack.check().tiers(&ledger);
    for master in masters.split(',') {
        assert!(
            !entries(master).unwrap().is_empty(),
            "{master} has its share"
        );
    }

    // Fills the local cache of every replica. Each master announces the changes of its own orders.
    for api in &stack.apis {
        until("announcements", || {
            match api.admin.state_of("announcements") {
                state if state == "subscribed" => Ok(()),
                other => Err(other),
            }
        });
        stack.check().api(&ledger, &api.url(), "local");
    }
    let changes: Vec<Draft> = orders
        .iter()
        .zip(Generator::new(182, 1..=3))
        .map(|(known, mut change)| {
            change.order_uid.clone_from(&known.order_uid);
            Draft::order(&change)
        })
        .chain([Draft::erasure(&orders[0].order_uid)])
        .collect();
    stack.send(&mut ledger, &changes);
    stack.settle();
    stack.check().tiers(&ledger);
    for api in &stack.apis {
        await_changes(api, &ledger, &orders);
        stack.check().api(&ledger, &api.url(), "local");
    }
}

//! Connections that a middlebox has forgotten: their data is acknowledged, but no answer arrives.
//! New connections work.

use std::thread;

use e2e::{Admin, Api, Draft, Ledger, Proxy, Stack, until};
use shared::{order::Reason, testing::TestCluster};

use crate::orders::{changes, drafts};

/// No local cache, so that each read depends on Redis.
const NO_LOCAL_CACHE: (&str, &str) = ("LOCAL_CACHE_MAX_BYTES", "0");

/// Pooled connections of an api, except one for its health check.
const POOLED: usize = 7;

#[track_caller]
fn await_state(admin: &Admin, name: &str, wanted: &str) {
    until(&format!("{name} to be {wanted}"), || {
        match admin.state_of(name) {
            state if state == wanted => Ok(()),
            other => Err(other),
        }
    });
}

/// Makes the link forget its connections while the api uses them. Waits until the api has replaced
/// all of them.
#[track_caller]
fn forget_and_await_new_ones(link: &Proxy, api: &Api, uid: &str) {
    let held = link.ports().len();
    assert!(held > 0, "a link without connections");
    link.forget_connections();
    until("the api to close the dead connections", || {
        api.order(uid);
        match link.forgotten() {
            0 => Ok(()),
            left => Err(format!("{left} of {held} are still open")),
        }
    });
}

#[test]
fn the_api_replaces_dead_connections_to_redis() {
    let mut stack = Stack::builder("forgotten-redis").workers(1).start();
    let mut ledger = Ledger::default();
    stack.send(&mut ledger, &drafts(301, 20));
    stack.settle();
    let link = Proxy::to(&stack.redis.url());
    let url = link.url(&stack.redis.url());
    let api = stack.start_api_with(&[("REDIS_URL", &url), NO_LOCAL_CACHE]);
    let uid = ledger.some_uid();
    for _ in 0..2 {
        api.await_source(&uid, "redis");
        await_state(&api.admin, "announcements", "subscribed");
        forget_and_await_new_ones(&link, api, &uid);
    }
    api.await_source(&uid, "redis");
    await_state(&api.admin, "redis", "up");
    await_state(&api.admin, "announcements", "subscribed");
}

#[test]
fn a_replica_with_a_dead_subscription_receives_changes_again() {
    let mut stack = Stack::builder("forgotten-subscription")
        .workers(1)
        .variable("LOCAL_CACHE_TTL", "1h")
        .start();
    let mut ledger = Ledger::default();
    stack.send(&mut ledger, &drafts(311, 5));
    stack.settle();
    let link = Proxy::to(&stack.redis.url());
    let url = link.url(&stack.redis.url());
    stack.start_api_with(&[("REDIS_URL", &url)]);
    let uid = ledger.some_uid();
    stack.apis[0].await_source(&uid, "local");
    forget_and_await_new_ones(&link, &stack.apis[0], &uid);
    await_state(&stack.apis[0].admin, "announcements", "subscribed");
    stack.apis[0].await_source(&uid, "local");
    // Only an announcement removes the entry, which the local cache would keep for an hour.
    stack.send(&mut ledger, &changes(311, 5));
    stack.settle();
    stack.await_answers(&ledger);
}

#[test]
fn the_api_replaces_dead_connections_to_a_cluster() {
    let cluster = TestCluster::start();
    let links: Vec<Proxy> = cluster
        .nodes()
        .iter()
        .map(|node| Proxy::to(&node.url()))
        .collect();
    let urls: Vec<String> = (cluster.nodes().iter().zip(&links))
        .map(|(node, link)| {
            announce(&node.url(), link);
            link.url(&node.url())
        })
        .collect();
    await_announced(&urls);
    let mut stack = Stack::builder("forgotten-cluster")
        .redis(&urls.join(","))
        .workers(1)
        .start();
    let mut ledger = Ledger::default();
    stack.send(&mut ledger, &drafts(321, 60));
    stack.settle();
    let api = stack.start_api_with(&[NO_LOCAL_CACHE]);
    let uids: Vec<String> = ledger.orders().into_keys().collect();
    for uid in &uids {
        api.await_source(uid, "redis");
    }
    // First one node, then all.
    for forgetful in [&links[..1], &links[..]] {
        forgetful.iter().for_each(Proxy::forget_connections);
        until("no call to hold a dead connection", || {
            for uid in &uids[..10] {
                api.order(uid);
            }
            match forgetful.iter().map(Proxy::forgotten).sum::<usize>() {
                0 => Ok(()),
                left => Err(format!("{left} are still open")),
            }
        });
        for uid in &uids {
            api.await_source(uid, "redis");
        }
        await_state(&api.admin, "redis", "up");
    }
    stack.send(&mut ledger, &changes(321, 60));
    stack.settle();
    stack.check().tiers(&ledger);
}

/// Makes a node of a cluster announce the link as its address.
#[track_caller]
fn announce(url: &str, link: &Proxy) {
    let address = link.address();
    let (_, port) = address.rsplit_once(':').unwrap();
    let mut connection = redis::Client::open(url).unwrap().get_connection().unwrap();
    let set = redis::cmd("CONFIG")
        .arg(&["SET", "cluster-announce-port", port])
        .exec(&mut connection);
    set.unwrap();
}

/// Waits until every node knows every other node by its link.
#[track_caller]
fn await_announced(urls: &[String]) {
    let known_at = |url: &str| -> redis::RedisResult<usize> {
        let mut connection = redis::Client::open(url)?.get_connection()?;
        let nodes: String = redis::cmd("CLUSTER").arg("NODES").query(&mut connection)?;
        let known = |url: &&String| nodes.contains(&format!("{}@", &url["redis://".len()..]));
        Ok(urls.iter().filter(known).count())
    };
    for url in urls {
        until("every node by its link", || match known_at(url) {
            Ok(known) if known == urls.len() => Ok(()),
            other => Err(format!("{other:?}")),
        });
    }
}

#[test]
fn dead_connections_to_postgres_are_replaced_together() {
    let mut stack = Stack::builder("forgotten-postgres").start();
    let link = Proxy::to(&stack.addresses().database_url);
    let url = link.url(&stack.addresses().database_url);
    stack.start_api_with(&[("DATABASE_URL", &url)]);
    open_connections(&stack, &link);
    let api = &stack.apis[0];
    let failures = || api.admin.metric("db_errors_total", "class=\"transient\"");
    let (before, held) = (failures(), link.ports().len());
    assert!(held >= POOLED, "{held} connections");
    link.forget_connections();
    until("the api to have no dead connection", || {
        api.order_in_postgres("absent");
        match link.forgotten() {
            0 => Ok(()),
            left => Err(format!("{left} of {held} are still open")),
        }
    });
    until("an answer of Postgres", || {
        match api.order_in_postgres("absent") {
            answer if answer.status == 404 => Ok(()),
            answer => Err(answer.text()),
        }
    });
    await_state(&api.admin, "postgres", "up");
    // A read and the health check may each have used a connection at that moment.
    let failed = failures() - before;
    assert!(
        (1..=2).contains(&failed),
        "{failed} calls met a dead connection"
    );
}

/// Makes the api open all its pooled connections: a lock blocks one read on each.
#[track_caller]
fn open_connections(stack: &Stack, link: &Proxy) {
    let api = &stack.apis[0];
    let mut session = stack.database().session();
    session.execute("BEGIN; LOCK TABLE orders IN ACCESS EXCLUSIVE MODE");
    thread::scope(|scope| {
        // Reads past the caches get only a share of the connections, and one uid only one read.
        for n in 0..POOLED {
            scope.spawn(move || api.order(&format!("absent-{n}")));
        }
        until("a connection for each read", || match link.ports().len() {
            POOLED.. => Ok(()),
            open => Err(format!("{open} connections")),
        });
        session.execute("COMMIT");
    });
}

#[test]
fn a_worker_continues_after_its_connections_are_forgotten() {
    let mut stack = Stack::builder("forgotten-worker").apis(1).start();
    let redis = Proxy::to(&stack.redis.url());
    let postgres = Proxy::to(&stack.addresses().database_url);
    let redis_url = redis.url(&stack.redis.url());
    let database_url = postgres.url(&stack.addresses().database_url);
    stack.start_worker_with(&[
        ("REDIS_URL", &redis_url),
        ("DATABASE_URL", &database_url),
        ("DATABASE_TIMEOUT", "1s"),
    ]);
    let mut ledger = Ledger::default();
    stack.send(&mut ledger, &drafts(331, 100));
    stack.settle();
    for round in 0..2 {
        redis.forget_connections();
        postgres.forget_connections();
        stack.send(&mut ledger, &changes(331, 50));
        stack.send(&mut ledger, &drafts(332 + round, 50));
        stack.settle();
        stack.check().tiers(&ledger);
        until("no dead connection in a pool", || {
            match (redis.forgotten(), postgres.forgotten()) {
                (0, 0) => Ok(()),
                left => Err(format!("{left:?} are still open")),
            }
        });
    }
    for name in ["postgres", "redis"] {
        await_state(&stack.workers[0].admin, name, "up");
    }
}

#[test]
fn kafka_clients_replace_dead_connections() {
    let stack = Stack::builder("forgotten-kafka")
        .private_kafka()
        .workers(1)
        .start();
    let mut ledger = Ledger::default();
    stack.send(&mut ledger, &drafts(341, 50));
    stack.send(
        &mut ledger,
        &[Draft::rejected(Reason::MalformedJson, "rubbish")],
    );
    stack.settle();
    // The connections of the consumer, its coordinator, the dead letter producer and the test
    // itself.
    stack.kafka().link().forget_connections();
    stack
        .command("producer", &["send", "-n", "10", "--seed", "342"])
        .succeeded();
    until("the worker to go on", || match stack.progress() {
        (finished, all) if finished == all => Ok(()),
        (finished, all) => Err(format!("{finished} of {all}")),
    });
}

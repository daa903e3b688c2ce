//! Event streams of one order and of all orders.

use redis::AsyncCommands;
use shared::testing::eventually;
use tokio::net::TcpSocket;

use crate::harness::{Event, EventStream, Replica, World, event_id, order};

/// Stores the order `name` with the version of `offset`, and announces it. Returns its document.
async fn publish(world: &World, name: &str, offset: i64) -> String {
    let mut order = order(name);
    order.delivery_service = format!("service-{offset}").into();
    let revision = world.store(&order, offset).await;
    world.announce(&revision).await;
    String::from_utf8(order.to_json()).unwrap()
}

/// Asserts that the next event is the document of `offset`.
async fn expect_order(stream: &mut EventStream, offset: i64, document: &str) {
    let expected = Event {
        name: "order".to_owned(),
        id: Some(event_id(offset)),
        data: document.to_owned(),
    };
    assert_eq!(stream.event().await, Some(expected));
}

/// Asserts that the next event is `name` with uid and version.
async fn expect_change(stream: &mut EventStream, name: &str, uid: &str, offset: i64) {
    let (event, id) = (stream.expect(name).await, event_id(offset));
    assert_eq!(event.id.as_ref(), Some(&id));
    assert_eq!(
        event.json(),
        serde_json::json!({"order_uid": uid, "version": id})
    );
}

async fn linked_replica(world: &World) -> Replica {
    let replica = world.replica().await;
    replica.wait_for_check("announcements", "subscribed").await;
    replica.wait_for_check("redis", "up").await;
    replica
}

#[tokio::test]
async fn a_watched_order_arrives_at_once_and_after_each_change() {
    let world = World::new().await;
    let first = publish(&world, "watched", 1).await;
    let replicas = [linked_replica(&world).await, linked_replica(&world).await];
    let mut streams = Vec::new();
    for replica in &replicas {
        let stream = replica.watch("/order/watched/events").await;
        assert_eq!(stream.head.status, 200);
        for (name, value) in [
            ("content-type", "text/event-stream; charset=utf-8"),
            ("cache-control", "no-store"),
            ("x-accel-buffering", "no"),
            ("transfer-encoding", "chunked"),
        ] {
            assert_eq!(stream.head.header(name), Some(value));
        }
        streams.push(stream);
    }
    for stream in &mut streams {
        expect_order(stream, 1, &first).await;
    }
    let second = publish(&world, "watched", 2).await;
    for stream in &mut streams {
        expect_order(stream, 2, &second).await;
    }
    let erased = world.erase("watched", 3).await;
    world.announce(&erased).await;
    for stream in &mut streams {
        expect_change(stream, "erased", "watched", 3).await;
    }
    let again = publish(&world, "watched", 4).await;
    for stream in &mut streams {
        expect_order(stream, 4, &again).await;
    }
    assert_eq!(
        replicas[0].metric(r#"events_sent_total{event="order"}"#),
        3.0
    );
    assert_eq!(
        replicas[0].metric(r#"events_sent_total{event="erased"}"#),
        1.0
    );
}

#[tokio::test]
async fn a_change_of_any_order_arrives_without_its_document() {
    let world = World::new().await;
    let replica = linked_replica(&world).await;
    let mut stream = replica.watch("/orders/events").await;
    publish(&world, "first", 1).await;
    publish(&world, "second", 2).await;
    let erased = world.erase("first", 3).await;
    world.announce(&erased).await;
    for (uid, offset) in [("first", 1), ("second", 2), ("first", 3)] {
        expect_change(&mut stream, "change", uid, offset).await;
    }
    // The caches were invalidated first.
    assert_eq!(replica.order("first").await.status, 410);
}

#[tokio::test]
async fn what_cannot_be_watched_gets_the_answer_of_a_lookup() {
    let world = World::new().await;
    world.store(&order("erased"), 1).await;
    world.announce(&world.erase("erased", 2).await).await;
    let replica = linked_replica(&world).await;
    for (path, status, code) in [
        ("/order/unknown/events", 404, "order_not_found"),
        ("/order/a%20b/events", 400, "malformed_uid"),
        ("/order/erased/events", 410, "order_erased"),
    ] {
        replica.get(path).await.assert_problem(status, code);
    }
    replica.wait_for_watchers("order", 0).await;
    let off = world
        .replica_with(|config| config.cache.enabled = false)
        .await;
    for path in ["/order/erased/events", "/orders/events"] {
        let answer = off.get(path).await;
        answer.assert_temporary_problem(503, "events_disabled");
    }
}

#[tokio::test]
async fn head_returns_the_headers_and_opens_no_stream() {
    let world = World::new().await;
    publish(&world, "watched", 1).await;
    let replica = linked_replica(&world).await;
    for path in ["/order/watched/events", "/orders/events"] {
        let answer = replica.request("HEAD", path).send().await;
        assert_eq!((answer.status, answer.body.len()), (200, 0));
        let content_type = answer.header("content-type");
        assert_eq!(content_type, Some("text/event-stream; charset=utf-8"));
    }
    replica.wait_for_watchers("order", 0).await;
    replica.wait_for_watchers("orders", 0).await;
}

#[tokio::test]
async fn a_client_that_reconnects_gets_only_what_it_lacks() {
    let world = World::new().await;
    let document = publish(&world, "watched", 2).await;
    let replica = linked_replica(&world).await;
    let path = "/order/watched/events";
    let mut same = replica.watch_after(path, &event_id(2)).await;
    for last in [event_id(1), String::new(), "not-a-version".to_owned()] {
        let mut other = replica.watch_after(path, &last).await;
        expect_order(&mut other, 2, &document).await;
    }
    let document = publish(&world, "watched", 3).await;
    expect_order(&mut same, 3, &document).await;
    let mut all = replica.watch_after("/orders/events", &event_id(1)).await;
    all.expect_reset("reconnected").await;
}

#[tokio::test]
async fn watchers_of_an_order_share_one_lookup() {
    const WATCHERS: usize = 50;
    let world = World::new().await;
    publish(&world, "watched", 1).await;
    let replica = linked_replica(&world).await;
    let mut streams = Vec::new();
    for _ in 0..WATCHERS {
        let mut stream = replica.watch("/order/watched/events").await;
        stream.expect("order").await;
        streams.push(stream);
    }
    let lookups = || {
        let found = ["hit", "miss", "bypass", "error", "corrupt"];
        found
            .map(|result| replica.cache_requests("redis", result))
            .iter()
            .sum::<f64>()
    };
    let before = lookups();
    let document = publish(&world, "watched", 2).await;
    for stream in &mut streams {
        expect_order(stream, 2, &document).await;
    }
    assert_eq!(lookups() - before, 1.0);
    // A client that leaves is noticed, although nothing is sent to it.
    replica.wait_for_watchers("order", 50).await;
    drop(streams);
    replica.wait_for_watchers("order", 0).await;
}

#[tokio::test]
async fn a_lost_link_resets_streams_and_watched_orders_stay_current() {
    let mut world = World::new().await;
    let document = publish(&world, "watched", 1).await;
    let replica = linked_replica(&world).await;
    let mut one = replica.watch("/order/watched/events").await;
    let mut all = replica.watch("/orders/events").await;
    expect_order(&mut one, 1, &document).await;
    world.redis.kill();
    one.expect_reset("lost").await;
    all.expect_reset("lost").await;
    // An update without an announcement.
    let mut changed = order("watched");
    changed.delivery_service = "other".into();
    world.store(&changed, 2).await;
    let document = String::from_utf8(changed.to_json()).unwrap();
    expect_order(&mut one, 2, &document).await;

    world.redis.restart();
    one.expect_reset("resumed").await;
    all.expect_reset("resumed").await;
    let document = publish(&world, "watched", 3).await;
    expect_order(&mut one, 3, &document).await;
    expect_change(&mut all, "change", "watched", 3).await;
}

#[tokio::test]
async fn shutdown_ends_streams_at_once() {
    let world = World::new().await;
    publish(&world, "watched", 1).await;
    let replica = linked_replica(&world).await;
    let mut one = replica.watch("/order/watched/events").await;
    let mut all = replica.watch("/orders/events").await;
    one.expect("order").await;
    replica.wait_for_watchers("orders", 1).await;
    replica.begin_stop();
    // Both end with the last chunk, which `event` asserts.
    assert_eq!((one.event().await, all.event().await), (None, None));
    replica.stopped().await;
    let next = linked_replica(&world).await;
    let document = publish(&world, "watched", 2).await;
    let mut one = next
        .watch_after("/order/watched/events", &event_id(1))
        .await;
    expect_order(&mut one, 2, &document).await;
}

#[tokio::test]
async fn a_client_that_reads_too_slowly_is_disconnected() {
    let world = World::new().await;
    let replica = linked_replica(&world).await;
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let slow = replica.request("GET", "/orders/events");
    let slow = slow.connect_through(socket).await;
    replica.wait_for_watchers("orders", 1).await;
    let mut fast = replica.watch("/orders/events").await;
    replica.wait_for_watchers("orders", 2).await;
    let mut redis = world.redis.connect().await;
    let line = |offset: i64| format!("any {}\n", event_id(offset));
    for batch in 0..100 {
        let message: String = (batch * 500..(batch + 1) * 500).map(line).collect();
        let (): () = redis.publish("order-changes", message).await.unwrap();
        for offset in batch * 500..(batch + 1) * 500 {
            let event = fast.expect("change").await;
            assert_eq!(event.id, Some(event_id(offset)));
        }
    }
    // The client reads again: it gets what was sent before the end.
    let mut slow = EventStream::over(slow).await;
    let mut received = 0;
    while let Some(event) = slow.event().await {
        assert_eq!(event.id, Some(event_id(received)));
        received += 1;
    }
    assert!(received < 50_000, "{received}");
    eventually("one slow watcher", async || {
        (replica.metric("event_watchers_slow_total") == 1.0).then_some(())
    })
    .await;
    replica.wait_for_watchers("orders", 1).await;
}

//! Connections: reuse, pipelining, the limit of a request head.

use crate::harness::{World, order};

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n")
}

#[tokio::test]
async fn a_connection_serves_one_request_after_another() {
    let world = World::new().await;
    let known = order("known");
    world.store(&known, 1).await;
    let replica = world.cold_replica().await;
    let mut connection = replica.connect().await;
    connection.send(&get("/order/known")).await;
    connection.receive().await.assert_order("postgres", &known);
    connection.send(&get("/nothing")).await;
    let nothing = connection.receive().await;
    nothing.assert_problem(404, "not_found");
    connection.send(&get("/order/known")).await;
    connection.receive().await.assert_order("local", &known);
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let world = World::new().await;
    let (slow, fast) = (order("slow"), order("fast"));
    world.store(&slow, 1).await;
    world.store(&fast, 2).await;
    let replica = world.cold_replica().await;
    assert_eq!(replica.order("fast").await.status, 200);
    let lock = world.database.lock("orders").await;
    let mut connection = replica.connect().await;
    let both = get("/order/slow") + &get("/order/fast");
    connection.send(&both).await;
    world.wait_for_blocked_reads(1).await;
    drop(lock);
    connection.receive().await.assert_order("postgres", &slow);
    connection.receive().await.assert_order("local", &fast);
}

#[tokio::test]
async fn a_head_above_the_limit_gets_431() {
    let world = World::new().await;
    let replica = world.replica().await;
    let mut connection = replica.connect().await;
    // The head reaches the limit and has no end. The server reads all of it, and closes the
    // connection without a reset.
    let lines = "GET / HTTP/1.1\r\nHost: localhost\r\nX-Filler: ";
    let filler = "x".repeat(64 * 1024 - lines.len());
    connection.send(&format!("{lines}{filler}")).await;
    let response = connection.receive().await;
    assert_eq!((response.status, response.body.len()), (431, 0));
    connection.closed().await;
}

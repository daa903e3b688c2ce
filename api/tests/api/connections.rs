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
async fn a_head_above_the_limit_gets_431_on_both_ports() {
    let world = World::new().await;
    let replica = world.replica().await;
    for is_public in [true, false] {
        // Neither a head without an end nor a whole one may be that large.
        for end in ["", "\r\n\r\n"] {
            let lines = "GET /livez HTTP/1.1\r\nHost: localhost\r\nX-Filler: ";
            let filler = "x".repeat(100 * 1024);
            let mut connection = match is_public {
                true => replica.connect().await,
                false => replica.connect_to_admin().await,
            };
            connection.send(&format!("{lines}{filler}{end}")).await;
            let response = connection.receive().await;
            assert_eq!(response.status, 431);
            if is_public {
                response.assert_problem(431, "head_too_large");
            }
            connection.closed().await;
        }
    }
}

#[tokio::test]
async fn a_head_at_the_limit_is_served() {
    let world = World::new().await;
    let replica = world.replica().await;
    let lines = "GET /order/unknown HTTP/1.1\r\nHost: localhost\r\nX-Filler: ";
    let filler = "x".repeat(16 * 1024 - lines.len() - 4);
    let mut connection = replica.connect().await;
    connection.send(&format!("{lines}{filler}\r\n\r\n")).await;
    let response = connection.receive().await;
    response.assert_problem(404, "order_not_found");
}

#[tokio::test]
async fn a_malformed_request_gets_a_problem_and_ends_the_connection() {
    let world = World::new().await;
    let known = order("known");
    world.store(&known, 1).await;
    let replica = world.cold_replica().await;
    let mut connection = replica.connect().await;
    let smuggled = "POST /orders/batch-get HTTP/1.1\r\nHost: a\r\nContent-Length: 50\r\n\
                    Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
    let all = [&get("/order/known"), smuggled, &get("/order/known")].concat();
    connection.send(&all).await;
    connection.receive().await.assert_order("postgres", &known);
    let response = connection.receive().await;
    response.assert_problem(400, "bad_request");
    assert!(response.header("x-request-id").is_some());
    assert_eq!(response.header("connection"), Some("close"));
    connection.closed().await;
}

#[tokio::test]
async fn a_body_that_stays_incomplete_gets_408() {
    let world = World::new().await;
    let replica = world.replica().await;
    let mut connection = replica.connect().await;
    let lines = "POST /orders/batch-get HTTP/1.1\r\nHost: a\r\nContent-Type: application/json";
    let body = r#"{"order_uids":["a"]"#;
    let length = body.len() + 1;
    let request = format!("{lines}\r\nContent-Length: {length}\r\n\r\n{body}");
    connection.send(&request).await;
    let response = connection.receive().await;
    response.assert_problem(408, "body_incomplete");
    connection.closed().await;
}

#[tokio::test]
async fn an_address_may_have_a_limited_number_of_connections() {
    let world = World::new().await;
    let replica = world
        .replica_with(|config| config.api.max_connections_per_address = 2)
        .await;
    let (mut first, _second) = (replica.connect().await, replica.connect().await);
    let mut third = replica.connect().await;
    third.closed().await;
    first.send(&get("/nothing")).await;
    first.receive().await.assert_problem(404, "not_found");
    let closed = r#"http_connections_closed_total{port="public",reason="address"}"#;
    assert_eq!(replica.metric(closed), 1.0);
}

#[tokio::test]
async fn probes_answer_while_clients_fill_the_admin_port() {
    let world = World::new().await;
    let replica = world.replica().await;
    // More than the port accepts: silent ones, unfinished heads, and clients that do not read.
    let mut crowd = Vec::new();
    for start in [
        "",
        "GET /livez HTTP/1.1\r\nX: ",
        &get("/metrics").repeat(20),
    ] {
        for _ in 0..100 {
            let mut connection = replica.connect_to_admin().await;
            connection.try_send(start).await;
            crowd.push(connection);
        }
        let mut probe = replica.connect_to_admin().await;
        probe.send(&get("/livez")).await;
        assert_eq!(probe.receive().await.status, 200);
    }
    let evicted = r#"http_connections_closed_total{port="admin",reason="evicted"}"#;
    assert!(replica.metric(evicted) >= 200.0);
}

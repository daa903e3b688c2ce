//! `GET /orders/export`.

use shared::order::Order;
use tokio::{io::AsyncReadExt, net::TcpStream};

use crate::harness::{Response, World, order};

/// An order of about 75 kB. 400 of them exceed all buffers between the server and the client.
fn large(number: usize) -> Order {
    let mut large = order(&format!("large-{number}"));
    large.items = vec![large.items[0].clone(); 300];
    large
}

/// Decodes a chunked body. Returns whether it has its last chunk.
fn dechunked(mut body: &[u8]) -> (Vec<u8>, bool) {
    let mut decoded = Vec::new();
    loop {
        let Some(end) = body.windows(2).position(|bytes| bytes == b"\r\n") else {
            return (decoded, false);
        };
        let size = std::str::from_utf8(&body[..end]).unwrap();
        let size = usize::from_str_radix(size, 16).unwrap();
        let Some(chunk) = body.get(end + 2..end + 2 + size + 2) else {
            return (decoded, false);
        };
        if size == 0 {
            return (decoded, true);
        }
        decoded.extend_from_slice(&chunk[..size]);
        body = &body[end + 2 + size + 2..];
    }
}

/// Returns the body of a complete export.
#[track_caller]
fn body_of(response: &Response) -> String {
    assert_eq!(response.status, 200, "{response:?}");
    assert_eq!(response.header("transfer-encoding"), Some("chunked"));
    let (body, is_complete) = dechunked(&response.body);
    assert!(is_complete);
    String::from_utf8(body).unwrap()
}

/// Returns the lines that an export of `orders` has, in the order of `orders`.
fn lines<'a>(orders: impl IntoIterator<Item = &'a Order>) -> String {
    let line = |order: &Order| String::from_utf8(order.to_json()).unwrap() + "\n";
    orders.into_iter().map(line).collect()
}

/// Reads a response until the server closes the connection. Returns whether it is complete.
async fn is_complete(mut client: TcpStream) -> bool {
    let mut response = Vec::new();
    // The server may reset the connection.
    let _ = client.read_to_end(&mut response).await;
    let head = response.windows(4).position(|bytes| bytes == b"\r\n\r\n");
    dechunked(&response[head.unwrap() + 4..]).1
}

#[tokio::test]
async fn an_export_has_the_documents_of_all_orders_newest_first() {
    let world = World::new().await;
    let orders: Vec<_> = (0..1300).map(|n| order(&format!("order-{n}"))).collect();
    for (batch, orders) in orders.chunks(100).enumerate() {
        world.store_all(orders, batch as i64).await;
    }
    world.erase("order-700", 1000).await;
    let replica = world.replica().await;
    let list = replica.get("/orders?limit=100").await.json();
    let export = replica.get("/orders/export").await;
    assert_eq!(export.header("content-type"), Some("application/x-ndjson"));
    assert_eq!(export.header("cache-control"), Some("no-store"));
    assert_eq!(
        export.header("content-disposition"),
        Some("attachment; filename=\"orders.ndjson\"")
    );
    let body = body_of(&export);
    let exported: Vec<Order> = body
        .lines()
        .map(|line| {
            let uid = serde_json::from_str::<serde_json::Value>(line).unwrap();
            order(uid["order_uid"].as_str().unwrap())
        })
        .collect();
    assert_eq!(body, lines(&exported));
    let mut numbers: Vec<usize> = exported
        .iter()
        .map(|order| order.order_uid["order-".len()..].parse().unwrap())
        .collect();
    let newest: Vec<_> = list["orders"].as_array().unwrap().iter().collect();
    for (order, listed) in exported.iter().zip(newest) {
        assert_eq!(order.order_uid, listed["order_uid"].as_str().unwrap());
    }
    numbers.sort_unstable();
    assert_eq!(numbers, (0..1300).filter(|n| *n != 700).collect::<Vec<_>>());
    let csv = replica
        .request("GET", "/orders/export")
        .header("Accept", "text/csv")
        .send()
        .await;
    assert_eq!(body_of(&csv).lines().count(), 1300);
}

#[tokio::test]
async fn csv_has_a_header_and_a_line_for_each_summary() {
    let world = World::new().await;
    let mut stored = order("-1");
    stored.customer_id = "=cmd|\"calc\", A1".into();
    world.store(&stored, 1).await;
    let replica = world.replica().await;
    let created_at = replica.get("/orders").await.json()["orders"][0]["created_at"].clone();
    let csv = async |path: &str| {
        let request = replica.request("GET", path).header("Accept", "text/csv");
        request.send().await
    };
    let export = csv("/orders/export").await;
    assert_eq!(
        export.header("content-type"),
        Some("text/csv; charset=utf-8; header=present")
    );
    assert_eq!(
        export.header("content-disposition"),
        Some("attachment; filename=\"orders.csv\"")
    );
    let header = "order_uid,track_number,customer_id,date_created,created_at,currency,amount,\
                  item_count\r\n";
    let line = format!(
        "'-1,WBILMTESTTRACK,\"'=cmd|\"\"calc\"\", A1\",2021-11-26T06:22:19Z,{},USD,1817,1\r\n",
        created_at.as_str().unwrap()
    );
    assert_eq!(body_of(&export), format!("{header}{line}"));
    let none = csv("/orders/export?customer_id=none").await;
    assert_eq!(body_of(&none), header);
    let none = replica.get("/orders/export?customer_id=none").await;
    assert_eq!(body_of(&none), "");
}

#[tokio::test]
async fn an_export_takes_the_filters_of_the_list() {
    let world = World::new().await;
    let (mut alice, mut bob) = (order("a"), order("b"));
    alice.customer_id = "alice".into();
    bob.delivery.phone = "+15550100".into();
    bob.delivery.email = "bob+1@example.com".into();
    world.store(&alice, 1).await;
    world.store(&bob, 1).await;
    let replica = world.replica().await;
    for (query, expected) in [
        ("customer_id=alice", vec![&alice]),
        ("track_number=WBILMTESTTRACK", vec![&bob, &alice]),
        ("phone=%2B15550100", vec![&bob]),
        ("email=bob%2B1@example.com", vec![&bob]),
        ("created_from=2000-01-01T00:00:00Z", vec![&bob, &alice]),
        ("created_to=2000-01-01T00:00:00Z", vec![]),
    ] {
        let export = replica.get(&format!("/orders/export?{query}")).await;
        assert_eq!(body_of(&export), lines(expected), "{query}");
    }
}

#[tokio::test]
async fn requests_that_cannot_be_exported_get_a_problem() {
    let world = World::new().await;
    let replica = world.replica().await;
    for (query, code) in [
        ("limit=1", "unknown_parameter"),
        ("cursor=1", "unknown_parameter"),
        ("phone=%2B15550100&phone=%2B15550100", "repeated_parameter"),
        ("phone=15550100", "bad_request"),
    ] {
        let export = replica.get(&format!("/orders/export?{query}")).await;
        export.assert_problem(400, code);
    }
    let json = replica
        .request("GET", "/orders/export")
        .header("Accept", "application/json")
        .send()
        .await;
    json.assert_problem(406, "not_acceptable");
    // The end of the connection is the end of a response of HTTP/1.0, also if it is incomplete.
    let old = replica
        .send_head(&["GET /orders/export HTTP/1.0", "Host: a"])
        .await;
    old.assert_problem(400, "bad_request");
    world.database.shut().await;
    replica.wait_for_check("postgres", "down").await;
    let down = replica.get("/orders/export").await;
    down.assert_temporary_problem(503, "unavailable");
    // It needs no database.
    let head = replica
        .request("HEAD", "/orders/export")
        .header("Accept", "text/csv")
        .send()
        .await;
    assert_eq!((head.status, head.body.len()), (200, 0), "{head:?}");
    assert!(head.header("content-disposition").is_some());
}

#[tokio::test]
async fn an_export_that_fails_in_the_middle_is_incomplete() {
    let world = World::new().await;
    for batch in 0..20 {
        let orders: Vec<_> = (0..20).map(|n| large(batch * 20 + n)).collect();
        world.store_all(&orders, 1).await;
    }
    let replica = world.cold_replica().await;
    let mut client = replica.request("GET", "/orders/export").connect().await;
    let mut start = [0; 100_000];
    client.read_exact(&mut start).await.unwrap();
    assert!(start.starts_with(b"HTTP/1.1 200 "));
    world.database.shut().await;
    let mut rest = Vec::new();
    let _ = client.read_to_end(&mut rest).await;
    let (head, body) = ([&start[..], &rest].concat(), b"\r\n\r\n");
    let head_end = head.windows(4).position(|bytes| bytes == body).unwrap() + 4;
    let (body, is_complete) = dechunked(&head[head_end..]);
    assert!(!is_complete);
    assert!(body.len() < 400 * large(0).to_json().len());
}

#[tokio::test]
async fn exports_are_limited_and_a_client_that_leaves_ends_its_export() {
    let world = World::new().await;
    for batch in 0..20 {
        let orders: Vec<_> = (0..20).map(|n| large(batch * 20 + n)).collect();
        world.store_all(&orders, 1).await;
    }
    let replica = world.cold_replica().await;
    let mut clients = Vec::new();
    for _ in 0..4 {
        let mut client = replica.request("GET", "/orders/export").connect().await;
        client.read_exact(&mut [0; 12]).await.unwrap();
        clients.push(client);
    }
    let small = "/orders/export?customer_id=none";
    let rejected = replica.get(small).await;
    rejected.assert_temporary_problem(503, "too_many_exports");
    drop(clients.pop());
    replica.wait_for_status(small, 200).await;

    // The remaining ones end as errors when the drain of the shutdown ends.
    replica.begin_stop();
    replica.stopped().await;
    for client in clients {
        assert!(!is_complete(client).await);
    }
}

#[tokio::test]
async fn exports_leave_most_of_the_database_to_lookups() {
    let world = World::new().await;
    let replica = world.cold_replica().await;
    let lock = world.database.lock("orders").await;
    let mut clients = Vec::new();
    for _ in 0..4 {
        let export = replica.request("GET", "/orders/export");
        clients.push(export.header("Accept", "text/csv").connect().await);
    }
    world.wait_for_blocked_reads(1).await;
    // Of the four connections, one is for the health check, and one of three calls for exports.
    for n in 0..2 {
        let path = format!("/order/order-{n}");
        clients.push(replica.request("GET", &path).connect().await);
    }
    world.wait_for_blocked_reads(3).await;
    let exports = "SELECT count(*) FROM pg_stat_activity \
                   WHERE datname = current_database() AND wait_event_type = 'Lock' \
                     AND query LIKE 'SELECT o.id::int8, o.created_at%'";
    assert_eq!(world.database.value::<i64>(exports).await, 1);
    drop(lock);
}

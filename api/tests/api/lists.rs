//! `GET /orders`: pages, filters, limits.

use crate::harness::{World, order};

fn uids(page: &serde_json::Value) -> Vec<String> {
    page["orders"]
        .as_array()
        .unwrap()
        .iter()
        .map(|order| order["order_uid"].as_str().unwrap().to_owned())
        .collect()
}

#[tokio::test]
async fn pages_list_every_order_newest_first() {
    let world = World::new().await;
    for n in 0..7 {
        world.store(&order(&format!("order-{n}")), n).await;
    }
    world.erase("order-3", 100).await;
    let replica = world.replica().await;
    let (mut seen, mut path) = (Vec::new(), "/orders?limit=2".to_owned());
    loop {
        let page = replica.get(&path).await;
        assert_eq!(page.status, 200);
        assert_eq!(page.header("content-type"), Some("application/json"));
        let page = page.json();
        seen.push(uids(&page));
        let Some(cursor) = page
            .get("next_cursor")
            .map(|cursor| cursor.as_str().unwrap())
        else {
            break;
        };
        path = format!("/orders?limit=2&cursor={cursor}");
    }
    assert_eq!(
        seen,
        [
            ["order-6", "order-5"],
            ["order-4", "order-2"],
            ["order-1", "order-0"]
        ]
    );
}

#[tokio::test]
async fn an_entry_has_a_summary_and_a_link_to_the_order() {
    let world = World::new().await;
    world.store(&order("listed"), 1).await;
    let replica = world.replica().await;
    let page = replica.get("/orders").await.json();
    assert!(page.get("next_cursor").is_none());
    let entry = &page["orders"][0];
    let expected = [
        ("order_uid", serde_json::json!("listed")),
        ("track_number", "WBILMTESTTRACK".into()),
        ("customer_id", "test".into()),
        ("date_created", "2021-11-26T06:22:19Z".into()),
        ("currency", "USD".into()),
        ("amount", 1817.into()),
        ("item_count", 1.into()),
        ("links", serde_json::json!({"self": "/order/listed"})),
    ];
    for (member, value) in expected {
        assert_eq!(entry[member], value, "{member}");
    }
    assert!(
        entry["created_at"]
            .as_str()
            .is_some_and(|time| time.ends_with('Z'))
    );
    let link = entry["links"]["self"].as_str().unwrap();
    assert_eq!(replica.get(link).await.status, 200);
}

#[tokio::test]
async fn filters_narrow_the_list() {
    let world = World::new().await;
    for (name, customer, track) in [
        ("a", "alice", "T1"),
        ("b", "bob", "T1"),
        ("c", "alice & co", "T2"),
    ] {
        let mut stored = order(name);
        stored.customer_id = customer.into();
        stored.track_number = track.into();
        if name != "c" {
            stored.delivery.phone = "+15550100".into();
        }
        if name == "a" {
            stored.delivery.email = "a+b@example.com".into();
        }
        world.store(&stored, 1).await;
    }
    let replica = world.replica().await;
    for (query, expected) in [
        ("customer_id=alice", &["a"][..]),
        ("customer_id=alice+%26+co", &["c"]),
        ("track_number=T1", &["b", "a"]),
        ("track_number=T1&customer_id=bob", &["b"]),
        ("track_number=T3", &[]),
        ("phone=%2B15550100", &["b", "a"]),
        ("email=a%2Bb@example.com", &["a"]),
        ("email=A%2BB@example.com", &[]),
        ("phone=%2B15550100&customer_id=bob", &["b"]),
        ("phone=%2B15550100&email=a%2Bb@example.com", &["a"]),
        ("phone=%2B15550199", &[]),
        ("created_from=2000-01-01T00:00:00%2B01:00", &["c", "b", "a"]),
        ("created_to=2000-01-01T00:00:00Z", &[]),
        (
            "created_from=2000-01-01T00:00:00Z&created_to=2100-01-01T00:00:00Z&track_number=T1",
            &["b", "a"],
        ),
    ] {
        assert_eq!(
            uids(&replica.get(&format!("/orders?{query}")).await.json()),
            expected,
            "{query}"
        );
    }
}

#[tokio::test]
async fn a_period_includes_its_start_and_not_its_end() {
    let world = World::new().await;
    for n in 0..3 {
        world.store(&order(&format!("order-{n}")), n).await;
    }
    let replica = world.replica().await;
    let list = replica.get("/orders").await.json();
    let middle = list["orders"][1]["created_at"].as_str().unwrap();
    let later = chrono::DateTime::parse_from_rfc3339(middle)
        .unwrap()
        .to_utc();
    let later = (later + chrono::TimeDelta::nanoseconds(100))
        .to_rfc3339()
        .replace("+00:00", "Z");
    for (query, expected) in [
        (
            format!("created_from={middle}"),
            &["order-2", "order-1"][..],
        ),
        (format!("created_to={middle}"), &["order-0"]),
        (format!("created_from={middle}&created_to={middle}"), &[]),
        (format!("created_from={later}"), &["order-2"]),
    ] {
        let found = replica.get(&format!("/orders?{query}")).await.json();
        assert_eq!(uids(&found), expected, "{query}");
    }
}

#[tokio::test]
async fn unknown_and_repeated_parameters_are_rejected() {
    let world = World::new().await;
    let replica = world.replica().await;
    for (path, parameter) in [
        ("/orders?customer=test", "customer"),
        ("/orders?limit=1&e-mail=a", "e-mail"),
        ("/order/x?nocache=1&cache=0", "cache"),
    ] {
        let response = replica.get(path).await;
        response.assert_problem(400, "unknown_parameter");
        let detail = response.json()["detail"].to_string();
        assert!(detail.contains(parameter), "{detail}");
    }
    for path in [
        "/orders?limit=1&limit=1",
        "/orders?%6cimit=1&limit=2",
        "/order/x?nocache=1&nocache=1",
    ] {
        replica
            .get(path)
            .await
            .assert_problem(400, "repeated_parameter");
    }
}

#[tokio::test]
async fn malformed_parameters_are_rejected() {
    let world = World::new().await;
    let replica = world.replica().await;
    for limit in ["0", "101", "ten", "-1", ""] {
        replica
            .get(&format!("/orders?limit={limit}"))
            .await
            .assert_problem(400, "invalid_limit");
    }
    for cursor in ["", "x", "00", &"f".repeat(32)] {
        replica
            .get(&format!("/orders?cursor={cursor}"))
            .await
            .assert_problem(400, "invalid_cursor");
    }
    for (query, detail) in [
        ("phone=+15550100", "write + as %2B"),
        ("phone=15550100", "write + as %2B"),
        ("email=a", "email is not an e-mail address"),
        (
            "created_from=yesterday",
            "created_from is not an RFC 3339 time",
        ),
        (
            "created_to=2026-01-31T00:00:00+01:00",
            "created_to is not an RFC 3339 time",
        ),
        (
            "created_from=2026-02-01T00:00:00Z&created_to=2026-01-31T00:00:00Z",
            "created_from is later than created_to",
        ),
    ] {
        let response = replica.get(&format!("/orders?{query}")).await;
        response.assert_problem(400, "bad_request");
        let text = response.json()["detail"].to_string();
        assert!(text.contains(detail), "{text}");
    }
    for query in [
        "customer_id=%00",
        "customer_id=%ff",
        "customer_id=",
        "track_number=a%20b",
    ] {
        replica
            .get(&format!("/orders?{query}"))
            .await
            .assert_problem(400, "bad_request");
    }
}

#[tokio::test]
async fn a_read_replica_serves_only_lists() {
    let (world, other) = (World::new().await, World::new().await);
    world.store(&order("primary"), 1).await;
    other.store(&order("replica"), 1).await;
    let replica = world
        .replica_with(|config| config.database.read_url = Some(other.database.url.clone()))
        .await;
    assert_eq!(uids(&replica.get("/orders").await.json()), ["replica"]);
    assert_eq!(replica.get("/order/primary?nocache=1").await.status, 200);
    assert_eq!(replica.get("/order/replica?nocache=1").await.status, 404);
    replica.wait_for_check("postgres replica", "up").await;

    other.database.shut().await;
    replica.wait_for_check("postgres replica", "down").await;
    assert_eq!(replica.get("/orders").await.status, 503);
    assert_eq!(replica.get("/order/primary?nocache=1").await.status, 200);
}

#[tokio::test]
async fn lists_leave_connections_to_lookups() {
    let world = World::new().await;
    // Four connections: one for the health check, one for lists.
    let replica = world.cold_replica().await;
    let lock = world.database.lock("orders").await;
    let lists: Vec<_> = (0..10)
        .map(|_| tokio::spawn(replica.request("GET", "/orders").send()))
        .collect();
    world.wait_for_blocked_reads(1).await;
    let cold = tokio::spawn(replica.request("GET", "/order/cold").send());
    world.wait_for_blocked_reads(2).await;
    drop(lock);
    cold.await.unwrap().assert_problem(404, "order_not_found");
    for list in lists {
        assert_eq!(list.await.unwrap().status, 200);
    }
}

#[tokio::test]
async fn a_list_that_takes_too_long_is_503_with_the_next_step() {
    let world = World::new().await;
    let replica = world
        .cold_replica_with(|config| {
            config.database.timeout = Some(std::time::Duration::from_secs(2));
        })
        .await;
    let lock = world.database.lock("orders").await;
    for path in [
        "/orders?customer_id=a&track_number=b",
        "/orders/export?customer_id=a",
    ] {
        let slow = replica.get(path).await;
        slow.assert_temporary_problem(503, "list_timeout");
        let detail = slow.json()["detail"].to_string();
        assert!(detail.contains("created_from"), "{detail}");
    }
    replica
        .get("/order/cold")
        .await
        .assert_temporary_problem(503, "unavailable");
    drop(lock);
}

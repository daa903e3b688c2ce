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
        world.store(&stored, 1).await;
    }
    let replica = world.replica().await;
    for (query, expected) in [
        ("customer_id=alice", &["a"][..]),
        ("customer_id=alice+%26+co", &["c"]),
        ("track_number=T1", &["b", "a"]),
        ("track_number=T1&customer_id=bob", &["b"]),
        ("track_number=T3", &[]),
        ("unknown=1", &["c", "b", "a"]),
    ] {
        assert_eq!(
            uids(&replica.get(&format!("/orders?{query}")).await.json()),
            expected,
            "{query}"
        );
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
    for query in ["customer_id=%00", "customer_id=", "track_number=a%20b"] {
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

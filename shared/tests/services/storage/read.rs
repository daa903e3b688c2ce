//! Lists, repair marks, and changes since a moment.

use std::time::Duration;

use shared::{
    DatabaseTime, config,
    storage::{Class, ListFilter, Postgres, Role},
    testing::{TestDatabase, eventually},
};

use super::apply;
use crate::{change, order, uid};

#[tokio::test]
async fn lists_are_newest_first_filtered_and_paged() {
    let database = TestDatabase::migrated().await;
    let worker = database.connect(Role::Worker);
    for n in 0..7 {
        let mut order = order(&format!("u{n}"), n);
        order.customer_id = if n % 2 == 0 { "even" } else { "odd" }.into();
        apply(&worker, vec![change(&order, n as i64)]).await;
    }
    let postgres = database.connect(Role::Api);
    let mut filter = ListFilter::default();
    let mut seen = Vec::new();
    loop {
        let page = postgres.list(&filter, 3).await.unwrap();
        let Some(last) = page.last() else { break };
        filter.after = Some(last.position);
        seen.extend(page.into_iter().map(|summary| summary.order_uid));
    }
    assert_eq!(seen, ["u6", "u5", "u4", "u3", "u2", "u1", "u0"]);
    let even = ListFilter {
        customer_id: Some("even".to_owned()),
        ..ListFilter::default()
    };
    assert_eq!(postgres.list(&even, 100).await.unwrap().len(), 4);
    let by_track = ListFilter {
        track_number: Some(order("u3", 3).track_number.to_string()),
        ..ListFilter::default()
    };
    let found = postgres.list(&by_track, 100).await.unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].item_count, order("u3", 3).items.len() as i64);
    let newest = postgres.newest(2).await.unwrap();
    assert_eq!(
        newest
            .iter()
            .map(|revision| revision.uid.as_str())
            .collect::<Vec<_>>(),
        ["u6", "u5"]
    );
}

/// Otherwise each call that timed out would leave a Postgres backend running, in addition to the
/// connections of the pool.
#[tokio::test]
async fn a_statement_ends_when_its_caller_times_out() {
    let database = TestDatabase::migrated().await;
    let config = config::Database {
        timeout: Some(Duration::from_millis(300)),
        ..config::Database::default()
    };
    let postgres = Postgres::new(&database.url, &config, Role::Api).unwrap();
    eventually("a connection in time", async || {
        postgres.read(&uid("u")).await.ok()
    })
    .await;
    let lock = database.lock("orders").await;
    let waiting = async || {
        let waiting = "SELECT count(*) FROM pg_stat_activity \
                       WHERE datname = current_database() AND wait_event_type = 'Lock'";
        database.value::<i64>(waiting).await
    };
    let timed_out = tokio::spawn({
        let postgres = postgres.clone();
        async move { postgres.read(&uid("u")).await }
    });
    eventually("a session that waits", async || {
        (timed_out.is_finished() || waiting().await == 1).then_some(())
    })
    .await;
    let error = timed_out.await.unwrap().unwrap_err();
    assert_eq!(error.class(), Class::Transient, "{error}");
    eventually("no session that waits", async || {
        (waiting().await == 0).then_some(())
    })
    .await;
    drop(lock);
}

#[tokio::test]
async fn a_new_mark_survives_the_repair_of_the_old_one() {
    let database = TestDatabase::migrated().await;
    let postgres = database.connect(Role::Worker);
    let before = postgres.now().await.unwrap();
    assert_eq!(
        postgres.cache_knowledge().await.unwrap().oldest_repair,
        Duration::ZERO
    );
    postgres
        .mark_for_repair(&[uid("a"), uid("b"), uid("a")])
        .await
        .unwrap();
    assert!(postgres.cache_knowledge().await.unwrap().oldest_repair > Duration::ZERO);
    let marks = postgres.repair_marks(None, 10).await.unwrap();
    assert_eq!(marks.len(), 2);
    assert!(postgres.repaired_up_to().await.unwrap() >= before);
    let held = postgres.repaired_up_to().await.unwrap();

    postgres.mark_for_repair(&[uid("b")]).await.unwrap();
    postgres.clear_repair_marks(&marks).await.unwrap();
    let left = postgres.repair_marks(None, 10).await.unwrap();
    assert_eq!(
        left.iter()
            .map(|mark| mark.uid.as_str())
            .collect::<Vec<_>>(),
        ["b"]
    );
    // The watermark waits for the oldest mark.
    assert_eq!(postgres.repaired_up_to().await.unwrap(), held);
    postgres.clear_repair_marks(&left).await.unwrap();
    assert!(postgres.repaired_up_to().await.unwrap() > held);
}

#[tokio::test]
async fn orders_changed_since_a_moment_are_found() {
    let database = TestDatabase::migrated().await;
    let postgres = database.connect(Role::Worker);
    apply(
        &postgres,
        vec![change(&order("old", 1), 1), change(&order("updated", 2), 2)],
    )
    .await;
    let moment = postgres.now().await.unwrap();
    apply(
        &postgres,
        vec![change(&order("updated", 3), 3), change(&order("new", 4), 4)],
    )
    .await;
    let ids = postgres.changed_since(moment, 10).await.unwrap();
    let mut uids: Vec<String> = postgres
        .read_ids(&ids)
        .await
        .unwrap()
        .iter()
        .map(|revision| revision.uid.to_string())
        .collect();
    uids.sort();
    assert_eq!(uids, ["new", "updated"]);
    assert_eq!(
        postgres
            .changed_since(DatabaseTime(0), 2)
            .await
            .unwrap()
            .len(),
        2
    );
}

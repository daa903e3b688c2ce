//! Reads that check orders.

use shared::{
    storage::{Flaw, Inspected, Postgres, Role},
    testing::TestDatabase,
};

use super::{apply, read};
use crate::{change, erasure, order, uid};

async fn inspect(postgres: &Postgres, text: &str) -> Inspected {
    let mut found = postgres.inspect(&[uid(text)]).await.unwrap();
    assert_eq!(found.len(), 1);
    found.remove(0)
}

#[tokio::test]
async fn an_order_is_inspected_with_its_document() {
    let database = TestDatabase::migrated().await;
    let postgres = database.connect(Role::Worker);
    apply(
        &postgres,
        vec![change(&order("a", 1), 1), erasure("gone", 2)],
    )
    .await;
    for text in ["a", "gone"] {
        let found = inspect(&postgres, text).await;
        assert_eq!(Some(found.revision), read(&postgres, text).await);
        assert_eq!(found.flaw, None);
    }
    assert_eq!(postgres.inspect(&[uid("unknown")]).await.unwrap(), []);
}

#[tokio::test]
async fn rows_that_do_not_belong_together_are_flaws() {
    let database = TestDatabase::migrated().await;
    let postgres = database.connect(Role::Worker);
    let of = |table: &str, name: &str| {
        format!("{table} WHERE order_id = (SELECT id FROM orders WHERE order_uid = '{name}')")
    };
    for (name, damage, flaw) in [
        (
            "delivery",
            of("DELETE FROM deliveries", "delivery"),
            Flaw::NoDelivery,
        ),
        (
            "payment",
            of("DELETE FROM payments", "payment"),
            Flaw::NoPayment,
        ),
        ("items", of("DELETE FROM items", "items"), Flaw::NoItem),
        (
            "lines",
            of("UPDATE items SET line_no = line_no + 1", "lines"),
            Flaw::LinesMissing,
        ),
        (
            "children",
            "UPDATE orders SET erased_at = now() WHERE order_uid = 'children'".to_owned(),
            Flaw::ErasedWithChildren,
        ),
        (
            "blank",
            "UPDATE orders SET customer_id = 'left' WHERE order_uid = 'blank'".to_owned(),
            Flaw::ErasedNotBlank,
        ),
    ] {
        let mut changed = order(name, 1);
        // Descending line numbers could not be raised by one: the key is checked row by row.
        changed.items.truncate(1);
        apply(&postgres, vec![change(&changed, 1)]).await;
        if flaw == Flaw::ErasedNotBlank {
            apply(&postgres, vec![erasure(name, 2)]).await;
        }
        database.execute(&damage).await;
        let found = inspect(&postgres, name).await;
        assert_eq!(
            (found.flaw, found.revision.document),
            (Some(flaw), None),
            "{name}"
        );
    }
}

#[tokio::test]
async fn pages_hold_every_uid_once() {
    let database = TestDatabase::migrated().await;
    let postgres = database.connect(Role::Worker);
    let names = ["B", "_", "a", "a-1", "a1", "z"];
    apply(
        &postgres,
        names
            .iter()
            .map(|name| change(&order(name, 1), 1))
            .collect(),
    )
    .await;
    let (mut seen, mut last) = (Vec::new(), None);
    loop {
        let page = postgres.uids_after(last.as_ref(), 2).await.unwrap();
        let Some(end) = page.last() else { break };
        last = Some(*end);
        seen.extend(page.iter().map(ToString::to_string));
    }
    seen.sort();
    assert_eq!(seen, names);
}

#[tokio::test]
async fn random_uids_are_of_orders() {
    let database = TestDatabase::migrated().await;
    let postgres = database.connect(Role::Worker);
    assert_eq!(postgres.random_uids(3).await.unwrap(), []);
    apply(
        &postgres,
        (0..9)
            .map(|n| change(&order(&format!("u{n}"), n), 1))
            .collect(),
    )
    .await;
    for _ in 0..50 {
        let found = postgres.random_uids(3).await.unwrap();
        assert!((1..=3).contains(&found.len()), "{found:?}");
        assert!(found.iter().all(|uid| uid.as_str().starts_with('u')));
    }
}

#[tokio::test]
async fn unfinished_writes_are_found_by_uid() {
    let database = TestDatabase::migrated().await;
    let postgres = database.connect(Role::Worker);
    apply(&postgres, vec![change(&order("a", 1), 1), erasure("b", 2)]).await;
    let uids = ["a", "b", "c"].map(uid);
    assert!(
        postgres
            .unfinished_in_cache(&uids)
            .await
            .unwrap()
            .is_empty()
    );
    postgres
        .mark_for_repair(&[uid("b"), uid("other")])
        .await
        .unwrap();
    // An update leaves a note until Redis has it.
    apply(&postgres, vec![change(&order("a", 1), 3)]).await;
    let unfinished = postgres.unfinished_in_cache(&uids).await.unwrap();
    assert_eq!(unfinished, [uid("a"), uid("b")].into());
}

//! Versions without their orders.

use shared::{storage::Role, testing::TestDatabase};

use super::apply;
use crate::{change, erasure, order, uid, version};

#[tokio::test]
async fn versions_are_those_of_stored_and_of_erased_orders() {
    let database = TestDatabase::migrated().await;
    let postgres = database.connect(Role::Worker);
    let stored = ["a", "b", "c"].map(|name| change(&order(name, 1), 7));
    apply(&postgres, stored.into()).await;
    apply(&postgres, vec![erasure("b", 8)]).await;
    let uids = ["a", "b", "unknown"].map(uid);
    let mut versions = postgres.versions(&uids).await.unwrap();
    versions.sort();
    assert_eq!(versions, [(uid("a"), version(7)), (uid("b"), version(8))]);
}

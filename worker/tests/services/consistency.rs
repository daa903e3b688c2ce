//! The comparison of Postgres and Redis.

use std::time::Instant;

use redis::AsyncCommands;
use shared::{
    order::{OrderUid, Version},
    storage::{Change, ChangeSet},
};
use worker::{
    consistency::{
        confirm::{Judged, Pending},
        tiers::Tiers,
    },
    metrics::CheckResult,
    pipeline::step_size::StepSize,
};

use crate::repair::World;

impl World {
    fn tiers(&self) -> Tiers {
        Tiers {
            postgres: self.postgres.clone(),
            cache: self.cache.clone(),
        }
    }

    async fn hset(&self, uid: &OrderUid, field: &str, value: &str) {
        let mut connection = self.redis.connect().await;
        let _: i64 = connection
            .hset(format!("order:{uid}"), field, value)
            .await
            .unwrap();
    }
}

/// Returns the result of two looks at an order, and why it is pending.
async fn judge(tiers: &Tiers, uid: OrderUid) -> (CheckResult, Option<Pending>) {
    let mut size = StepSize::default();
    let look = tiers.look(&[uid], &mut size).await.unwrap().remove(0);
    let verdict = match look.judge(Instant::now()) {
        Judged::Settled(verdict) => verdict,
        Judged::Suspect(suspicion) => {
            suspicion.judge(tiers.look(&[uid], &mut size).await.unwrap().remove(0))
        }
    };
    (verdict.finding.result, verdict.pending)
}

fn text(offset: i64) -> String {
    Version::new(1, offset, 0).to_string()
}

#[tokio::test]
async fn each_difference_is_found_unless_a_repair_is_pending() {
    let world = World::new().await;
    let orders = world.be_complete_with_orders().await;
    let uids: Vec<OrderUid> = orders.iter().map(|order| order.uid).collect();
    let tiers = world.tiers();
    for uid in &uids {
        assert_eq!(judge(&tiers, *uid).await, (CheckResult::Consistent, None));
    }
    world.hset(&uids[0], "version", &text(0)).await;
    world.hset(&uids[1], "version", &text(2)).await;
    let other = format!(r#"{{"order_uid":"{}","x":1}}"#, uids[2]);
    world.hset(&uids[2], "json", &other).await;
    let unknown = OrderUid::parse("never-sent").unwrap();
    world.hset(&unknown, "version", &text(1)).await;
    let mut connection = world.redis.connect().await;
    let _: i64 = connection.del(format!("order:{}", uids[3])).await.unwrap();
    let differences = [
        (uids[0], CheckResult::Stale),
        (uids[1], CheckResult::Ahead),
        (uids[2], CheckResult::Different),
        (unknown, CheckResult::Orphaned),
    ];
    for (uid, result) in differences {
        assert_eq!(judge(&tiers, uid).await, (result, None), "{uid}");
    }
    assert_eq!(judge(&tiers, uids[3]).await, (CheckResult::Missing, None));

    // A mark explains the difference of its order alone.
    world.postgres.mark_for_repair(&uids[..1]).await.unwrap();
    let pending = |why| (CheckResult::Pending, Some(why));
    assert_eq!(judge(&tiers, uids[0]).await, pending(Pending::Order));
    assert_eq!(judge(&tiers, uids[1]).await, (CheckResult::Ahead, None));
    // A Redis that may have lost content explains all.
    let _: i64 = connection.hdel("order-cache", "watermark").await.unwrap();
    for (uid, _) in &differences[1..] {
        assert_eq!(judge(&tiers, *uid).await, pending(Pending::Redis));
    }
    assert_eq!(
        judge(&tiers, uids[4]).await,
        (CheckResult::Consistent, None)
    );
}

/// An update and an erasure are committed, and their writes to Redis are not finished.
#[tokio::test]
async fn a_committed_change_that_redis_does_not_have_yet_is_pending() {
    let world = World::new().await;
    let orders = world.be_complete_with_orders().await;
    let updated = world.store(1, 2).await[0].uid;
    let erased = orders
        .iter()
        .map(|order| order.uid)
        .find(|uid| *uid != updated)
        .unwrap();
    let change = Change {
        uid: erased,
        version: Version::new(1, 3, 0),
        order: None,
    };
    let (set, _) = ChangeSet::new(vec![change]);
    let applied = world.postgres.apply(&set).await.unwrap();
    let tiers = world.tiers();
    let pending = (CheckResult::Pending, Some(Pending::Order));
    assert_eq!(judge(&tiers, updated).await, pending);
    assert_eq!(judge(&tiers, erased).await, pending);
    // The note is deleted although Redis was not written: no promise explains that.
    let note = applied.cache_write.unwrap();
    world.postgres.finish_cache_writes(&[note]).await.unwrap();
    assert_eq!(judge(&tiers, erased).await, (CheckResult::Stale, None));
}

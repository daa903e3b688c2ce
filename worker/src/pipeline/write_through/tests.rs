use std::time::Duration;

use super::*;
use crate::pipeline::{
    doubles::{Redis, Store, uid, version},
    waits::Wait,
};

struct World {
    store: Store,
    redis: Redis,
    waits: Arc<Waits>,
    write_through: WriteThrough<Redis, Store>,
}

impl World {
    /// Creates a Postgres that holds `uids`, and an empty Redis.
    fn holding(uids: &str) -> Self {
        let (store, redis, waits) = (Store::default(), Redis::default(), Arc::new(Waits::new()));
        uids.split(' ').for_each(|uid| store.hold(uid, 1));
        Self {
            write_through: WriteThrough::new(redis.clone(), store.clone(), Arc::clone(&waits)),
            store,
            redis,
            waits,
        }
    }

    /// Writes `uids`, as read or committed `age` ago.
    async fn write(&self, uids: &str, age: Duration) {
        let revision = |text: &str| Revision {
            uid: uid(text),
            version: version(1),
            document: None,
        };
        let fresh = Fresh {
            revisions: uids.split(' ').map(revision).collect(),
            read_at: Instant::now().checked_sub(age).unwrap(),
            cache_write: None,
        };
        self.write_through.write(fresh).await;
    }
}

const LATE: Duration = Duration::from_secs(7200);

#[tokio::test]
async fn a_write_in_time_reads_nothing_and_marks_nothing() {
    let world = World::holding("a b");
    world.write("a b", Duration::ZERO).await;
    assert_eq!(
        (world.redis.held("a"), world.redis.held("b")),
        (Some(1), Some(1))
    );
    assert_eq!((world.store.reads(), world.store.marks()), (vec![], vec![]));
}

#[tokio::test]
async fn a_write_that_comes_too_late_is_repeated_with_the_row_that_postgres_holds_now() {
    let world = World::holding("a b");
    world.store.hold("a", 7);
    world.write("a b", LATE).await;
    assert_eq!(
        (world.redis.held("a"), world.redis.held("b")),
        (Some(7), Some(1))
    );
    assert_eq!(world.store.reads(), ["a", "b"]);
    assert_eq!(world.store.marks(), Vec::<String>::new());
}

#[tokio::test]
async fn orders_whose_writes_always_come_too_late_are_read_in_ever_smaller_parts_then_marked() {
    let world = World::holding("a b c d");
    world.redis.be_late();
    world.write("a b c d", LATE).await;
    assert_eq!(
        world.store.reads(),
        ["a b", "c d", "a", "b", "c", "d"],
        "each order twice, then it is marked"
    );
    assert_eq!(world.store.marks(), ["a b c d"]);
}

#[tokio::test]
async fn an_order_whose_writes_always_come_too_late_is_marked_after_three_attempts() {
    let world = World::holding("a");
    world.redis.be_late();
    world.write("a", LATE).await;
    assert_eq!(world.store.reads(), ["a", "a"]);
    assert_eq!(world.store.marks(), ["a"]);
}

#[tokio::test(start_paused = true)]
async fn orders_that_redis_does_not_take_are_marked_once_postgres_answers() {
    let world = World::holding("a b");
    world.redis.go_down();
    world.store.go_down("57P01");
    let writing = world.write("a b", Duration::ZERO);
    tokio::pin!(writing);
    let hour = Duration::from_secs(3600);
    assert!(tokio::time::timeout(hour, &mut writing).await.is_err());
    assert!(world.waits.waiting_for(Wait::Postgres));
    world.store.answer();
    writing.await;
    assert_eq!(world.store.marks(), ["a b"]);
    assert!(!world.waits.waiting_for(Wait::Postgres));
}

#[tokio::test]
async fn an_entry_that_postgres_does_not_hold_is_replaced() {
    let world = World::holding("a b");
    world.redis.forge("a", 1000);
    world.write("a b", Duration::ZERO).await;
    let held = (world.redis.held("a"), world.redis.held("b"));
    assert_eq!(held, (Some(1), Some(1)));
    assert_eq!(world.store.reads(), ["a"]);
    assert_eq!(world.store.marks(), Vec::<String>::new());
}

#[tokio::test]
async fn an_entry_of_a_faster_worker_stays() {
    let world = World::holding("a");
    world.store.hold("a", 7);
    world.redis.forge("a", 7);
    world.write("a", Duration::ZERO).await;
    assert_eq!(world.redis.held("a"), Some(7));
    assert_eq!(world.store.reads(), ["a"]);
    assert_eq!(world.store.marks(), Vec::<String>::new());
}

#[tokio::test]
async fn an_entry_that_is_forged_again_and_again_is_marked() {
    let world = World::holding("a");
    world.redis.forge("a", 1000);
    world.redis.forge_again();
    world.write("a", Duration::ZERO).await;
    assert_eq!(world.store.marks(), ["a"]);
}

use tokio::task::JoinHandle;

use super::*;
use crate::pipeline::{
    breaker::RejectionBreaker,
    doubles::{DeadLetters, Redis, Store, assignment, change, received, unfinished},
    turn::Turns,
    waits::Wait,
};

/// Long enough for any retry.
const LONG: Duration = Duration::from_secs(3600);

/// A processor with scripted services.
struct World {
    store: Store,
    redis: Redis,
    dead_letters: DeadLetters,
    assignment: Arc<Assignment>,
    waits: Arc<Waits>,
    processor: Arc<Processor<Store, Redis, DeadLetters>>,
}

impl World {
    fn new() -> Self {
        let (store, redis, dead_letters) =
            (Store::default(), Redis::default(), DeadLetters::default());
        let (assignment, waits) = (assignment(), Arc::new(Waits::new()));
        let processor = Processor {
            persist: Persist {
                store: store.clone(),
                breaker: Arc::new(RejectionBreaker::new(false)),
                waits: Arc::clone(&waits),
            },
            write_through: WriteThrough::new(redis.clone(), store.clone(), Arc::clone(&waits)),
            dead_letters: dead_letters.clone(),
            assignment: Arc::clone(&assignment),
            waits: Arc::clone(&waits),
            metrics: Metrics::new(),
        };
        Self {
            store,
            redis,
            dead_letters,
            assignment,
            waits,
            processor: Arc::new(processor),
        }
    }

    /// Receives changes of these orders, at offsets from 0 on.
    fn batch(&self, uids: &str) -> Batch {
        let mut batch = Batch::default();
        for (offset, uid) in (0..).zip(uids.split(' ')) {
            let received = received(&self.assignment, offset, Vec::new());
            batch.push_change(received, change(uid, offset));
        }
        batch
    }

    /// Processes `batch` in the background.
    fn begin(&self, batch: Batch) -> JoinHandle<()> {
        let processor = Arc::clone(&self.processor);
        tokio::spawn(async move {
            let turn = Turns::new().next().await.unwrap();
            processor.process(batch, turn).await;
        })
    }
}

fn invalid() -> Rejection {
    Rejection {
        reason: Reason::InvalidOrder,
        detail: "a rule".to_owned(),
    }
}

/// The orders that Postgres has stored are repaired even if the rest of their batch never is.
#[tokio::test(start_paused = true)]
async fn orders_that_redis_does_not_take_are_marked_while_others_wait_for_postgres() {
    let world = World::new();
    world.redis.go_down();
    world.store.reject_in_row(&change("b", 1), "57014");
    let batch = world.begin(world.batch("a b c"));
    tokio::time::sleep(LONG).await;
    assert!(!batch.is_finished());
    let mut marked = world.store.marks();
    marked.sort();
    assert_eq!(marked, ["a", "c"]);
    assert_eq!(unfinished(&world.assignment), 3, "no offset is stored");
    world.store.accept_all();
    batch.await.unwrap();
    assert_eq!(world.store.marks().last().unwrap(), "b");
    assert_eq!(unfinished(&world.assignment), 0);
}

/// A commit whose answer takes long leaves Redis with a row that may be outdated.
#[tokio::test]
async fn after_a_late_commit_the_order_is_read_again_before_it_is_written_to_redis() {
    let world = World::new();
    world.store.commit_late();
    world.begin(world.batch("a")).await.unwrap();
    assert_eq!(world.store.reads(), ["a"]);
    assert_eq!(world.redis.held("a"), Some(0));
    assert_eq!(unfinished(&world.assignment), 0);
}

#[tokio::test(start_paused = true)]
async fn an_invalid_record_is_finished_once_the_dead_letter_topic_takes_it() {
    let world = World::new();
    world.dead_letters.set_down(true);
    let mut batch = world.batch("a");
    batch.push_invalid(received(&world.assignment, 1, Vec::new()), invalid());
    let batch = world.begin(batch);
    tokio::time::sleep(LONG).await;
    assert!(!batch.is_finished());
    assert_eq!(
        world.redis.held("a"),
        Some(0),
        "the others are stored meanwhile"
    );
    assert_eq!(unfinished(&world.assignment), 2);
    assert_eq!(
        world.waits.reasons().collect::<Vec<_>>(),
        [Wait::DeadLetterTopic]
    );
    assert_eq!(world.waits.held_up(), 1);
    assert!(world.dead_letters.attempts() > 3600 / 5);
    world.dead_letters.set_down(false);
    batch.await.unwrap();
    let expected = (1, Reason::InvalidOrder, "a rule".to_owned());
    assert_eq!(world.dead_letters.sent(), [expected]);
    assert_eq!(unfinished(&world.assignment), 0);
    assert_eq!(world.waits.held_up(), 0);
}

#[tokio::test]
async fn a_row_that_postgres_rejects_is_dead_lettered_with_the_code() {
    let world = World::new();
    world.store.reject(&change("b", 1), "23514");
    world.begin(world.batch("a b")).await.unwrap();
    let expected = (1, Reason::RejectedByDatabase, "SQLSTATE 23514".to_owned());
    assert_eq!(world.dead_letters.sent(), [expected]);
    assert_eq!(
        (world.redis.held("a"), world.redis.held("b")),
        (Some(0), None)
    );
    assert_eq!(unfinished(&world.assignment), 0);
}

#[tokio::test]
async fn a_record_that_is_in_a_batch_twice_counts_as_stored_once() {
    let world = World::new();
    let mut batch = Batch::default();
    for _ in 0..2 {
        // It was read again after a truncation.
        let received = received(&world.assignment, 5, Vec::new());
        batch.push_change(received, change("a", 5));
    }
    let key = (change("a", 5).uid, change("a", 5).version);
    let verdicts = HashMap::from([(key, Verdict::Won)]);
    let waits = world.waits.batch();
    let outcomes = world.processor.settle(&batch, verdicts, &waits).await;
    assert_eq!(outcomes, [Outcome::Stored, Outcome::Stale]);
}

/// Another worker reads the records again.
#[tokio::test(start_paused = true)]
async fn a_batch_that_a_shutdown_aborts_stores_no_offset() {
    let world = World::new();
    world.store.go_down("57P01");
    let batch = world.begin(world.batch("a b"));
    tokio::time::sleep(LONG).await;
    batch.abort();
    assert!(batch.await.unwrap_err().is_cancelled());
    assert_eq!(unfinished(&world.assignment), 2);
    assert_eq!(world.waits.reasons().count(), 0);
}

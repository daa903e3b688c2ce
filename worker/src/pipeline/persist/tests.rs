use std::time::Duration;

use tokio::{task::JoinHandle, time::Instant};

use super::*;
use crate::pipeline::{
    doubles::{Store, change, uid},
    turn::Turns,
};

/// A change that violates a constraint.
const CHECK: &str = "23514";
/// An error whose cause is unclear.
const UNKNOWN: &str = "XX000";
/// Postgres shuts down.
const TRANSIENT: &str = "57P01";

/// The result of a batch, and the revisions for Redis, such as `a@1`.
type Written = (Persisted, Vec<String>);

/// A persist with a scripted Postgres.
#[derive(Clone)]
struct World {
    store: Store,
    breaker: Arc<RejectionBreaker>,
    waits: Arc<Waits>,
    turns: Turns,
}

impl World {
    fn new() -> Self {
        Self {
            store: Store::default(),
            breaker: Arc::new(RejectionBreaker::new(false)),
            waits: Arc::new(Waits::new()),
            turns: Turns::new(),
        }
    }

    async fn write(&self, changes: Vec<Change>) -> Written {
        let persist = Persist {
            store: self.store.clone(),
            breaker: Arc::clone(&self.breaker),
            waits: Arc::clone(&self.waits),
        };
        let (sink, mut fresh) = mpsc::channel::<Fresh>(1);
        let turn = self.turns.clone().next().await.unwrap();
        let waits = self.waits.batch();
        let receive = async {
            let mut revisions = Vec::new();
            while let Some(fresh) = fresh.recv().await {
                let names = fresh.revisions.into_iter();
                revisions.extend(names.map(|it| format!("{}@{}", it.uid, it.version.offset)));
            }
            revisions
        };
        tokio::join!(persist.persist(changes, turn, sink, &waits), receive)
    }

    /// Writes `changes` in the background.
    fn begin(&self, changes: Vec<Change>) -> JoinHandle<Written> {
        let world = self.clone();
        tokio::spawn(async move { world.write(changes).await })
    }

    fn waiting(&self) -> Vec<Wait> {
        self.waits.reasons().collect()
    }
}

fn changes(uids: &str) -> Vec<Change> {
    let uids = uids.split(' ').zip(1..);
    uids.map(|(uid, offset)| change(uid, offset)).collect()
}

fn verdict(persisted: &Persisted, change: &Change) -> Verdict {
    persisted.verdicts[&(change.uid, change.version)].clone()
}

fn rejected(code: &str) -> Verdict {
    Verdict::Rejected(format!("SQLSTATE {code}"))
}

#[tokio::test]
async fn one_rejected_row_is_found_by_halving_and_costs_only_itself() {
    let (world, changes) = (World::new(), changes("a b c d e f g h"));
    world.store.reject(&changes[2], CHECK);
    let (persisted, fresh) = world.write(changes.clone()).await;
    assert_eq!(
        world.store.applied(),
        [
            "a b c d e f g h",
            "a b c d",
            "a b",
            "c d",
            "c",
            "d",
            "e f g h"
        ]
    );
    for change in &changes {
        let expected = match change.uid == uid("c") {
            true => rejected(CHECK),
            false => Verdict::Won,
        };
        assert_eq!(verdict(&persisted, change), expected, "{}", change.uid);
    }
    assert_eq!(fresh, ["a@1", "b@2", "d@4", "e@5", "f@6", "g@7", "h@8"]);
    assert_eq!(world.waiting(), []);
}

#[tokio::test]
async fn two_rejected_rows_in_different_halves_are_both_found() {
    let (world, changes) = (World::new(), changes("a b c d e f g h"));
    for bad in [0, 7] {
        world.store.reject(&changes[bad], CHECK);
    }
    let (persisted, fresh) = world.write(changes.clone()).await;
    for bad in [0, 7] {
        assert_eq!(verdict(&persisted, &changes[bad]), rejected(CHECK));
    }
    assert_eq!(fresh, ["b@2", "c@3", "d@4", "e@5", "f@6", "g@7"]);
}

#[tokio::test]
async fn of_several_changes_of_an_order_only_the_newest_is_written() {
    let world = World::new();
    let changes = [change("a", 3), change("a", 1), change("a", 3)];
    let (persisted, fresh) = world.write(changes.to_vec()).await;
    assert_eq!(world.store.applied(), ["a"]);
    assert_eq!(verdict(&persisted, &changes[0]), Verdict::Won);
    assert_eq!(verdict(&persisted, &changes[1]), Verdict::Lost);
    assert_eq!(fresh, ["a@3"]);
}

#[tokio::test]
async fn an_older_change_is_stored_if_the_newer_one_is_rejected() {
    let world = World::new();
    let changes = [
        change("a", 3),
        change("a", 2),
        change("a", 1),
        change("b", 4),
    ];
    world.store.reject(&changes[0], CHECK);
    let (persisted, fresh) = world.write(changes.to_vec()).await;
    assert_eq!(verdict(&persisted, &changes[0]), rejected(CHECK));
    assert_eq!(verdict(&persisted, &changes[1]), Verdict::Won);
    assert_eq!(verdict(&persisted, &changes[2]), Verdict::Lost);
    assert_eq!(world.store.held("a"), Some(2));
    assert_eq!(fresh, ["b@4", "a@2"]);
    assert_eq!(world.store.applied(), ["a b", "a", "b", "a"]);
}

#[tokio::test]
async fn redis_gets_the_stored_version_of_an_order_whose_change_lost() {
    let world = World::new();
    world.store.hold("a", 9);
    let (persisted, fresh) = world.write(vec![change("a", 5), change("b", 6)]).await;
    assert_eq!(verdict(&persisted, &change("a", 5)), Verdict::Lost);
    assert_eq!(fresh, ["b@6", "a@9"]);
    assert_eq!(persisted.clock_steps, 0);
}

#[tokio::test]
async fn a_change_that_loses_to_a_lower_offset_of_its_partition_counts_as_a_clock_step() {
    let world = World::new();
    // The broker's clock stepped back between offsets 5 and 6, and between 7 and 8.
    let stepped = |uid: &str, offset| Change {
        version: Version::new(1, offset, 0),
        ..change(uid, offset)
    };
    world.store.hold("stored", 5);
    let batch = vec![stepped("stored", 6), change("same", 7), stepped("same", 8)];
    let (persisted, _) = world.write(batch).await;
    assert_eq!(persisted.clock_steps, 2);
    assert_eq!(world.store.held("same"), Some(7));
}

#[tokio::test(start_paused = true)]
async fn a_transient_error_is_retried_with_backoff_and_blames_no_row() {
    let world = World::new();
    world.store.fail_next(6, TRANSIENT);
    let (persisted, _) = world.write(changes("a b")).await;
    assert_eq!(world.store.applied(), ["a b"; 7], "never halved");
    assert_eq!(verdict(&persisted, &change("a", 1)), Verdict::Won);
    let times = world.store.times();
    for (attempt, pair) in times.windows(2).enumerate() {
        let bound = Duration::from_millis(50 << attempt);
        let delay = pair[1] - pair[0];
        // A timer has a resolution of 1 ms.
        assert!(delay <= bound + Duration::from_millis(1), "{attempt}");
    }
    assert!(times[6] > times[0], "no delay at all");
    assert_eq!(world.waiting(), []);
}

#[tokio::test(start_paused = true)]
async fn a_batch_waits_for_postgres_for_as_long_as_it_is_down() {
    let world = World::new();
    world.store.go_down(TRANSIENT);
    let writing = world.begin(changes("a b"));
    tokio::time::sleep(Duration::from_secs(3600)).await;
    assert!(!writing.is_finished());
    assert_eq!(world.waiting(), [Wait::Postgres]);
    assert!(
        world.store.times().len() > 3600 / 5,
        "tried at least every 5 s"
    );
    world.store.answer();
    let (persisted, fresh) = writing.await.unwrap();
    assert_eq!(persisted.verdicts.len(), 2);
    assert_eq!(fresh, ["a@1", "b@2"]);
    assert_eq!(world.waiting(), []);
}

#[tokio::test(start_paused = true)]
async fn a_lock_that_is_held_for_too_long_ends_frozen_sessions() {
    let world = World::new();
    world.store.fail_next(2, "55P03");
    world.write(changes("a")).await;
    assert_eq!(world.store.sessions_ended(), 2);
}

/// A frozen worker would otherwise block each half for the whole lock timeout.
#[tokio::test(start_paused = true)]
async fn a_lock_held_for_too_long_ends_frozen_sessions_before_the_batch_is_halved() {
    let (world, changes) = (World::new(), changes("a b c d"));
    world.store.reject_in_row(&changes[0], "55P03");
    let writing = world.begin(changes);
    tokio::time::sleep(Duration::from_millis(1)).await;
    let failed = world.store.applied().into_iter();
    let failed = failed.filter(|set| set.starts_with('a')).count();
    assert!(failed > 1, "the batch is halved");
    assert_eq!(world.store.sessions_ended(), failed);
    writing.abort();
}

#[tokio::test(start_paused = true)]
async fn an_unknown_error_rejects_a_row_only_once_another_row_is_stored() {
    let (world, changes) = (World::new(), changes("a b"));
    world.store.reject(&changes[0], UNKNOWN);
    let alone = world.begin(changes[..1].to_vec());
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert!(!alone.is_finished(), "the deployment may be at fault");
    assert_eq!(world.waiting(), [Wait::Deployment]);
    world.write(changes[1..].to_vec()).await;
    let (persisted, _) = alone.await.unwrap();
    assert_eq!(verdict(&persisted, &changes[0]), rejected(UNKNOWN));
    assert_eq!(world.waiting(), []);
}

#[tokio::test(start_paused = true)]
async fn an_unknown_error_of_a_batch_is_traced_to_its_row() {
    let (world, changes) = (World::new(), changes("a b c d"));
    world.store.reject(&changes[1], UNKNOWN);
    let (persisted, mut fresh) = world.write(changes.clone()).await;
    assert_eq!(verdict(&persisted, &changes[1]), rejected(UNKNOWN));
    fresh.sort();
    assert_eq!(fresh, ["a@1", "c@3", "d@4"]);
}

/// Writes 120 rows that Postgres rejects; the breaker opens at the hundredth.
fn open_breaker(world: &World) -> (Vec<Change>, JoinHandle<Written>) {
    let changes: Vec<Change> = (0..120).map(|n| change(&format!("u{n:03}"), n)).collect();
    for change in &changes {
        world.store.reject(change, CHECK);
    }
    let writing = world.begin(changes.clone());
    (changes, writing)
}

#[tokio::test(start_paused = true)]
async fn an_open_breaker_tries_another_row_every_30_seconds() {
    let world = World::new();
    let (_, writing) = open_breaker(&world);
    let opens = async {
        while !world.breaker.is_open() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), opens)
        .await
        .expect("the breaker opens");
    let before = world.store.times().len();
    let sets = world.store.applied();
    let rows = sets.iter().filter(|set| !set.contains(' ')).count();
    assert_eq!(rows, 100, "no trial before its time");
    tokio::time::sleep(Duration::from_secs(30 * 25) + Duration::from_secs(1)).await;
    assert!(!writing.is_finished());
    assert_eq!(world.waiting(), [Wait::Breaker]);
    let (times, sets) = (world.store.times(), world.store.applied());
    let gaps: Vec<Duration> = times[before - 1..]
        .windows(2)
        .map(|pair| pair[1] - pair[0])
        .collect();
    assert_eq!(gaps, [Duration::from_secs(30); 25]);
    // 99 rows were rejected before the breaker opened.
    let mut tried: Vec<&String> = sets[before..].iter().collect();
    tried.sort();
    tried.dedup();
    assert_eq!(tried.len(), 21, "every row that is left has its turn");
}

#[tokio::test(start_paused = true)]
async fn a_trial_that_succeeds_closes_the_breaker() {
    let world = World::new();
    let (changes, writing) = open_breaker(&world);
    tokio::time::sleep(Duration::from_secs(95)).await;
    assert!(world.breaker.is_open());
    world.store.accept_all();
    let (persisted, fresh) = writing.await.unwrap();
    assert!(!world.breaker.is_open());
    assert_eq!(persisted.verdicts.len(), changes.len());
    let verdicts = persisted.verdicts.values();
    let rejected = verdicts.filter(|verdict| matches!(verdict, Verdict::Rejected(_)));
    assert_eq!(rejected.count(), 99, "none while the breaker was open");
    assert_eq!(fresh.len(), 21);
    assert_eq!(world.waiting(), []);
}

#[tokio::test(start_paused = true)]
async fn a_trial_that_finds_postgres_down_blames_no_row() {
    let world = World {
        breaker: Arc::new(RejectionBreaker::new(true)),
        ..World::new()
    };
    world.store.fail_next(3, TRANSIENT);
    let began = Instant::now();
    let (persisted, _) = world.write(changes("a b")).await;
    assert_eq!(persisted.verdicts.len(), 2);
    assert!(
        began.elapsed() < Duration::from_secs(30),
        "the trial is repeated at once"
    );
}

/// Otherwise two batches that Postgres rejects would keep out a batch that it accepts.
#[tokio::test(start_paused = true)]
async fn batches_that_wait_leave_their_turns_to_others() {
    let (world, changes) = (World::new(), changes("a b c d"));
    let waiting: Vec<JoinHandle<Written>> = changes[..3]
        .iter()
        .map(|change| {
            world.store.reject_in_row(change, "57014");
            world.begin(vec![change.clone()])
        })
        .collect();
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(world.waits.held_up(), 3);
    let healthy = world.write(changes[3..].to_vec());
    let healthy = tokio::time::timeout(Duration::from_secs(60), healthy).await;
    assert_eq!(healthy.unwrap().1, ["d@4"]);
    world.store.accept_all();
    for batch in waiting {
        assert_eq!(batch.await.unwrap().0.verdicts.len(), 1);
    }
    assert_eq!(world.waits.held_up(), 0);
}

/// A shutdown aborts batches that wait for a service that is down.
#[tokio::test(start_paused = true)]
async fn a_batch_that_is_aborted_while_it_waits_leaves_no_wait_and_no_turn_behind() {
    let world = World::new();
    world.store.go_down(TRANSIENT);
    let batches: Vec<JoinHandle<Written>> = ["a", "b"].map(|uid| world.begin(changes(uid))).into();
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(world.waits.count(Wait::Postgres), 2);
    for batch in batches {
        batch.abort();
        assert!(batch.await.unwrap_err().is_cancelled());
    }
    assert_eq!(world.waiting(), []);
    assert_eq!(world.waits.held_up(), 0);
    world.store.answer();
    let next = tokio::time::timeout(Duration::from_secs(60), world.write(changes("c"))).await;
    assert_eq!(next.unwrap().1, ["c@1"]);
}

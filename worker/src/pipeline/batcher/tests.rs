use parking_lot::Mutex;
use tokio::{
    sync::{Semaphore, mpsc},
    task::JoinHandle,
};

use super::*;
use crate::pipeline::doubles::{assignment, order, received, unfinished};

const LINGER: Duration = Duration::from_millis(500);

/// Notes batches, and finishes each when it gets a permit.
struct Script {
    assignment: Arc<Assignment>,
    permits: Semaphore,
    began: Mutex<Vec<(Instant, usize)>>,
}

impl Script {
    fn sizes(&self) -> Vec<usize> {
        self.began.lock().iter().map(|(_, len)| *len).collect()
    }
}

impl FinishBatch for Script {
    async fn process(&self, batch: Batch, turn: Turn) {
        self.began.lock().push((Instant::now(), batch.len()));
        drop(turn);
        self.permits.acquire().await.unwrap().forget();
        self.assignment.finish(&batch.tickets());
    }
}

/// A batcher with a scripted processor.
struct World {
    script: Arc<Script>,
    assignment: Arc<Assignment>,
    waits: Arc<Waits>,
    intake: mpsc::UnboundedSender<Received>,
    batcher: JoinHandle<()>,
    sent: i64,
}

impl World {
    fn start(max_records: usize, max_bytes: usize) -> Self {
        let (assignment, waits) = (assignment(), Arc::new(Waits::new()));
        let script = Arc::new(Script {
            assignment: Arc::clone(&assignment),
            permits: Semaphore::new(0),
            began: Mutex::default(),
        });
        let config = config::Worker {
            batch_size: max_records,
            batch_max_bytes: max_bytes,
            batch_linger: LINGER,
            ..config::Worker::default()
        };
        let batcher = Batcher::new(
            &config,
            Metrics::new(),
            FutureGuard::new(Arc::default(), false),
            Arc::clone(&waits),
            Arc::clone(&script),
        );
        let (intake, records) = mpsc::unbounded_channel();
        Self {
            script,
            assignment,
            waits,
            intake,
            batcher: tokio::spawn(batcher.run(records)),
            sent: 0,
        }
    }

    fn send(&mut self, uids: &str) {
        for uid in uids.split(' ') {
            let received = received(&self.assignment, self.sent, order(uid).to_json());
            self.intake.send(received).unwrap();
            self.sent += 1;
        }
    }

    /// Finishes the next `batches`.
    fn finish(&self, batches: usize) {
        self.script.permits.add_permits(batches);
    }

    /// Returns the number of records of each batch that has begun.
    fn batches(&self) -> Vec<usize> {
        self.script.sizes()
    }

    /// Returns when the batch `index` began.
    fn time(&self, index: usize) -> Instant {
        self.script.began.lock()[index].0
    }

    /// Waits until `count` batches have begun.
    async fn begun(&self, count: usize) {
        while self.script.began.lock().len() < count {
            tokio::time::sleep(SOON).await;
        }
    }
}

/// The time within which a batch begins that nothing delays.
const SOON: Duration = Duration::from_millis(1);

#[tokio::test(start_paused = true)]
async fn a_batch_is_written_when_it_has_the_maximum_of_records() {
    let mut world = World::start(3, usize::MAX);
    world.send("a b c d e f g");
    tokio::time::sleep(SOON).await;
    assert_eq!(world.batches(), [3, 3], "the last one gathers");
    assert_eq!(world.time(0), world.time(1));
}

#[tokio::test(start_paused = true)]
async fn a_batch_is_written_when_it_has_the_maximum_of_bytes() {
    let bytes = order("a").to_json().len();
    let mut world = World::start(100, 2 * bytes);
    world.send("a b c d e");
    tokio::time::sleep(SOON).await;
    assert_eq!(world.batches(), [2, 2]);
}

#[tokio::test(start_paused = true)]
async fn an_idle_worker_writes_at_once_and_a_busy_one_gathers_until_the_linger_ends() {
    let mut world = World::start(100, usize::MAX);
    world.send("a");
    tokio::time::sleep(SOON).await;
    assert_eq!(world.batches(), [1]);
    let opened = Instant::now();
    world.send("b");
    tokio::time::sleep(LINGER / 2).await;
    world.send("c");
    assert_eq!(world.batches(), [1]);
    world.begun(2).await;
    assert_eq!(world.batches(), [1, 2]);
    assert_eq!(world.time(1) - opened, LINGER);
}

#[tokio::test(start_paused = true)]
async fn the_end_of_the_batch_under_way_ends_the_linger() {
    let mut world = World::start(100, usize::MAX);
    world.send("a");
    tokio::time::sleep(SOON).await;
    world.send("b");
    tokio::time::sleep(SOON).await;
    world.finish(1);
    tokio::time::sleep(SOON).await;
    assert_eq!(world.batches(), [1, 1]);
}

/// On a revocation, the poll thread sends nothing more and waits until all records are finished.
#[tokio::test(start_paused = true)]
async fn the_open_batch_is_written_though_no_record_follows() {
    let mut world = World::start(100, usize::MAX);
    world.send("a");
    tokio::time::sleep(SOON).await;
    world.send("b");
    world.finish(2);
    tokio::time::sleep(LINGER).await;
    assert_eq!(unfinished(&world.assignment), 0);
    assert!(!world.batcher.is_finished(), "the intake is open");
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_writes_the_open_batch_and_waits_for_those_under_way() {
    let mut world = World::start(2, usize::MAX);
    world.send("a b c d e");
    let World {
        script,
        assignment,
        intake,
        batcher,
        ..
    } = world;
    drop(intake);
    tokio::time::sleep(LINGER * 2).await;
    assert_eq!(script.sizes(), [2, 2, 1]);
    assert!(!batcher.is_finished());
    script.permits.add_permits(3);
    batcher.await.unwrap();
    assert_eq!(unfinished(&assignment), 0);
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_past_its_deadline_aborts_running_batches() {
    let mut world = World::start(1, usize::MAX);
    world.send("a b");
    world.begun(2).await;
    world.batcher.abort();
    assert!(world.batcher.await.unwrap_err().is_cancelled());
    world.script.permits.add_permits(2);
    tokio::time::sleep(SOON).await;
    assert_eq!(unfinished(&world.assignment), 2);
    assert_eq!(world.script.permits.available_permits(), 2);
}

#[tokio::test(start_paused = true)]
async fn no_more_than_four_batches_are_under_way() {
    let mut world = World::start(1, usize::MAX);
    world.send("a b c d e f");
    tokio::time::sleep(LINGER * 10).await;
    assert_eq!(world.batches().len(), UNDER_WAY);
    world.finish(1);
    tokio::time::sleep(SOON).await;
    assert_eq!(world.batches().len(), UNDER_WAY + 1);
}

/// A row that is at fault shows only when rows behind it pass.
#[tokio::test(start_paused = true)]
async fn batches_that_are_held_up_take_no_room() {
    let mut world = World::start(1, usize::MAX);
    world.send("a b c d e");
    tokio::time::sleep(LINGER).await;
    let waits = Arc::clone(&world.waits);
    let batch = waits.batch();
    let _waiting = batch.begin_alone(Wait::Deployment);
    // The batcher looks at the waits when something happens.
    world.send("f");
    tokio::time::sleep(SOON).await;
    assert_eq!(world.batches().len(), UNDER_WAY + 1);
}

/// Otherwise two connections would wait for each other's row locks.
#[tokio::test(start_paused = true)]
async fn an_order_is_in_one_batch_at_a_time() {
    let mut world = World::start(1, usize::MAX);
    world.send("a a");
    tokio::time::sleep(LINGER * 10).await;
    assert_eq!(world.batches(), [1]);
    world.finish(1);
    tokio::time::sleep(SOON).await;
    assert_eq!(world.batches(), [1, 1]);
}

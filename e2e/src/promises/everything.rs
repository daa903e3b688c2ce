//! Promise 18: all faults, at random.

use std::{
    thread,
    time::{Duration, Instant},
};

use rand::{Rng, rngs::StdRng, seq::IndexedRandom};

use super::{
    run::Run,
    trial::{Promise, Trial},
};
use crate::{
    feed::{Feed, hot_uids},
    process::Signal,
    proxy::Proxy,
    stack::Stack,
    witness::Witness,
};

pub(super) const PROMISE: Promise = Promise {
    number: 18,
    sentence: "Under any sequence of faults: no order is lost or duplicated, no answer is older \
               than the staleness bound, and no process needs a restart.",
    trials: &[Trial {
        name: "everything_at_random",
        fault: "one random fault after another: workers killed, frozen, stopped and added; api \
                replicas killed; Redis killed, frozen, flushed, restored from an old dump, cut \
                off from one worker and one replica; announcements cut; Postgres killed, frozen, \
                its sessions ended; Kafka restarted",
        body: everything_at_random,
    }],
};

/// Staleness bound: `LOCAL_CACHE_TTL`, plus a second for a busy machine.
const BOUND: Duration = Duration::from_secs(6);
/// How long answers may be older after Redis is back: the promised 20 s, plus the expiry of local
/// caches.
const AFTER_REDIS: Duration = Duration::from_secs(20 + 6);
/// The longest outage, in ms.
const OUTAGE_MS: u64 = 5000;

/// The system under test, and the observers.
struct Scene {
    stack: Stack,
    /// The link from one worker and one replica to Redis.
    proxy: Proxy,
    witness: Witness,
    rng: StdRng,
}

type RandomFault = (&'static str, fn(&mut Scene));

const FAULTS: &[RandomFault] = &[
    ("worker killed", Scene::kill_worker),
    ("worker ended", Scene::end_worker),
    ("worker frozen", Scene::freeze_worker),
    ("replica killed", Scene::kill_replica),
    ("Redis killed", Scene::kill_redis),
    ("Redis frozen", Scene::freeze_redis),
    ("Redis flushed", Scene::flush_redis),
    ("Redis restored", Scene::restore_redis),
    ("Redis cut off", Scene::cut_redis),
    ("announcements cut", Scene::cut_announcements),
    ("Postgres killed", Scene::kill_postgres),
    ("Postgres frozen", Scene::freeze_postgres),
    ("sessions ended", Scene::end_sessions),
    ("Kafka restarted", Scene::restart_kafka),
];

fn everything_at_random(run: &mut Run) {
    let length = run.everything().unwrap_or(Duration::from_secs(15));
    let stack = run
        .stack("everything")
        .private_postgres()
        .private_kafka()
        .variable("WORKER_BATCH_SIZE", "100")
        .start();
    let mut scene = Scene {
        proxy: Proxy::to(&stack.redis.url()),
        witness: Witness::start(stack.database(), &hot_uids(), BOUND, run.seed),
        stack,
        rng: run.rng(),
    };
    scene.start_worker(true);
    scene.start_worker(false);
    scene.start_replica(true);
    scene.start_replica(false);
    let addresses = scene.stack.addresses();
    let feeds = [
        Feed::of_everything(addresses, run.seed),
        Feed::of_hot_orders(addresses, run.seed + 1),
    ];
    let (end, mut faults) = (Instant::now() + length, 0);
    while Instant::now() < end {
        let (name, strike) = FAULTS.choose(&mut scene.rng).expect("there are faults");
        eprintln!("everything: {name}");
        strike(&mut scene);
        faults += 1;
        scene.await_progress();
    }
    let Scene {
        mut stack,
        proxy,
        witness,
        ..
    } = scene;
    let mut feeds = feeds.map(Feed::stop).into_iter();
    let mut ledger = feeds.next().expect("two feeds");
    feeds.for_each(|more| ledger.append(more));
    stack.settle();
    stack.check().postgres(&ledger);
    stack.check().redis_remains(&ledger);
    stack.check().dead_letters_at_least_once(&ledger);
    stack.assert_no_difference();
    let testimony = witness.stop();
    drop(proxy);
    stack.stop_workers();

    run.figure("faults", faults);
    run.figure("records", ledger.records().len());
    run.figure("answers", testimony.answers);
    run.figure("unanswered", testimony.unanswered);
    run.figure("lost", 0);
    run.figure("duplicated", 0);
    run.zero("never sent", testimony.never_sent(&ledger));
    assert_eq!(testimony.stale, Vec::<String>::new(), "stale answers");
    run.figure("stale", 0);
}

impl Scene {
    /// Returns the direct URL of Redis, or the one through the proxy that faults cut.
    fn redis_url(&self, by_proxy: bool) -> String {
        let url = self.stack.redis.url();
        match by_proxy {
            true => self.proxy.url(&url),
            false => url,
        }
    }

    fn start_worker(&mut self, by_proxy: bool) {
        let url = self.redis_url(by_proxy);
        self.stack.start_worker_with(&[("REDIS_URL", &url)]);
    }

    fn start_replica(&mut self, by_proxy: bool) {
        let url = self.redis_url(by_proxy);
        self.stack.start_api_with(&[("REDIS_URL", &url)]);
        let replicas = self.stack.apis.iter().map(|api| api.url());
        self.witness.ask(replicas.collect());
    }

    /// Waits for the random duration of an outage.
    fn outage(&mut self) {
        let millis = self.rng.random_range(0..OUTAGE_MS);
        thread::sleep(Duration::from_millis(millis));
    }

    /// Asserts that no process has ended, and waits until orders are stored again.
    fn await_progress(&mut self) {
        for worker in &mut self.stack.workers {
            assert_eq!(worker.process.ended(), None, "a worker has ended");
        }
        for api in &mut self.stack.apis {
            assert_eq!(api.process.ended(), None, "a replica has ended");
        }
        let stored = self.stack.database().count();
        self.stack.await_orders(stored + 300);
    }

    fn kill_worker(&mut self) {
        self.stack.workers.remove(0).process.kill();
        let by_proxy = self.rng.random();
        self.start_worker(by_proxy);
    }

    fn end_worker(&mut self) {
        let by_proxy = self.rng.random();
        self.start_worker(by_proxy);
        self.stack.workers.remove(0).process.terminate();
    }

    fn freeze_worker(&mut self) {
        self.stack.workers[0].process.signal(Signal::Stop);
        // Longer than its group session.
        thread::sleep(Duration::from_secs(8));
        self.stack.workers[0].process.signal(Signal::Continue);
    }

    fn kill_replica(&mut self) {
        let mut api = self.stack.apis.remove(0);
        api.process.kill();
        let by_proxy = self.rng.random();
        self.start_replica(by_proxy);
    }

    fn kill_redis(&mut self) {
        self.stack.redis.crash();
        self.outage();
        self.stack.redis.start_again();
    }

    fn freeze_redis(&mut self) {
        self.stack.redis.freeze();
        self.outage();
        self.witness.be_lenient(AFTER_REDIS);
        self.stack.redis.thaw();
    }

    fn flush_redis(&mut self) {
        self.stack.redis.command(&["FLUSHALL"]);
    }

    fn restore_redis(&mut self) {
        self.stack.redis.save();
        self.await_progress();
        self.stack.redis.crash();
        self.outage();
        // Before the restart, because Redis answers before `start_again` returns.
        self.witness.be_lenient(AFTER_REDIS * 2);
        self.stack.redis.start_again();
        self.witness.be_lenient(AFTER_REDIS);
        self.stack.redis.forget_dump();
    }

    fn cut_redis(&mut self) {
        self.proxy.cut();
        self.outage();
        self.proxy.restore();
    }

    fn cut_announcements(&mut self) {
        self.stack
            .redis
            .command(&["CLIENT", "KILL", "TYPE", "pubsub"]);
    }

    fn kill_postgres(&mut self) {
        self.stack.postgres().crash();
        self.outage();
        self.stack.postgres().start_again();
    }

    fn freeze_postgres(&mut self) {
        self.stack.postgres().freeze();
        self.outage();
        self.stack.postgres().thaw();
    }

    fn end_sessions(&mut self) {
        self.stack.database().execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
             WHERE application_name LIKE 'order-%'",
        );
    }

    fn restart_kafka(&mut self) {
        self.stack.kafka().stop();
        self.outage();
        self.stack.kafka().start_again();
    }
}

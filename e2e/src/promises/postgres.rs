//! Promise 6: Postgres.

use std::{
    thread,
    time::{Duration, Instant},
};

use shared::order::sample::Generator;

use super::{
    run::Run,
    trial::{Promise, Trial},
};
use crate::{
    feed::Feed, ledger::Ledger, postgres::Database, proxy::Proxy, record::Draft, stack::Stack,
    wait::until,
};

pub(super) const PROMISE: Promise = Promise {
    number: 6,
    sentence: "Workers wait until Postgres works again, for any kind of outage: no order is lost, \
               duplicated or dead-lettered, and no process needs a restart.",
    trials: &[
        Trial {
            name: "workers_wait_for_an_unavailable_postgres",
            fault: "Postgres is stopped, refuses connections, is unreachable, is frozen",
            body: |run| wait_for_all(run, &ABSENT),
        },
        Trial {
            name: "workers_wait_for_a_postgres_that_rejects_work",
            fault: "sessions are killed every 200 ms, another session causes deadlocks, \
                    connections break right after COMMIT, the database is read-only, all \
                    connections are in use, a migration locks the tables",
            body: |run| wait_for_all(run, &UNWILLING),
        },
    ],
};

/// A fault that keeps Postgres from working, for the given time.
type Outage = (&'static str, fn(&mut Ground, Duration));

const ABSENT: [Outage; 4] = [
    ("stopped", |ground, time| {
        ground.stack.postgres().crash();
        thread::sleep(time);
        ground.stack.postgres().start_again();
    }),
    ("refused", |ground, time| {
        ground.proxy.cut();
        thread::sleep(time);
        ground.proxy.restore();
    }),
    ("unreachable", |ground, time| {
        ground.proxy.freeze();
        thread::sleep(time);
        ground.proxy.restore();
    }),
    ("frozen", |ground, time| {
        ground.stack.postgres().freeze();
        thread::sleep(time);
        ground.stack.postgres().thaw();
    }),
];

const UNWILLING: [Outage; 6] = [
    ("sessions killed", |ground, time| {
        let begun = Instant::now();
        while begun.elapsed() < time {
            ground.database.execute(END_SESSIONS);
            thread::sleep(PERIOD);
        }
    }),
    ("deadlock", Ground::deadlock),
    ("COMMIT unanswered", |ground, time| {
        ground.proxy.lose_commits();
        thread::sleep(time);
        ground.proxy.restore();
    }),
    ("read-only", |ground, time| {
        let set = |value| {
            let setting = format!("ALTER SYSTEM SET default_transaction_read_only = {value}");
            ground.database.execute(&setting);
            ground.database.execute("SELECT pg_reload_conf()");
        };
        set("on");
        thread::sleep(time);
        set("off");
    }),
    ("connections taken", |ground, time| {
        let mut first = ground.database.session();
        let mut taken = Vec::new();
        let begun = Instant::now();
        while begun.elapsed() < time {
            first.execute(END_SESSIONS);
            while let Ok(session) = ground.database.try_session() {
                taken.push(session);
            }
            thread::sleep(PERIOD);
        }
    }),
    ("migration", |ground, time| {
        let seconds = time.as_secs_f64() / 2.0;
        // One table per transaction. Otherwise a deadlock could end the migration instead of a
        // worker's transaction.
        for step in [
            &format!(
                "BEGIN; ALTER TABLE orders ADD COLUMN trial TEXT NOT NULL DEFAULT ''; \
                 SELECT pg_sleep({seconds}); COMMIT"
            ),
            &format!(
                "BEGIN; CREATE INDEX trial ON items (nm_id); SELECT pg_sleep({seconds}); COMMIT"
            ),
            "DROP INDEX trial",
            "ALTER TABLE orders DROP COLUMN trial",
        ] {
            ground.database.execute(step);
        }
    }),
];

/// Interval at which a fault is repeated.
const PERIOD: Duration = Duration::from_millis(200);

const END_SESSIONS: &str =
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'order-%'";

/// A system whose Postgres fails.
struct Ground {
    stack: Stack,
    proxy: Proxy,
    database: Database,
    ledger: Ledger,
    seed: u64,
}

fn wait_for_all(run: &mut Run, faults: &[Outage]) {
    let time = run.choose(Duration::from_secs(1), Duration::from_secs(60));
    let mut stack = run
        .stack("postgres")
        .private_postgres()
        .variable("DATABASE_TIMEOUT", "1s")
        .variable("WORKER_BATCH_SIZE", "25")
        // A longer session timeout. On a busy machine the group could remove a slow member, and
        // records would be read again, but this trial expects each dead letter exactly once.
        .variable("KAFKA_SESSION_TIMEOUT", "30s")
        .start();
    let proxy = Proxy::to(&stack.addresses().database_url);
    let url = proxy.url(&stack.addresses().database_url);
    let through_proxy = [("DATABASE_URL", url.as_str())];
    stack.start_worker_with(&through_proxy);
    stack.start_worker_with(&through_proxy);
    stack.start_api_with(&through_proxy);
    let mut ground = Ground {
        database: stack.database(),
        stack,
        proxy,
        ledger: Ledger::default(),
        seed: run.seed,
    };
    let feed = Feed::of_everything(ground.stack.addresses(), run.seed);
    ground.await_progress();
    for (name, inflict) in faults {
        inflict(&mut ground, time);
        run.figure(name, format!("{:.1?}", ground.await_progress()));
        ground.assert_no_verdict(name);
    }
    let Ground {
        mut stack,
        mut ledger,
        ..
    } = ground;
    ledger.append(feed.stop());
    stack.settle();
    let ended = stack
        .workers
        .iter_mut()
        .filter_map(|worker| worker.process.ended());
    run.zero("processes ended", ended.count());
    // Includes the number of child rows, and each dead letter exactly once.
    stack.check().tiers(&ledger);
    stack.assert_no_difference();
    stack.check().api(
        &ledger.of_some(run.choose(300, usize::MAX)),
        &stack.apis[0].url(),
        "local",
    );
    run.figure("records", ledger.records().len());
    run.figure("lost, duplicated or dead-lettered", 0);
}

impl Ground {
    /// Waits until orders are stored again. Returns how long that took.
    fn await_progress(&self) -> Duration {
        let begun = Instant::now();
        self.stack.await_orders(self.database.count() + 1);
        begun.elapsed()
    }

    #[track_caller]
    fn assert_no_verdict(&self, fault: &str) {
        let letters = self
            .stack
            .broker()
            .read(&self.stack.addresses().dead_letter_topic);
        let verdicts = letters.iter().filter(|letter| {
            let rejected = Some(b"rejected_by_database".to_vec());
            letter
                .headers
                .contains(&("dlq-reason".to_owned(), rejected))
        });
        let verdicts = verdicts.count();
        assert_eq!(verdicts, 0, "{fault}: a record was dead-lettered");
    }

    /// A rival session locks two orders in the opposite order of the workers.
    fn deadlock(&mut self, _: Duration) {
        let deadlocks = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()";
        let before = self.database.number(deadlocks);
        let mut orders: Vec<_> = Generator::new(!self.seed, 1..=3).take(2).collect();
        orders.sort_by(|one, other| one.order_uid.cmp(&other.order_uid));
        let drafts: Vec<Draft> = orders
            .iter()
            .map(|order| {
                let mut draft = Draft::order(order);
                draft.record.partition = Some(0);
                draft
            })
            .collect();
        self.stack.send(&mut self.ledger, &drafts);
        let [lesser, greater] = [0, 1].map(|index| orders[index].order_uid.clone());
        until("both orders", || {
            match self.database.session().versions(&[&lesser, &greater]).len() {
                2 => Ok(()),
                found => Err(found),
            }
        });
        until("a deadlock", || {
            let mut rival = self.database.session();
            let lock =
                |uid: &str| format!("SELECT FROM orders WHERE order_uid = '{uid}' FOR UPDATE");
            // The worker's session must be the one that detects the deadlock.
            rival.execute("SET deadlock_timeout = '10s'; BEGIN");
            rival.execute(&lock(&greater));
            self.stack.send(&mut self.ledger, &drafts);
            until("a worker that waits for the rival", || {
                let waiting = "SELECT count(*) FROM pg_stat_activity \
                               WHERE wait_event_type = 'Lock' \
                               AND application_name = 'order-worker'";
                match self.database.number(waiting) {
                    1.. => Ok(()),
                    _ => Err("no session waits"),
                }
            });
            // One of the two fails, the other continues.
            let _ = rival.try_execute(&lock(&lesser));
            drop(rival);
            match self.database.number(deadlocks) {
                after if after > before => Ok(()),
                _ => Err("the two orders came in different batches"),
            }
        });
    }
}

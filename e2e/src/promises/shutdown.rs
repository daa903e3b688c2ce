//! The last part of promise 15: a process ends in time after SIGTERM.

use std::{
    fmt,
    time::{Duration, Instant},
};

use super::run::Run;
use crate::{feed::Feed, process::Process, proxy::Proxy, stack::Stack, wait::until};

/// The promised limit, and an allowance for a busy machine.
const LIMIT: Duration = Duration::from_secs(25 + 1);

/// The service that does not answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Frozen {
    Kafka,
    Postgres,
    Redis,
}

/// The links of worker and api that the trial freezes.
struct Links {
    postgres: Proxy,
    redis: Proxy,
}

impl Frozen {
    fn name(self) -> &'static str {
        match self {
            Self::Kafka => "Kafka frozen",
            Self::Postgres => "Postgres frozen",
            Self::Redis => "Redis frozen",
        }
    }

    fn begin(self, stack: &Stack, links: &Links) {
        match self {
            Self::Kafka => stack.kafka().freeze(),
            Self::Postgres => links.postgres.freeze(),
            Self::Redis => links.redis.freeze(),
        }
    }

    fn end(self, stack: &Stack, links: &Links) {
        match self {
            Self::Kafka => stack.kafka().thaw(),
            Self::Postgres => links.postgres.restore(),
            Self::Redis => links.redis.restore(),
        }
    }
}

/// Shutdown times of worker and api.
struct Took {
    worker: Duration,
    api: Duration,
}

impl fmt::Display for Took {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [worker, api] = [self.worker, self.api].map(|took| took.as_secs_f64());
        write!(f, "worker {worker:.1} s api {api:.1} s")
    }
}

/// Freezes Kafka, Postgres or Redis under load, and sends SIGTERM to worker and api.
pub(super) fn frozen(run: &mut Run) {
    let mut stack = run
        .stack("hangs")
        .private_kafka()
        .variable("WORKER_SHUTDOWN_TIMEOUT", run.choose("4s", "25s"))
        .start();
    let addresses = stack.addresses().clone();
    let links = Links {
        postgres: Proxy::to(&addresses.database_url),
        redis: Proxy::to(&addresses.redis_url),
    };
    let variables = [
        ("DATABASE_URL", links.postgres.url(&addresses.database_url)),
        ("REDIS_URL", links.redis.url(&addresses.redis_url)),
    ];
    let variables = [
        (variables[0].0, variables[0].1.as_str()),
        (variables[1].0, variables[1].1.as_str()),
    ];
    let feed = Feed::of_everything(&addresses, run.seed);
    for frozen in [Frozen::Kafka, Frozen::Postgres, Frozen::Redis] {
        stack.start_worker_with(&variables);
        stack.start_api_with(&variables);
        stack.await_orders(stack.database().count() + 300);
        let (mut worker, mut api) = (stack.workers.remove(0), stack.apis.remove(0));
        frozen.begin(&stack, &links);
        if frozen != Frozen::Kafka {
            until("records under way", || match stack.progress() {
                (finished, all) if finished + 500 <= all => Ok(()),
                (finished, all) => Err(format!("{finished} of {all} finished")),
            });
        }
        let took = Took {
            worker: worker.process.terminate_somehow(),
            api: terminate(&mut api.process),
        };
        frozen.end(&stack, &links);
        if run.is_full() {
            assert!(
                took.worker.max(took.api) <= LIMIT,
                "{}: {took}",
                frozen.name()
            );
        }
        run.figure(frozen.name(), took);
    }
    let ledger = feed.stop();
    stack.start_worker();
    stack.start_api();
    stack.settle();
    stack.check().postgres(&ledger);
    stack.check().redis_remains(&ledger);
    // A worker that could not commit its finished offsets leaves their records to be read again.
    stack.check().dead_letters_at_least_once(&ledger);
    stack.check().api(&ledger, &stack.apis[0].url(), "local");
}

/// Sends SIGTERM, asserts exit code 0 and returns how long that took.
#[track_caller]
fn terminate(process: &mut Process) -> Duration {
    let asked = Instant::now();
    process.terminate();
    asked.elapsed()
}

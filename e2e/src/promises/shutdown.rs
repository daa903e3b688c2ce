//! The last part of promise 15: whoever is asked to end ends.

use std::{
    fmt,
    time::{Duration, Instant},
};

use super::Run;
use crate::{feed::Feed, process::Process, proxy::Proxy, stack::Stack, wait::until};

/// What is promised, and what a busy machine may add.
const LIMIT: Duration = Duration::from_secs(25 + 1);

/// What does not answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Frozen {
    Kafka,
    Postgres,
    Redis,
}

/// Both processes of a system, and the links on which they can be frozen out.
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

/// How long worker and api took.
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

/// Under load Kafka, Postgres or Redis is frozen, and worker and api are asked to end.
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
    // Whoever could not say what it had finished leaves it to be read again.
    stack.check().dead_letters_at_least_once(&ledger);
    stack.check().api(&ledger, &stack.apis[0].url(), "local");
}

/// Asks a process to end, expects exit code 0, and tells how long that took.
#[track_caller]
fn terminate(process: &mut Process) -> Duration {
    let asked = Instant::now();
    process.terminate();
    asked.elapsed()
}

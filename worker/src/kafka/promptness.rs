//! Keeps a member of the group prompt: heartbeats on time, and no pause between the two rounds of a rebalance.

use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};

use super::{context::Context, membership};

/// librdkafka looks at its group when something wakes its main thread, else once a second. A heartbeat that is due waits for that.
const WAKE_EVERY: Duration = Duration::from_millis(100);

/// How long a rebalance may wait for metadata: one round trip, unless a broker is away.
const METADATA: Duration = Duration::from_millis(200);

/// What the poll thread does for its membership between two polls.
#[derive(Debug)]
pub(super) struct Promptness {
    woken: Instant,
    /// Assignments that librdkafka has reported.
    rounds: u64,
}

impl Promptness {
    pub(super) fn new() -> Self {
        Self {
            woken: Instant::now(),
            rounds: 0,
        }
    }

    /// To be called with each poll, after it. Blocks for one round trip to a broker after each round of a rebalance, else not.
    pub(super) fn keep(&mut self, consumer: &BaseConsumer<Context>, topic: &str) {
        let rounds = consumer.context().group.rounds();
        if self.rounds != rounds {
            self.rounds = rounds;
            skip_join_pause(consumer, topic);
        }
        if self.woken.elapsed() >= WAKE_EVERY {
            self.woken = Instant::now();
            // It asks the main thread.
            membership::is_member(consumer);
        }
    }
}

/// A cooperative rebalance takes two rounds, and librdkafka joins at most once a second, unless it has got metadata since. So
/// partitions would pause for that second. It does so after a round only, so that failed attempts to join keep their pause.
fn skip_join_pause(consumer: &BaseConsumer<Context>, topic: &str) {
    if let Err(error) = consumer.fetch_metadata(Some(topic), METADATA) {
        tracing::debug!(%error, "no metadata after an assignment; the next round of the rebalance may take a second");
    }
}

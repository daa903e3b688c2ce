//! Keeps a group member prompt: heartbeats on time, and no pause between the two rounds of a
//! rebalance.

use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};

use super::{context::Context, membership};

/// Interval at which librdkafka's main thread is woken. It checks the group when it wakes, or once
/// a second. A due heartbeat waits for that check.
const WAKE_EVERY: Duration = Duration::from_millis(100);

/// Limit for fetching metadata during a rebalance. It takes one round trip unless a broker is down.
const METADATA: Duration = Duration::from_millis(200);

/// Group maintenance that the poll thread does between two polls.
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

    /// Keeps the membership prompt; call it after each poll. Blocks only after each round of a
    /// rebalance, for one round trip to a broker.
    pub(super) fn keep(&mut self, consumer: &BaseConsumer<Context>, topic: &str) {
        let rounds = consumer.context().group.rounds();
        if self.rounds != rounds {
            self.rounds = rounds;
            skip_join_pause(consumer, topic);
        }
        if self.woken.elapsed() >= WAKE_EVERY {
            self.woken = Instant::now();
            // This call wakes the main thread.
            membership::is_member(consumer);
        }
    }
}

/// Fetches metadata, so that librdkafka joins the next round at once.
///
/// A cooperative rebalance takes two rounds. librdkafka joins at most once a second, unless it has
/// received metadata since. Partitions would pause for that second. Call this only after a round,
/// so that failed attempts to join keep their pause.
fn skip_join_pause(consumer: &BaseConsumer<Context>, topic: &str) {
    if let Err(error) = consumer.fetch_metadata(Some(topic), METADATA) {
        tracing::debug!(%error, "no metadata after an assignment; the rebalance may take longer");
    }
}

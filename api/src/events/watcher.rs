//! The stream of one watcher.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use tokio::{
    sync::OwnedSemaphorePermit,
    time::{Instant, Interval, MissedTickBehavior, interval_at},
};

use super::{
    End,
    feed::Changes,
    frame::{self, Frame, Reset},
    watched::OrderChanges,
};
use crate::metrics::{EventKind, EventMetrics, StreamKind};

/// Time between two comments.
const BEAT: Duration = Duration::from_secs(15);

/// Range of the time after which a client reconnects, in milliseconds. The clients of a replica
/// that stops then do not all reconnect at once.
const RETRY: std::ops::Range<u64> = 500..2500;

/// The stream of one watcher, as text. Dropping it ends the watch.
pub struct Watcher {
    opening: Option<Bytes>,
    source: Source,
    beat: Interval,
    is_over: bool,
    orders_sent: Arc<AtomicU64>,
    place: Place,
}

/// Where a watcher receives its frames.
pub(super) enum Source {
    Order(OrderChanges),
    Orders(Changes),
}

/// The place of a watcher among those of the replica.
pub(super) struct Place {
    stream: StreamKind,
    metrics: Arc<EventMetrics>,
    _permit: OwnedSemaphorePermit,
}

impl Place {
    pub(super) fn new(
        permit: OwnedSemaphorePermit,
        stream: StreamKind,
        metrics: Arc<EventMetrics>,
    ) -> Self {
        metrics.watchers(stream).inc();
        Self {
            stream,
            metrics,
            _permit: permit,
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.metrics.watchers(self.stream).dec();
    }
}

impl Watcher {
    /// A stream that begins with `reset`, if there is one.
    pub(super) fn new(source: Source, reset: Option<Reset>, place: Place) -> Self {
        let mut opening = frame::retry(fastrand::u64(RETRY)).into_bytes();
        if let Some(reset) = reset {
            let reset = Frame::reset(reset);
            place.metrics.sent(reset.event, reset.count);
            opening.extend_from_slice(&reset.text);
        }
        let mut beat = interval_at(Instant::now() + BEAT, BEAT);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self {
            opening: Some(opening.into()),
            source,
            beat,
            is_over: false,
            orders_sent: Arc::default(),
            place,
        }
    }

    /// The number of documents that the stream has sent.
    pub fn orders_sent(&self) -> Arc<AtomicU64> {
        self.orders_sent.clone()
    }

    /// Waits for the next part of the stream. Returns `None` at its end: the replica shuts down, or
    /// the client is too slow. Dropping the future loses nothing.
    pub async fn next(&mut self) -> Option<Bytes> {
        if let Some(opening) = self.opening.take() {
            return Some(opening);
        }
        if self.is_over {
            return None;
        }
        let next = tokio::select! {
            next = self.source.next() => next,
            _ = self.beat.tick() => return Some(frame::COMMENT),
        };
        match next {
            Ok(frame) => {
                self.place.metrics.sent(frame.event, frame.count);
                if frame.event == EventKind::Order {
                    self.orders_sent.fetch_add(1, Ordering::Relaxed);
                }
                Some(frame.text)
            }
            Err(end) => {
                self.is_over = true;
                if end == End::Slow {
                    self.place.metrics.slow();
                }
                None
            }
        }
    }
}

impl Drop for Watcher {
    /// Counts a client that stopped reading until its connection timed out.
    fn drop(&mut self) {
        if !self.is_over && self.source.is_behind() {
            self.place.metrics.slow();
        }
    }
}

impl Source {
    async fn next(&mut self) -> Result<Frame, End> {
        match self {
            Self::Order(changes) => changes.next().await,
            Self::Orders(changes) => changes.next().await,
        }
    }

    fn is_behind(&self) -> bool {
        match self {
            Self::Order(changes) => changes.is_behind(),
            Self::Orders(changes) => changes.is_behind(),
        }
    }
}

//! Events: streams of changes, for watchers of one order and of all orders. Independent of HTTP.
//!
//! ```text
//! announcements ──▶ Events ──▶ feed ───────────────────────────▶ watchers of all orders
//!                      └─────▶ watched ──▶ refresh ──▶ lookup ─▶ watchers of one order
//! ```
//!
//! | module | responsibility |
//! |---|---|
//! | `feed` | one buffer of changes for all watchers of all orders |
//! | `watched` | per watched order: what was announced, and the newest frame |
//! | `refresh` | one lookup per changed order; rechecks while announcements may be missing |
//! | `event` | an event of one order, for each kind of watcher |
//! | `frame` | events as text |
//! | `watcher` | the stream of one watcher: its place, heartbeat and end |
//!
//! The source of all events are the announcements that the replica receives anyway. An announcement
//! invalidates the caches first. So the lookup that follows finds the announced version, or a newer
//! one.

mod event;
mod feed;
mod frame;
mod refresh;
mod watched;
mod watcher;

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;
use shared::{cache::Announcement, order::OrderUid};
use tokio::sync::{Notify, Semaphore};

pub use watcher::Watcher;

use crate::{
    answer::{Answer, Edition, View, Visible},
    lookup::{Freshness, Lookup, LookupError},
    metrics::{EventMetrics, StreamKind},
};
use feed::Feed;
use frame::Reset;
use watched::Watched;
use watcher::{Place, Source};

/// Maximum bytes of the frames that wait for watchers of one order. The frames of 20 000 usual
/// orders fit.
const FRAME_BYTES: usize = 32 << 20;

/// Longest time between two rechecks of the watched orders.
const LONGEST_PERIOD: Duration = Duration::from_millis(2500);

/// Shortest time between two rechecks, so that a short lifetime of cache entries does not load
/// Postgres.
const SHORTEST_PERIOD: Duration = Duration::from_millis(250);

/// Limits of the events of a replica.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Maximum number of watchers.
    pub watchers: usize,
    /// How far a watched order may be behind Postgres while announcements may be missing: the
    /// lifetime of an entry of the local cache.
    pub staleness: Duration,
}

/// Reason why nothing can be watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// There is no such order.
    #[error("no order has this uid")]
    Unknown,
    /// The order was erased.
    #[error("the order was erased")]
    Erased,
    /// The watcher may see the orders of one customer only.
    #[error("the watcher is bound to a customer")]
    Bound,
    /// The replica has its maximum number of watchers.
    #[error("too many watchers")]
    TooMany,
    /// The replica is shutting down.
    #[error("the replica is shutting down")]
    Closed,
    /// No tier can answer whether the order exists.
    #[error(transparent)]
    Lookup(#[from] LookupError),
}

/// Reason why the stream of a watcher ends before its client leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// The watcher did not read in time: what it needs next was released.
    Slow,
    /// The watcher may not see the order any more: it is one of another customer now.
    Hidden,
    /// The replica is shutting down.
    Closed,
}

/// Where watched orders are read.
pub trait Orders: Clone + Send + Sync + 'static {
    /// Returns the state of an order.
    ///
    /// # Errors
    /// If no tier can answer.
    fn find(
        &self,
        uid: OrderUid,
        freshness: Freshness,
    ) -> impl Future<Output = Result<Answer, LookupError>> + Send;

    /// Returns the versions of those of the orders that Postgres holds, erased ones included, in
    /// any order.
    ///
    /// # Errors
    /// If Postgres does not answer.
    fn versions(
        &self,
        uids: &[OrderUid],
    ) -> impl Future<Output = Result<Vec<Announcement>, LookupError>> + Send;
}

impl Orders for Lookup {
    async fn find(&self, uid: OrderUid, freshness: Freshness) -> Result<Answer, LookupError> {
        Ok(self.find(uid, freshness).await?.answer)
    }

    async fn versions(&self, uids: &[OrderUid]) -> Result<Vec<Announcement>, LookupError> {
        let versions = self.versions(uids).await?;
        let seen = |(uid, version)| Announcement { uid, version };
        Ok(versions.into_iter().map(seen).collect())
    }
}

/// The events of a replica. Clones share their state.
#[derive(Clone)]
pub struct Events<O = Lookup> {
    inner: Arc<Inner<O>>,
}

struct Inner<O> {
    orders: O,
    places: Arc<Semaphore>,
    feed: Feed,
    watched: Arc<Watched>,
    link: Mutex<Link>,
    /// Notified when announcements are complete again.
    resumed: Notify,
    /// Time between two rechecks while announcements may be missing.
    period: Duration,
    metrics: Arc<EventMetrics>,
}

/// Whether every change is announced to this replica.
#[derive(Clone, Copy, Default)]
struct Link {
    /// The replica is subscribed to announcements.
    subscribed: bool,
    /// Workers write every change to Redis, and announce it there.
    redis_usable: bool,
}

impl Link {
    fn is_complete(self) -> bool {
        self.subscribed && self.redis_usable
    }
}

impl<O: Orders> Events<O> {
    /// Events without watchers, and without announcements yet.
    pub fn new(orders: O, settings: Settings, metrics: Arc<EventMetrics>) -> Self {
        let inner = Inner {
            orders,
            places: Arc::new(Semaphore::new(settings.watchers)),
            feed: Feed::new(),
            watched: Arc::new(Watched::new(FRAME_BYTES)),
            link: Mutex::default(),
            resumed: Notify::new(),
            // Half of it: the next recheck may miss a change by a moment.
            period: (settings.staleness / 2).clamp(SHORTEST_PERIOD, LONGEST_PERIOD),
            metrics,
        };
        Self {
            inner: Arc::new(inner),
        }
    }

    /// Sends changes to watchers. Call it after the caches were invalidated.
    pub fn announce(&self, announcements: &[Announcement]) {
        self.inner.feed.announce(announcements);
        self.inner.watched.announce(announcements);
    }

    /// Records whether the replica is subscribed to announcements.
    pub fn set_subscribed(&self, subscribed: bool) {
        self.change_link(|link| link.subscribed = subscribed);
    }

    /// Records whether Redis holds and announces every change.
    pub fn set_redis_usable(&self, usable: bool) {
        self.change_link(|link| link.redis_usable = usable);
    }

    fn change_link(&self, change: impl FnOnce(&mut Link)) {
        // Locked until the watchers know, so that resets arrive in order.
        let mut link = self.inner.link.lock();
        let was_complete = link.is_complete();
        change(&mut link);
        if link.is_complete() == was_complete {
            return;
        }
        let reason = if was_complete {
            Reset::Lost
        } else {
            Reset::Resumed
        };
        self.inner.feed.reset(reason);
        self.inner.watched.reset(reason);
        if reason == Reset::Resumed {
            self.inner.resumed.notify_one();
        }
    }

    fn is_complete(&self) -> bool {
        self.inner.link.lock().is_complete()
    }

    /// Watches one order as `view` shows it. `known` is the document that the client has. The
    /// stream begins with the current one if that is another one.
    ///
    /// # Errors
    /// Returns an error if the order does not exist for `view`, or cannot be watched now.
    pub async fn watch_order(
        &self,
        uid: OrderUid,
        known: Option<Edition>,
        view: &View,
    ) -> Result<Watcher, Refusal> {
        let place = self.take_place(StreamKind::Order)?;
        // Watched before it is looked up, so that no change is missed in between.
        let mut changes = self
            .inner
            .watched
            .watch(uid, view.clone())
            .ok_or(Refusal::Closed)?;
        let mut answer = self.inner.orders.find(uid, Freshness::Cached).await?;
        let mut visible = view.show(answer.clone());
        // The client was connected to a replica that is ahead of this one, or a cache holds a
        // document that cannot be masked.
        if known.map(|known| known.version) > answer.document_version() || visible.is_err() {
            answer = self.inner.orders.find(uid, Freshness::Current).await?;
            visible = view.show(answer.clone());
        }
        self.inner.watched.show(&uid, &answer);
        match visible.map_err(|_| LookupError::Unavailable)? {
            Visible::Order(order) if known == Some(order.edition()) => {
                changes.skip(order.edition().version);
            }
            Visible::Order(_) => {}
            Visible::Erased(_) => return Err(Refusal::Erased),
            Visible::Unknown => return Err(Refusal::Unknown),
        }
        let reset = (!self.is_complete()).then_some(Reset::Lost);
        Ok(Watcher::new(Source::Order(changes), reset, place))
    }

    /// Watches all orders, for a watcher that may see all of them. `is_known` states whether the
    /// client was connected before. The stream then begins with a reset, because a replica keeps no
    /// history.
    ///
    /// # Errors
    /// Returns an error if nothing can be watched now, or `view` does not show all orders: a change
    /// has no customer.
    pub fn watch_orders(&self, is_known: bool, view: &View) -> Result<Watcher, Refusal> {
        if view.is_bound() {
            return Err(Refusal::Bound);
        }
        let place = self.take_place(StreamKind::Orders)?;
        let changes = self.inner.feed.watch().ok_or(Refusal::Closed)?;
        let reset = if !self.is_complete() {
            Some(Reset::Lost)
        } else {
            is_known.then_some(Reset::Reconnected)
        };
        Ok(Watcher::new(Source::Orders(changes), reset, place))
    }

    fn take_place(&self, stream: StreamKind) -> Result<Place, Refusal> {
        let permit = self.inner.places.clone().try_acquire_owned();
        let permit = permit.map_err(|_| Refusal::TooMany)?;
        Ok(Place::new(permit, stream, self.inner.metrics.clone()))
    }

    /// Ends all streams after what was sent to them, and accepts no more watchers.
    pub fn close(&self) {
        self.inner.feed.close();
        self.inner.watched.close();
    }
}

#[cfg(test)]
mod tests;

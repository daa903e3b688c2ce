//! Reads changed orders for their watchers.

use std::time::Duration;

use futures_util::{StreamExt, future::join, stream::FuturesUnordered};
use shared::order::{OrderUid, Version};
use tokio::time::{MissedTickBehavior, interval};

use super::{Events, Orders};
use crate::lookup::Freshness;

/// Maximum number of concurrent lookups. Those of requests must not wait behind them.
const LOOKUPS: usize = 16;

/// Time until a failed lookup is retried.
const RETRY: Duration = Duration::from_millis(500);

/// Maximum number of orders in one query of a recheck.
const RECHECKED: usize = 500;

impl<O: Orders> Events<O> {
    /// Reads the watched orders that change, and rechecks all of them while announcements may be
    /// missing. Never returns.
    pub async fn run(self) {
        join(self.refresh_changed(), self.recheck_all()).await;
    }

    async fn refresh_changed(&self) {
        let watched = &self.inner.watched;
        let mut lookups = FuturesUnordered::new();
        let mut retry = interval(RETRY);
        retry.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                (uid, announced) = watched.next(), if lookups.len() < LOOKUPS => {
                    lookups.push(self.refresh(uid, announced));
                }
                Some(()) = lookups.next() => {}
                _ = retry.tick() => watched.retry_late(),
            }
        }
    }

    /// Reads an order that was announced with this version.
    async fn refresh(&self, uid: OrderUid, announced: Option<Version>) {
        let orders = &self.inner.orders;
        let mut answer = orders.find(uid, Freshness::Cached).await;
        if answer
            .as_ref()
            .is_ok_and(|answer| answer.version() < announced)
        {
            // A cache missed the change.
            answer = orders.find(uid, Freshness::Current).await;
        }
        match answer {
            Ok(answer) => self.inner.watched.show(&uid, &answer),
            Err(error) => tracing::debug!(%error, order_uid = %uid, "lookup for watchers failed"),
        }
        self.inner.watched.finish(&uid, announced);
    }

    /// Compares all watched orders with Postgres: while announcements may be missing once per
    /// period, and once more after they are complete again.
    async fn recheck_all(&self) {
        let mut ticks = interval(self.inner.period);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut is_due = false;
        loop {
            tokio::select! {
                _ = ticks.tick() => is_due |= !self.is_complete(),
                () = self.inner.resumed.notified() => is_due = true,
            }
            if is_due {
                // A change after this moment is announced.
                let is_complete = self.is_complete();
                let is_done = self.recheck().await;
                is_due = !(is_complete && is_done);
            }
        }
    }

    /// Queues the watched orders that Postgres holds in a newer version. Returns whether Postgres
    /// answered all queries.
    async fn recheck(&self) -> bool {
        let mut is_done = true;
        for uids in self.inner.watched.uids().chunks(RECHECKED) {
            match self.inner.orders.versions(uids).await {
                Ok(versions) => self.inner.watched.announce(&versions),
                Err(error) => {
                    tracing::debug!(%error, "recheck of watched orders failed");
                    is_done = false;
                }
            }
        }
        is_done
    }
}

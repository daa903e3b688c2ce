//! Receives announcements of changed orders. Invalidates their entries in the local cache, then
//! sends them to watchers.

use std::sync::Arc;

use prometheus::IntGauge;
use shared::{
    cache::{CacheError, Subscription},
    config::Redis,
    runtime::backoff::Backoff,
};
use tokio::sync::watch;

use crate::{events::Events, local_cache::LocalCache, redis_health::Link};

/// Section of docs/runbooks.md for an api that is not subscribed.
const RUNBOOK: &str = "AnnouncementsUnheard";

/// Keeps one subscription open at the Redis that workers write to.
pub struct Listener {
    /// The cache to invalidate.
    pub local: Arc<LocalCache>,
    /// The events to send, after the cache was invalidated.
    pub events: Events,
    /// Configuration of the Redis that publishes the announcements.
    pub redis: Redis,
    /// Gauge: 1 while the subscription is open, else 0.
    pub up: IntGauge,
    /// Becomes true after the first attempt to subscribe, successful or not. The warm-up waits for
    /// it.
    pub tried: watch::Sender<bool>,
    /// Changes when another server answers, because the subscription may still be open at the old
    /// one.
    pub links: watch::Receiver<Link>,
}

impl Listener {
    /// Subscribes again whenever the link is lost. Ends when the sender of `links` is dropped;
    /// dropping the future cancels it.
    pub async fn run(mut self) {
        let mut backoff = Backoff::default();
        while self.links.wait_for(|link| !link.misplaced).await.is_ok() {
            match Subscription::open(&self.redis).await {
                Ok(subscription) => {
                    backoff = Backoff::default();
                    self.local.link_up();
                    self.events.set_subscribed(true);
                    self.up.set(1);
                    self.tried.send_replace(true);
                    tracing::info!("subscribed to announcements");
                    let error = tokio::select! {
                        error = follow(&self.local, &self.events, subscription) => error,
                        _ = self.links.changed() => {
                            CacheError::Connection("another Redis server answers".to_owned())
                        }
                    };
                    self.local.link_down();
                    self.events.set_subscribed(false);
                    self.up.set(0);
                    tracing::warn!(
                        %error,
                        runbook = RUNBOOK,
                        "announcement subscription lost"
                    );
                }
                Err(error) => {
                    if backoff.attempts() == 0 {
                        tracing::warn!(
                            %error,
                            runbook = RUNBOOK,
                            "retrying announcement subscription"
                        );
                    }
                    self.tried.send_replace(true);
                }
            }
            backoff.wait().await;
        }
    }
}

/// Applies announcements until the link is lost; returns the error.
async fn follow(local: &LocalCache, events: &Events, mut subscription: Subscription) -> CacheError {
    loop {
        match subscription.next().await {
            Ok(announcements) => {
                for announcement in &announcements {
                    local.invalidate(&announcement.uid, announcement.version);
                }
                events.announce(&announcements);
            }
            Err(error) => return error,
        }
    }
}

//! Listens to what writers announce, and drops what it makes old from the local cache.

use std::sync::Arc;

use prometheus::IntGauge;
use shared::{
    cache::{CacheError, Subscription},
    config::Redis,
    runtime::backoff::Backoff,
};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::local_cache::LocalCache;

/// Keeps one subscription open until `shutdown`, and `up` at 1 while it is. `tried` turns true once the first attempt
/// succeeded or failed: a warm-up waits for that.
pub async fn run(
    local: Arc<LocalCache>,
    redis: Redis,
    up: IntGauge,
    tried: watch::Sender<bool>,
    shutdown: CancellationToken,
) {
    let listen = async {
        let mut backoff = Backoff::default();
        loop {
            match Subscription::open(&redis).await {
                Ok(subscription) => {
                    backoff = Backoff::default();
                    local.link_up();
                    up.set(1);
                    tried.send_replace(true);
                    tracing::info!("announcements of changed orders are heard");
                    let error = follow(&local, subscription).await;
                    local.link_down();
                    up.set(0);
                    tracing::warn!(%error, "announcements of changed orders are not heard: the local cache was dropped");
                }
                Err(error) => {
                    if backoff.attempts() == 0 {
                        tracing::warn!(%error, "announcements of changed orders cannot be subscribed to; trying again");
                    }
                    tried.send_replace(true);
                }
            }
            backoff.wait().await;
        }
    };
    shutdown.run_until_cancelled(listen).await;
}

/// Applies announcements until the link is lost.
async fn follow(local: &LocalCache, mut subscription: Subscription) -> CacheError {
    loop {
        match subscription.next().await {
            Ok(announcements) => {
                for announcement in announcements {
                    local.invalidate(&announcement.uid, announcement.version);
                }
            }
            Err(error) => return error,
        }
    }
}

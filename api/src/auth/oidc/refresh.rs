//! When the keys of the issuer are fetched: in the background, and when a token names an unknown
//! key.

use std::{sync::Arc, time::Duration};

use futures_util::future::BoxFuture;
use shared::runtime::backoff::Backoff;
use tokio::{
    sync::{Notify, Semaphore, watch},
    time::{Instant, sleep_until},
};

use super::{KeySet, Oidc, issuer::Fetched};

/// Shortest time from the end of a refresh to one that a token demands.
const COOLDOWN: Duration = Duration::from_secs(10);

/// Time until the next attempt, while the keys of an earlier one are valid.
const RETRY: Duration = Duration::from_secs(30);

/// How long keys stay valid without a refresh. A shorter time would turn an outage of the issuer
/// into one of the api. A longer one would keep a key valid that the issuer has removed because it
/// leaked.
const KEEP: Duration = Duration::from_secs(24 * 60 * 60);

/// Maximum number of requests that wait for a refresh, each with its token.
const WAITERS: usize = 256;

/// Progress of the refreshes, and the demand for one.
pub(super) struct Refreshes {
    progress: watch::Sender<Progress>,
    demand: Notify,
    waiters: Semaphore,
}

#[derive(Clone, Copy, Default)]
struct Progress {
    attempts: u64,
    /// End of the last attempt.
    ended: Option<Instant>,
    /// End of the last successful attempt.
    succeeded: Option<Instant>,
}

impl Progress {
    fn is_cooled_down(&self) -> bool {
        self.ended.is_none_or(|ended| ended.elapsed() >= COOLDOWN)
    }
}

/// Answer to a request whose token names an unknown key.
pub(super) enum Demand<'a> {
    /// The last refresh has just ended.
    TooEarly,
    /// Too many requests wait.
    Crowded,
    /// A future that waits until a refresh ends, successful or not.
    Wait(BoxFuture<'a, ()>),
}

impl Default for Refreshes {
    fn default() -> Self {
        Self {
            progress: watch::Sender::default(),
            demand: Notify::new(),
            waiters: Semaphore::new(WAITERS),
        }
    }
}

impl Refreshes {
    /// Demands a refresh. Requests that demand one at the same time share it.
    pub(super) fn demand(&self) -> Demand<'_> {
        let mut progress = self.progress.subscribe();
        let seen = *progress.borrow();
        if !seen.is_cooled_down() {
            return Demand::TooEarly;
        }
        let Ok(permit) = self.waiters.try_acquire() else {
            return Demand::Crowded;
        };
        self.demand.notify_one();
        Demand::Wait(Box::pin(async move {
            // The sender lives as long as this future.
            let _ = progress.wait_for(|now| now.attempts > seen.attempts).await;
            drop(permit);
        }))
    }

    /// Returns whether the last refresh failed, or there was none yet.
    pub(super) fn is_failing(&self) -> bool {
        let progress = self.progress.borrow();
        progress.succeeded.is_none() || progress.succeeded != progress.ended
    }

    /// Records the end of an attempt and wakes the requests that wait for it.
    fn ended(&self, is_success: bool) {
        self.progress.send_modify(|progress| {
            let now = Instant::now();
            progress.attempts += 1;
            progress.ended = Some(now);
            if is_success {
                progress.succeeded = Some(now);
            }
        });
    }

    /// Waits for `delay`, or until a request demands a refresh.
    async fn wait(&self, delay: Duration) {
        let due = Instant::now() + delay;
        loop {
            tokio::select! {
                () = sleep_until(due) => return,
                () = self.demand.notified() => {
                    if self.progress.borrow().is_cooled_down() {
                        return;
                    }
                }
            }
        }
    }
}

impl Oidc {
    /// Fetches the keys now, then again and again. Never returns.
    pub async fn run(&self) {
        let mut backoff = Backoff::default();
        loop {
            let fetched = self.issuer.fetch().await;
            let delay = self.apply(fetched, &mut backoff);
            self.refreshes.wait(delay).await;
        }
    }

    /// Waits until the keys were fetched once.
    pub async fn ready(&self) {
        let mut progress = self.refreshes.progress.subscribe();
        // The sender lives as long as `self`.
        let _ = progress.wait_for(|now| now.succeeded.is_some()).await;
    }

    /// State of the issuer at the last refresh.
    pub fn state(&self) -> &'static str {
        self.up.state()
    }

    /// Applies the result of an attempt. Returns the time until the next one.
    pub(super) fn apply(
        &self,
        fetched: Result<Fetched, String>,
        backoff: &mut Backoff,
    ) -> Duration {
        let (is_success, delay) = match fetched {
            Ok(fetched) => {
                *backoff = Backoff::default();
                self.outage.ended();
                self.up.set(Ok(()));
                let lifetime = fetched.lifetime;
                self.replace(fetched);
                // Replicas that start together do not refresh together.
                (true, lifetime.mul_f64(1.0 - fastrand::f64() / 10.0))
            }
            Err(error) => {
                self.report(&error);
                self.expire();
                let has_keys = self.keys.load().is_some();
                let delay = match has_keys {
                    true => RETRY.mul_f64(0.5 + fastrand::f64()),
                    false => backoff.next_delay(),
                };
                (false, delay)
            }
        };
        // After the keys: a request that waits finds the new ones.
        self.refreshes.ended(is_success);
        delay
    }

    /// Replaces the keys, and forgets the verified tokens, if the issuer has other keys now.
    fn replace(&self, fetched: Fetched) {
        let document = fetched.keys;
        let before = self.keys.load();
        if before
            .as_ref()
            .is_some_and(|before| before.keys == document.keys)
        {
            return;
        }
        for defect in &document.defects {
            tracing::warn!(defect, "unusable key of the OpenID Connect issuer");
        }
        tracing::info!(
            keys = document.keys.len(),
            "new keys of the OpenID Connect issuer"
        );
        self.keys.store(Some(Arc::new(KeySet::new(document.keys))));
    }

    /// Logs a failed attempt: the first one of an outage, then once a minute while there are no
    /// keys.
    fn report(&self, error: &str) {
        let was_down = self.up.state() == "down";
        self.up.set(Err(&error));
        if self.outage.failed() && was_down && self.keys.load().is_none() {
            tracing::warn!(
                error,
                "waiting for the keys of the OpenID Connect issuer (API_OIDC_ISSUER)"
            );
        }
    }

    /// Drops keys that were not refreshed for too long.
    fn expire(&self) {
        let succeeded = self.refreshes.progress.borrow().succeeded;
        if succeeded.is_some_and(|then| then.elapsed() >= KEEP) && self.keys.swap(None).is_some() {
            tracing::error!(
                limit = ?KEEP,
                runbook = "OidcIssuerDown",
                "the keys of the OpenID Connect issuer are too old; rejecting its tokens"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_waiting(demand: &Demand<'_>) -> bool {
        matches!(demand, Demand::Wait(_))
    }

    #[tokio::test(start_paused = true)]
    async fn a_refresh_is_demanded_once_in_ten_seconds() {
        let refreshes = Refreshes::default();
        assert!(refreshes.is_failing(), "none has succeeded");
        let Demand::Wait(first) = refreshes.demand() else {
            panic!("nothing was refreshed yet")
        };
        refreshes.ended(true);
        first.await;
        assert!(!refreshes.is_failing());
        assert!(matches!(refreshes.demand(), Demand::TooEarly));
        tokio::time::advance(COOLDOWN - Duration::from_millis(1)).await;
        assert!(matches!(refreshes.demand(), Demand::TooEarly));
        tokio::time::advance(Duration::from_millis(1)).await;
        assert!(is_waiting(&refreshes.demand()));
        refreshes.ended(false);
        assert!(refreshes.is_failing());
        assert!(matches!(refreshes.demand(), Demand::TooEarly));
    }

    #[tokio::test(start_paused = true)]
    async fn the_requests_that_wait_are_limited() {
        let refreshes = Refreshes::default();
        let mut waiting: Vec<_> = (0..WAITERS).map(|_| refreshes.demand()).collect();
        assert!(waiting.iter().all(is_waiting));
        assert!(matches!(refreshes.demand(), Demand::Crowded));
        // A client that hangs up frees its place.
        waiting.pop();
        assert!(is_waiting(&refreshes.demand()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_wait_ends_early_only_after_the_cooldown() {
        let refreshes = Refreshes::default();
        let started = Instant::now();
        refreshes.ended(true);
        // The demand of a request that came during the refresh.
        refreshes.demand.notify_one();
        let minute = Duration::from_secs(60);
        refreshes.wait(minute).await;
        assert_eq!(started.elapsed(), minute);
        refreshes.demand.notify_one();
        refreshes.wait(minute).await;
        assert_eq!(started.elapsed(), minute);
    }
}

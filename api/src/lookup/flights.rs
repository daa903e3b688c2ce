//! Single-flight: concurrent requests for the same key share one load and its result.

use std::{collections::HashMap, future::Future, hash::Hash, sync::Arc};

use parking_lot::Mutex;
use tokio::sync::watch;

type Result<T> = watch::Receiver<Option<T>>;

/// Loads in flight, by key.
pub(super) struct Flights<K, T> {
    running: Arc<Mutex<HashMap<K, Result<T>>>>,
}

impl<K, T> Flights<K, T>
where
    K: Clone + Eq + Hash + Send + 'static,
    T: Clone + Send + Sync + 'static,
{
    pub(super) fn new() -> Self {
        Self {
            running: Arc::new(Mutex::new(HashMap::new())),
        }
    }

    /// Returns the result of the load of `key` that is in flight, or starts one with `load`.
    /// Returns `None` if the load panics.
    ///
    /// The load runs as a task of its own. Cancelling a caller, even the one that started the load,
    /// does not affect the others.
    pub(super) async fn join<F>(&self, key: K, load: impl FnOnce() -> F) -> Option<T>
    where
        F: Future<Output = T> + Send + 'static,
    {
        let mut result = {
            let mut running = self.running.lock();
            match running.get(&key) {
                Some(result) => result.clone(),
                None => {
                    let (send, receive) = watch::channel(None);
                    running.insert(key.clone(), receive.clone());
                    let landing = Landing {
                        running: self.running.clone(),
                        key,
                    };
                    let load = load();
                    tokio::spawn(async move {
                        let value = load.await;
                        // All callers may be gone by now.
                        let _ = send.send(Some(value));
                        drop(landing);
                    });
                    receive
                }
            }
        };
        let value = result.wait_for(Option::is_some).await.ok()?;
        value.clone()
    }

    /// Number of loads in flight.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.running.lock().len()
    }
}

/// Removes its flight when dropped, even if the load panics.
struct Landing<K: Eq + Hash, T> {
    running: Arc<Mutex<HashMap<K, Result<T>>>>,
    key: K,
}

impl<K: Eq + Hash, T> Drop for Landing<K, T> {
    fn drop(&mut self) {
        self.running.lock().remove(&self.key);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::sync::Notify;

    use super::*;

    /// Starts a flight that lands when `land` is notified. Returns once the flight is registered.
    async fn begin(
        flights: &Arc<Flights<&'static str, u32>>,
        land: &Arc<Notify>,
        loads: &Arc<AtomicUsize>,
    ) -> tokio::task::JoinHandle<Option<u32>> {
        let (flights, land, loads) = (flights.clone(), land.clone(), loads.clone());
        let before = flights.clone();
        let task = tokio::spawn(async move {
            flights
                .join("a", || async move {
                    loads.fetch_add(1, Ordering::Relaxed);
                    land.notified().await;
                    7
                })
                .await
        });
        while before.len() == 0 {
            tokio::task::yield_now().await;
        }
        task
    }

    #[tokio::test]
    async fn concurrent_callers_share_one_load() {
        let (flights, land, loads) = (
            Arc::new(Flights::new()),
            Arc::new(Notify::new()),
            Arc::default(),
        );
        let leader = begin(&flights, &land, &loads).await;
        let mut followers: Vec<_> = Vec::new();
        for _ in 0..10 {
            followers.push(Box::pin(
                flights.join("a", || async { unreachable!("a load is under way") }),
            ));
        }
        for follower in &mut followers {
            assert!(futures_util::poll!(follower).is_pending());
        }
        land.notify_one();
        assert_eq!(leader.await.unwrap(), Some(7));
        for follower in followers {
            assert_eq!(follower.await, Some(7));
        }
        assert_eq!(loads.load(Ordering::Relaxed), 1);
        while flights.len() > 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(flights.join("a", || async { 8 }).await, Some(8));
    }

    #[tokio::test]
    async fn followers_get_the_result_when_the_first_caller_is_cancelled() {
        let (flights, land, loads) = (
            Arc::new(Flights::new()),
            Arc::new(Notify::new()),
            Arc::default(),
        );
        let leader = begin(&flights, &land, &loads).await;
        let mut follower =
            Box::pin(flights.join("a", || async { unreachable!("a load is under way") }));
        assert!(futures_util::poll!(&mut follower).is_pending());
        leader.abort();
        assert!(leader.await.unwrap_err().is_cancelled());
        land.notify_one();
        assert_eq!(follower.await, Some(7));
    }

    #[tokio::test]
    async fn a_load_that_panics_returns_none_to_every_caller() {
        let flights: Flights<&str, u32> = Flights::new();
        assert_eq!(
            flights.join("a", || async { panic!("on purpose") }).await,
            None
        );
        assert_eq!(flights.join("a", || async { 1 }).await, Some(1));
    }
}

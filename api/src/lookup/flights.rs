//! Single-flight: concurrent requests for the same key share one load and its result.
//!
//! | type | a caller may join a load |
//! |---|---|
//! | [`Flights`] | while it is in flight |
//! | [`FreshFlights`] | until it reads, so that its result is never older than the call |

use std::{
    collections::HashMap,
    future::Future,
    hash::Hash,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use parking_lot::Mutex;
use tokio::sync::{Semaphore, watch};

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

/// Loads whose result must not be older than the call: a caller joins only a load that has not
/// begun to read. Loads of one key run one after the other, so at most one reads, and one waits.
pub(super) struct FreshFlights<K, T> {
    gates: Arc<Mutex<HashMap<K, Gate<T>>>>,
}

/// The loads of one key.
struct Gate<T> {
    /// The load that has not begun to read, if there is one. Callers join it.
    boarding: Option<Result<T>>,
    /// Held by the load that reads.
    turn: Arc<Semaphore>,
    /// Number of loads, at most two.
    loads: usize,
}

impl<K, T> FreshFlights<K, T>
where
    K: Clone + Eq + Hash + Send + Sync + 'static,
    T: Clone + Send + Sync + 'static,
{
    pub(super) fn new() -> Self {
        Self {
            gates: Arc::new(Mutex::new(HashMap::new())),
        }
    }

    /// Returns the result of the load of `key` that has not begun to read, or starts one with
    /// `load`. The load calls [`Boarding::close`] before it reads. Returns `None` if it panics.
    ///
    /// The load runs as a task of its own, as with [`Flights::join`].
    pub(super) async fn join<F>(&self, key: K, load: impl FnOnce(Boarding<K, T>) -> F) -> Option<T>
    where
        F: Future<Output = T> + Send + 'static,
    {
        let mut result = {
            let mut gates = self.gates.lock();
            let gate = gates.entry(key.clone()).or_insert_with(|| Gate {
                boarding: None,
                turn: Arc::new(Semaphore::new(1)),
                loads: 0,
            });
            match &gate.boarding {
                Some(result) => result.clone(),
                None => {
                    let (send, receive) = watch::channel(None);
                    gate.boarding = Some(receive.clone());
                    gate.loads += 1;
                    let turn = gate.turn.clone();
                    let flight = FreshFlight {
                        gates: self.gates.clone(),
                        key,
                        is_closed: AtomicBool::new(false),
                    };
                    let flight = Arc::new(flight);
                    let load = load(Boarding(flight.clone()));
                    tokio::spawn(async move {
                        // The semaphore is never closed.
                        let _turn = turn.acquire_owned().await;
                        let value = load.await;
                        // A load that was rejected has not closed it.
                        flight.close();
                        // All callers may be gone by now.
                        let _ = send.send(Some(value));
                        drop(flight);
                    });
                    receive
                }
            }
        };
        let value = result.wait_for(Option::is_some).await.ok()?;
        value.clone()
    }

    /// Number of loads that read or wait.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.gates.lock().values().map(|gate| gate.loads).sum()
    }
}

/// Ends the time in which callers may join a load.
pub(super) struct Boarding<K: Eq + Hash, T>(Arc<FreshFlight<K, T>>);

impl<K: Eq + Hash, T> Boarding<K, T> {
    /// Later callers start a load of their own. Call it before the read begins; further calls have
    /// no effect.
    pub(super) fn close(&self) {
        self.0.close();
    }
}

/// A load of [`FreshFlights`]. Dropping it closes and removes it, even if the load panics.
struct FreshFlight<K: Eq + Hash, T> {
    gates: Arc<Mutex<HashMap<K, Gate<T>>>>,
    key: K,
    is_closed: AtomicBool,
}

impl<K: Eq + Hash, T> FreshFlight<K, T> {
    fn close(&self) {
        // Until then, the load that callers join is this one.
        if !self.is_closed.swap(true, Ordering::Relaxed)
            && let Some(gate) = self.gates.lock().get_mut(&self.key)
        {
            gate.boarding = None;
        }
    }
}

impl<K: Eq + Hash, T> Drop for FreshFlight<K, T> {
    fn drop(&mut self) {
        self.close();
        let mut gates = self.gates.lock();
        if let Some(gate) = gates.get_mut(&self.key) {
            gate.loads -= 1;
            if gate.loads == 0 {
                gates.remove(&self.key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

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

    /// A call of the current state, whose load waits for `read` before it closes and for `land`
    /// before it ends. Its value is the number of loads that began to read.
    fn call(
        flights: &Arc<FreshFlights<&'static str, usize>>,
        read: &Arc<Notify>,
        land: &Arc<Notify>,
        reads: &Arc<AtomicUsize>,
    ) -> tokio::task::JoinHandle<Option<usize>> {
        let (flights, read, land, reads) =
            (flights.clone(), read.clone(), land.clone(), reads.clone());
        tokio::spawn(async move {
            let load = move |boarding: Boarding<_, _>| async move {
                read.notified().await;
                boarding.close();
                let value = reads.fetch_add(1, Ordering::Relaxed) + 1;
                land.notified().await;
                value
            };
            flights.join("a", load).await
        })
    }

    async fn until(reached: impl Fn() -> bool) {
        while !reached() {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn a_caller_joins_only_a_load_that_does_not_read_yet() {
        let flights = Arc::new(FreshFlights::new());
        let (read, land, reads) = (Arc::default(), Arc::default(), Arc::default());
        let first: Vec<_> = (0..5)
            .map(|_| call(&flights, &read, &land, &reads))
            .collect();
        until(|| flights.len() == 1).await;
        read.notify_one();
        until(|| reads.load(Ordering::Relaxed) == 1).await;
        // The first load reads, so later callers share the next one.
        let second: Vec<_> = (0..5)
            .map(|_| call(&flights, &read, &land, &reads))
            .collect();
        until(|| flights.len() == 2).await;
        read.notify_one();
        land.notify_one();
        for caller in first {
            assert_eq!(caller.await.unwrap(), Some(1));
        }
        until(|| reads.load(Ordering::Relaxed) == 2).await;
        land.notify_one();
        for caller in second {
            assert_eq!(caller.await.unwrap(), Some(2));
        }
        until(|| flights.len() == 0).await;
        assert_eq!(reads.load(Ordering::Relaxed), 2);
    }

    #[tokio::test]
    async fn the_next_load_reads_after_the_one_before_has_ended() {
        let flights = Arc::new(FreshFlights::new());
        let (read, land, reads) = (Arc::default(), Arc::default(), Arc::default());
        let first = call(&flights, &read, &land, &reads);
        read.notify_one();
        until(|| reads.load(Ordering::Relaxed) == 1).await;
        let second = call(&flights, &read, &land, &reads);
        until(|| flights.len() == 2).await;
        read.notify_one();
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        assert_eq!(reads.load(Ordering::Relaxed), 1, "one read at a time");
        land.notify_one();
        assert_eq!(first.await.unwrap(), Some(1));
        until(|| reads.load(Ordering::Relaxed) == 2).await;
        land.notify_one();
        assert_eq!(second.await.unwrap(), Some(2));
    }

    #[tokio::test]
    async fn a_load_that_ends_without_a_read_leaves_nothing_behind() {
        let flights: FreshFlights<&str, u32> = FreshFlights::new();
        assert_eq!(flights.join("a", |_| async { 0 }).await, Some(0));
        until(|| flights.len() == 0).await;
        let panicked = flights.join("a", |_| async { panic!("on purpose") }).await;
        assert_eq!(panicked, None);
        until(|| flights.len() == 0).await;
        assert_eq!(flights.join("a", |_| async { 1 }).await, Some(1));
    }
}

//! The connections that wait for their clients, and the memory that they hold meanwhile.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
};

use futures_util::task::AtomicWaker;
use parking_lot::Mutex;

use super::metrics::{Closed, ConnectionMetrics};

/// The connections that wait for their clients, in the order in which they began to wait, with a
/// limit for the memory that they hold together. Above it, the connection that has waited longest
/// is closed.
///
/// A whole request that arrives in one piece, and a response that the kernel accepts at once, never
/// get here. So clients that send or read slowly compete only with one another.
pub(super) struct Waiting {
    max_bytes: usize,
    metrics: Arc<ConnectionMetrics>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Bytes that all of `tickets` hold.
    bytes: usize,
    next: u64,
    tickets: BTreeMap<u64, Waiter>,
}

struct Waiter {
    bytes: usize,
    signal: Arc<Signal>,
}

#[derive(Default)]
struct Signal {
    evicted: AtomicBool,
    waker: AtomicWaker,
}

impl Waiting {
    pub(super) fn new(max_bytes: usize, metrics: Arc<ConnectionMetrics>) -> Arc<Self> {
        Arc::new(Self {
            max_bytes,
            metrics,
            state: Mutex::default(),
        })
    }

    /// Adds a connection that waits from now on, and holds no memory yet.
    pub(super) fn enter(self: &Arc<Self>) -> Ticket {
        let signal = Arc::<Signal>::default();
        let mut state = self.state.lock();
        let number = state.next;
        state.next += 1;
        let waiter = Waiter {
            bytes: 0,
            signal: Arc::clone(&signal),
        };
        state.tickets.insert(number, waiter);
        Ticket {
            waiting: Arc::clone(self),
            number,
            signal,
        }
    }

    /// Evicts the connection that has waited longest. Returns whether there was one.
    pub(super) fn evict_longest(&self) -> bool {
        let evicted = self.state.lock().evict_longest();
        if evicted {
            self.metrics.closed(Closed::Evicted);
        }
        evicted
    }
}

impl State {
    fn evict_longest(&mut self) -> bool {
        let Some((_, waiter)) = self.tickets.pop_first() else {
            return false;
        };
        self.bytes -= waiter.bytes;
        waiter.signal.evicted.store(true, Ordering::Release);
        waiter.signal.waker.wake();
        true
    }
}

/// The place of a connection among the [`Waiting`] ones. Dropping it ends the wait.
pub(super) struct Ticket {
    waiting: Arc<Waiting>,
    number: u64,
    signal: Arc<Signal>,
}

impl Ticket {
    /// Records that the connection holds `bytes`. Evicts connections, this one included, until all
    /// of them hold no more than the limit.
    pub(super) fn hold(&self, bytes: usize) {
        let mut evicted = 0;
        {
            let mut state = self.waiting.state.lock();
            let Some(waiter) = state.tickets.get_mut(&self.number) else {
                return;
            };
            let before = std::mem::replace(&mut waiter.bytes, bytes);
            state.bytes = state.bytes - before + bytes;
            while state.bytes > self.waiting.max_bytes && state.evict_longest() {
                evicted += 1;
            }
        }
        for _ in 0..evicted {
            self.waiting.metrics.closed(Closed::Memory);
        }
    }

    /// Ready once the connection must close. Otherwise, the task is woken when it must.
    pub(super) fn poll_evicted(&self, context: &Context<'_>) -> Poll<()> {
        self.signal.waker.register(context.waker());
        match self.signal.evicted.load(Ordering::Acquire) {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut state = self.waiting.state.lock();
        if let Some(waiter) = state.tickets.remove(&self.number) {
            state.bytes -= waiter.bytes;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    fn waiting(max_bytes: usize) -> Arc<Waiting> {
        Waiting::new(max_bytes, Arc::new(ConnectionMetrics::unregistered("test")))
    }

    fn is_evicted(ticket: &Ticket) -> bool {
        let context = Context::from_waker(Waker::noop());
        ticket.poll_evicted(&context).is_ready()
    }

    #[test]
    fn above_the_limit_the_longest_wait_ends() {
        let waiting = waiting(100);
        let [first, second, third] = [(); 3].map(|()| waiting.enter());
        first.hold(40);
        second.hold(40);
        assert!(!is_evicted(&first));
        third.hold(40);
        assert_eq!(
            [&first, &second, &third].map(is_evicted),
            [true, false, false]
        );
        // What an evicted connection still reports does not count.
        first.hold(90);
        assert!(!is_evicted(&second));
        assert_eq!(waiting.metrics.count_of(Closed::Memory), 1);
    }

    #[test]
    fn one_connection_may_not_hold_more_than_the_limit() {
        let waiting = waiting(100);
        let ticket = waiting.enter();
        ticket.hold(101);
        assert!(is_evicted(&ticket));
        assert_eq!(waiting.state.lock().bytes, 0);
    }

    #[test]
    fn the_memory_of_a_wait_counts_until_its_end() {
        let waiting = waiting(100);
        let [first, second] = [(); 2].map(|()| waiting.enter());
        first.hold(80);
        first.hold(20);
        second.hold(80);
        assert!(!is_evicted(&first));
        drop(second);
        let third = waiting.enter();
        third.hold(80);
        assert!(!is_evicted(&first) && !is_evicted(&third));
        drop((first, third));
        assert_eq!(waiting.state.lock().bytes, 0);
    }

    #[test]
    fn an_eviction_wakes_the_task_of_the_connection() {
        struct Flag(AtomicBool);
        impl std::task::Wake for Flag {
            fn wake(self: Arc<Self>) {
                self.0.store(true, Ordering::Relaxed);
            }
        }
        let waiting = waiting(100);
        assert!(!waiting.evict_longest());
        let ticket = waiting.enter();
        let flag = Arc::new(Flag(AtomicBool::new(false)));
        let waker = Waker::from(flag.clone());
        assert!(
            ticket
                .poll_evicted(&Context::from_waker(&waker))
                .is_pending()
        );
        assert!(waiting.evict_longest());
        assert!(flag.0.load(Ordering::Relaxed) && is_evicted(&ticket));
        assert_eq!(waiting.metrics.count_of(Closed::Evicted), 1);
    }
}

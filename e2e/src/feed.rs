//! A stream that flows until it is stopped, so that whatever a test does happens in its middle.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use rand::{Rng, SeedableRng, rngs::StdRng, seq::IndexedRandom};
use shared::order::{
    Order,
    sample::{Defect, Generator},
};

use crate::{addresses::Addresses, kafka::Broker, ledger::Ledger, record::Draft};

/// Records that are sent at once.
const CHUNK: usize = 200;
/// The stream waits while so many records are unfinished, so that it neither dries up nor drowns a slow machine.
const MAX_UNFINISHED: i64 = 1000;
/// So many of the orders that were sent may be changed, repeated and erased later: one that flows for half an hour must not
/// keep them all.
const MAX_EARLIER: usize = 10_000;
/// How often it looks whether it may go on.
const PAUSE: Duration = Duration::from_millis(20);

/// What flows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mix {
    /// Orders, each once.
    Distinct,
    /// Orders, changes and repetitions and erasures of earlier ones, and records that are refused.
    Everything,
    /// Changes of a few orders, all the time.
    Hot,
}

/// How many orders change all the time.
const HOT: usize = 50;

/// The orders that [`Feed::of_hot_orders`] changes.
pub(crate) fn hot_uids() -> Vec<String> {
    (0..HOT).map(hot_uid).collect()
}

fn hot_uid(number: usize) -> String {
    format!("hot{number}")
}

/// A running stream.
pub struct Feed {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Ledger>>,
}

impl Feed {
    /// Orders, each once.
    pub fn of_distinct_orders(addresses: &Addresses, seed: u64) -> Self {
        Self::start(addresses, seed, Mix::Distinct)
    }

    /// Everything that can arrive.
    pub fn of_everything(addresses: &Addresses, seed: u64) -> Self {
        Self::start(addresses, seed, Mix::Everything)
    }

    /// Changes of a few orders, all the time.
    pub fn of_hot_orders(addresses: &Addresses, seed: u64) -> Self {
        Self::start(addresses, seed, Mix::Hot)
    }

    fn start(addresses: &Addresses, seed: u64, mix: Mix) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let thread = thread::spawn({
            let (stop, addresses) = (Arc::clone(&stop), addresses.clone());
            move || run(&addresses, seed, mix, &stop)
        });
        Self {
            stop,
            thread: Some(thread),
        }
    }

    /// Ends it and hands back what was sent.
    #[track_caller]
    pub fn stop(mut self) -> Ledger {
        self.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().expect("stopped once");
        thread.join().expect("the stream flowed without a fault")
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn run(addresses: &Addresses, seed: u64, mix: Mix, stop: &AtomicBool) -> Ledger {
    let broker = Broker::new(&addresses.brokers);
    let mut progress = broker.group_progress(&addresses.group_id, &addresses.topic);
    let mut source = Source {
        mix,
        orders: Generator::new(seed, 1..=3),
        rng: StdRng::seed_from_u64(seed),
        earlier: Vec::new(),
    };
    let mut ledger = Ledger::default();
    while !stop.load(Ordering::Relaxed) {
        let drafts: Vec<Draft> = (0..CHUNK).map(|_| source.draft()).collect();
        ledger.send(&broker, &addresses.topic, &drafts);
        while !stop.load(Ordering::Relaxed) {
            if let Ok((finished, all)) = progress.try_read()
                && all - finished <= MAX_UNFINISHED
            {
                break;
            }
            thread::sleep(PAUSE);
        }
    }
    ledger
}

struct Source {
    mix: Mix,
    orders: Generator,
    rng: StdRng,
    earlier: Vec<Order>,
}

impl Source {
    fn draft(&mut self) -> Draft {
        let mut order = self.orders.next().expect("the generator has no end");
        match self.mix {
            Mix::Distinct => return Draft::order(&order),
            Mix::Hot => {
                order.order_uid = hot_uid(self.rng.random_range(0..HOT)).into();
                return Draft::order(&order);
            }
            Mix::Everything => {}
        }
        let earlier = self.earlier.choose(&mut self.rng).cloned();
        match (self.rng.random_range(0..100), earlier) {
            (0..4, _) => {
                let defect = Defect::ALL
                    .choose(&mut self.rng)
                    .expect("there are defects");
                Draft::refused(defect.reason(), defect.apply(&order))
            }
            (4..6, Some(earlier)) => Draft::erasure(&earlier.order_uid),
            (6..10, Some(earlier)) => Draft::order(&earlier),
            (10..30, Some(earlier)) => {
                order.order_uid = earlier.order_uid;
                Draft::order(&order)
            }
            _ => {
                self.remember(&order);
                Draft::order(&order)
            }
        }
    }
    fn remember(&mut self, order: &Order) {
        if self.earlier.len() < MAX_EARLIER {
            self.earlier.push(order.clone());
        } else {
            let forgotten = self.rng.random_range(0..MAX_EARLIER);
            self.earlier[forgotten] = order.clone();
        }
    }
}

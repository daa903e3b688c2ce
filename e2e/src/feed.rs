//! A stream of records that runs until it is stopped, so that a fault always happens under load.

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

/// Records in one send.
const CHUNK: usize = 200;
/// Unfinished records at which the stream waits, so that a slow machine is neither idle nor
/// overloaded.
const MAX_UNFINISHED: i64 = 1000;
/// Earlier orders that the stream may change, repeat or erase later. The limit bounds the memory of
/// a stream of half an hour.
const MAX_EARLIER: usize = 10_000;
/// Interval between two checks of the number of unfinished records.
const PAUSE: Duration = Duration::from_millis(20);

/// The records of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mix {
    /// Orders, each once.
    Distinct,
    /// Orders; changes, repetitions and erasures of earlier orders; rejected records.
    Everything,
    /// Endless changes of a few orders.
    Hot,
}

/// Number of hot orders.
const HOT: usize = 50;

/// Uids of the orders that [`Feed::of_hot_orders`] changes.
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
    /// Starts a stream of orders, each once.
    pub fn of_distinct_orders(addresses: &Addresses, seed: u64) -> Self {
        Self::start(addresses, seed, Mix::Distinct)
    }

    /// Starts a stream of every kind of record.
    pub fn of_everything(addresses: &Addresses, seed: u64) -> Self {
        Self::start(addresses, seed, Mix::Everything)
    }

    /// Starts a stream of endless changes of a few orders.
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

    /// Stops the stream and returns the ledger of what was sent.
    #[track_caller]
    pub fn stop(mut self) -> Ledger {
        self.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().expect("stopped once");
        thread.join().expect("the thread does not panic")
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
    let mut source = Drafts {
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

struct Drafts {
    mix: Mix,
    orders: Generator,
    rng: StdRng,
    earlier: Vec<Order>,
}

impl Drafts {
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
                Draft::rejected(defect.reason(), defect.apply(&order))
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

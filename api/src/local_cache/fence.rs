//! Keeps a load that began before an announcement from putting something older into the cache after it.

use std::{
    hash::{BuildHasher, RandomState},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use shared::order::OrderUid;

/// More stripes than an announcement storm touches during one load, so that few loads are refused for a neighbour's sake.
const STRIPES: usize = 1024;

/// A generation for each stripe of uids. An announcement raises it; what was loaded in an older generation is refused.
pub(super) struct Fence {
    stripes: Box<[Mutex<u64>]>,
    hasher: RandomState,
}

/// When a load began, and in which generation.
#[derive(Clone, Copy, Debug)]
pub struct Ticket {
    generation: u64,
    started: Instant,
}

/// A ticket for whatever uid a load brings along.
pub struct AnyTicket {
    generations: Box<[u64]>,
    started: Instant,
}

impl Ticket {
    /// When the load began.
    pub fn started(&self) -> Instant {
        self.started
    }

    /// The generation in which it began: loads of one order that differ in it must not share a result.
    pub fn generation(&self) -> u64 {
        self.generation
    }
}

impl Fence {
    pub(super) fn new() -> Self {
        Self {
            stripes: (0..STRIPES).map(|_| Mutex::new(0)).collect(),
            hasher: RandomState::new(),
        }
    }

    /// The stripe of `uid`, locked. Whoever changes its entry holds this.
    pub(super) fn lock(&self, uid: &OrderUid) -> MutexGuard<'_, u64> {
        lock(&self.stripes[self.index(uid)])
    }

    pub(super) fn ticket(&self, uid: &OrderUid) -> Ticket {
        let started = Instant::now();
        Ticket {
            generation: *self.lock(uid),
            started,
        }
    }

    pub(super) fn any_ticket(&self) -> AnyTicket {
        let started = Instant::now();
        AnyTicket {
            generations: self.stripes.iter().map(|stripe| *lock(stripe)).collect(),
            started,
        }
    }

    pub(super) fn ticket_of(&self, uid: &OrderUid, any: &AnyTicket) -> Ticket {
        Ticket {
            generation: any.generations[self.index(uid)],
            started: any.started,
        }
    }

    pub(super) fn raise_all(&self) {
        for stripe in &self.stripes {
            *lock(stripe) += 1;
        }
    }

    fn index(&self, uid: &OrderUid) -> usize {
        self.hasher.hash_one(uid) as usize % STRIPES
    }
}

/// A generation is one number: a holder that panicked cannot have left it half changed.
fn lock(stripe: &Mutex<u64>) -> MutexGuard<'_, u64> {
    stripe.lock().unwrap_or_else(PoisonError::into_inner)
}

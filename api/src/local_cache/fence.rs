//! Keeps a load that began before an announcement from putting something older into the cache after it.

use std::{
    hash::{BuildHasher, RandomState},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use shared::order::{OrderUid, Version};

/// More stripes than an announcement storm touches during one load, so that few loads are refused for a neighbour's sake.
const STRIPES: usize = 1024;

/// What was announced of the uids that share a stripe.
#[derive(Default)]
pub(super) struct Stripe {
    /// Raised by each announcement.
    generation: u64,
    /// The generation in which everything was dropped, for announcements may have been missed.
    dropped: u64,
    /// The greatest version that was announced since.
    newest: Option<Version>,
}

impl Stripe {
    /// Notes that `version` was announced.
    pub(super) fn announce(&mut self, version: Version) {
        self.generation += 1;
        self.newest = self.newest.max(Some(version));
    }

    /// Whether what a load brought can be no older than what was announced: because nothing was announced since the load
    /// began, or because its version (none for "not found") is no smaller than any that was.
    pub(super) fn admits(&self, ticket: Ticket, version: Option<Version>) -> bool {
        ticket.generation == self.generation
            || ticket.generation >= self.dropped && version >= self.newest
    }

    fn drop_all(&mut self) {
        self.generation += 1;
        self.dropped = self.generation;
        self.newest = None;
    }
}

/// Stripes of uids.
pub(super) struct Fence {
    stripes: Box<[Mutex<Stripe>]>,
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
            stripes: (0..STRIPES).map(|_| Mutex::default()).collect(),
            hasher: RandomState::new(),
        }
    }

    /// The stripe of `uid`, locked. Whoever changes its entry holds this.
    pub(super) fn lock(&self, uid: &OrderUid) -> MutexGuard<'_, Stripe> {
        lock(&self.stripes[self.index(uid)])
    }

    pub(super) fn ticket(&self, uid: &OrderUid) -> Ticket {
        let started = Instant::now();
        Ticket {
            generation: self.lock(uid).generation,
            started,
        }
    }

    pub(super) fn any_ticket(&self) -> AnyTicket {
        let started = Instant::now();
        AnyTicket {
            generations: self
                .stripes
                .iter()
                .map(|stripe| lock(stripe).generation)
                .collect(),
            started,
        }
    }

    pub(super) fn ticket_of(&self, uid: &OrderUid, any: &AnyTicket) -> Ticket {
        Ticket {
            generation: any.generations[self.index(uid)],
            started: any.started,
        }
    }

    /// Refuses whatever is being loaded.
    pub(super) fn drop_all(&self) {
        for stripe in &self.stripes {
            lock(stripe).drop_all();
        }
    }

    fn index(&self, uid: &OrderUid) -> usize {
        self.hasher.hash_one(uid) as usize % STRIPES
    }
}

/// Nothing between two changes of a stripe can panic, so none is left half changed.
fn lock(stripe: &Mutex<Stripe>) -> MutexGuard<'_, Stripe> {
    stripe.lock().unwrap_or_else(PoisonError::into_inner)
}

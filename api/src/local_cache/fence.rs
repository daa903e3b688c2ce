//! Fence: prevents a load that began before an announcement from inserting an older answer after
//! it.

use std::{
    hash::{BuildHasher, RandomState},
    time::Instant,
};

use parking_lot::{Mutex, MutexGuard};
use shared::order::{OrderUid, Version};

/// Number of stripes. It exceeds what a burst of announcements touches during one load, so that few
/// loads are rejected because of another uid in their stripe.
const STRIPES: usize = 1024;

/// The announcements for the uids of one stripe.
#[derive(Default)]
pub(super) struct Stripe {
    /// Incremented by each announcement.
    generation: u64,
    /// The generation of the last drop of all entries. Announcements before it may have been
    /// missed.
    dropped: u64,
    /// The greatest version announced since then.
    newest: Option<Version>,
}

impl Stripe {
    /// Records that `version` was announced.
    pub(super) fn announce(&mut self, version: Version) {
        self.generation += 1;
        self.newest = self.newest.max(Some(version));
    }

    /// Returns whether the answer of a load is at least as new as every announcement since the load
    /// began. Either none was made, or `version` is not less than any announced one. `None` means
    /// "not found".
    pub(super) fn admits(&self, token: LoadToken, version: Option<Version>) -> bool {
        token.generation == self.generation
            || token.generation >= self.dropped && version >= self.newest
    }

    fn drop_all(&mut self) {
        self.generation += 1;
        self.dropped = self.generation;
        self.newest = None;
    }
}

/// Stripes of uids, each with its announcements.
pub(super) struct Fence {
    stripes: Box<[Mutex<Stripe>]>,
    hasher: RandomState,
}

/// Start time and generation of a load.
#[derive(Clone, Copy, Debug)]
pub struct LoadToken {
    generation: u64,
    started: Instant,
}

/// A token for a load whose uids are not known yet.
pub struct AnyLoadToken {
    generations: Box<[u64]>,
    started: Instant,
}

impl LoadToken {
    /// Start time of the load.
    pub fn started(&self) -> Instant {
        self.started
    }

    /// The generation in which the load began. Loads of one order may share a result only within
    /// one generation.
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

    /// Locks the stripe of `uid`. Every change of the uid's entry requires this lock.
    pub(super) fn lock(&self, uid: &OrderUid) -> MutexGuard<'_, Stripe> {
        self.stripes[self.index(uid)].lock()
    }

    pub(super) fn token(&self, uid: &OrderUid) -> LoadToken {
        let started = Instant::now();
        LoadToken {
            generation: self.lock(uid).generation,
            started,
        }
    }

    pub(super) fn any_token(&self) -> AnyLoadToken {
        let started = Instant::now();
        AnyLoadToken {
            generations: self
                .stripes
                .iter()
                .map(|stripe| stripe.lock().generation)
                .collect(),
            started,
        }
    }

    pub(super) fn token_of(&self, uid: &OrderUid, any: &AnyLoadToken) -> LoadToken {
        LoadToken {
            generation: any.generations[self.index(uid)],
            started: any.started,
        }
    }

    /// Rejects all loads in flight.
    pub(super) fn drop_all(&self) {
        for stripe in &self.stripes {
            stripe.lock().drop_all();
        }
    }

    fn index(&self, uid: &OrderUid) -> usize {
        self.hasher.hash_one(uid) as usize % STRIPES
    }
}

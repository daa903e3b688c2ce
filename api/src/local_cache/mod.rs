//! The cache inside the process: bounded in bytes, short-lived, and invalidated by announcements.
//!
//! Three mechanisms keep stale entries out:
//!
//! - An entry expires [`Settings::ttl`] after the *start* of its load.
//! - An announcement drops entries that are older than the announced version.
//! - A fence rejects a load that began before an announcement and may be older than it.
//!
//! While announcements cannot be received, no entry is served for longer than one second.

mod fence;

use std::{
    mem::size_of,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use quick_cache::{Weighter, sync};
use shared::order::{OrderUid, Version};

pub use fence::{AnyLoadToken, LoadToken};

use crate::answer::{Answer, Document};
use fence::Fence;

/// Maximum lifetime of an entry while announcements cannot be received.
const UNLINKED_TTL: Duration = Duration::from_secs(1);

/// Longer than any process runs, and short enough to add to any `Instant`.
const FOREVER: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// An entry larger than this fraction (1/8) of the cache is not kept: it would evict too many
/// others.
const LARGEST_SHARE: usize = 8;

/// Bytes of a typical document, to size the tables.
const USUAL_ENTRY: usize = 1536;

/// Bytes of an entry besides its document: key, slot, ETag, allocator.
const OVERHEAD: usize = size_of::<OrderUid>() + size_of::<Entry>() + Document::ETAG_WIDTH + 128;

/// Limits of the cache.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Maximum bytes of all entries, with their overhead; 0 disables the cache.
    pub max_bytes: usize,
    /// Lifetime of an entry that holds an order or its erasure.
    pub ttl: Duration,
    /// Lifetime of a negative entry.
    pub negative_ttl: Duration,
}

/// Result of an insertion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Insertion {
    /// The entry is stored.
    Kept,
    /// The answer may be older than a version that was announced since its load began.
    Fenced,
    /// The cache holds a newer version, or the same version in a newer shape.
    KeptNewer,
    /// The entry is too large, or the cache is off.
    TooLarge,
}

/// The cache inside the process.
pub struct LocalCache {
    entries: Option<sync::Cache<OrderUid, Entry, Weight>>,
    fence: Fence,
    settings: Settings,
    /// Whether announcements are received.
    linked: AtomicBool,
}

#[derive(Clone)]
struct Entry {
    answer: Answer,
    /// The entry is not served from this moment on.
    expires: Instant,
}

#[derive(Clone)]
struct Weight;

impl Weighter<OrderUid, Entry> for Weight {
    fn weight(&self, _: &OrderUid, entry: &Entry) -> u64 {
        weight(&entry.answer) as u64
    }
}

fn weight(answer: &Answer) -> usize {
    let document = match answer {
        Answer::Order(document) => document.size(),
        Answer::Erased(_) | Answer::Unknown => 0,
    };
    OVERHEAD + document
}

impl LocalCache {
    /// An empty cache that receives no announcements yet.
    pub fn new(settings: Settings) -> Self {
        let entries = (settings.max_bytes > 0).then(|| {
            let items = settings.max_bytes / USUAL_ENTRY + 1;
            sync::Cache::with_weighter(items, settings.max_bytes as u64, Weight)
        });
        Self {
            entries,
            fence: Fence::new(),
            settings,
            linked: AtomicBool::new(false),
        }
    }

    /// Returns the answer for `uid` if it has not expired at `now`.
    pub fn get(&self, uid: &OrderUid, now: Instant) -> Option<Answer> {
        let entry = self.entries.as_ref()?.get(uid)?;
        (now < entry.expires).then_some(entry.answer)
    }

    /// Lifetime of an answer, counted from the start of its load. A later read need not check the
    /// link: a change of the link drops all entries and fences all loads in flight.
    fn ttl(&self, answer: &Answer) -> Duration {
        let ttl = match answer {
            Answer::Order(_) | Answer::Erased(_) => self.settings.ttl,
            Answer::Unknown => self.settings.negative_ttl.min(self.settings.ttl),
        };
        let longest = if self.linked.load(Ordering::Acquire) {
            FOREVER
        } else {
            UNLINKED_TTL
        };
        ttl.min(longest)
    }

    /// Starts a load. Call it before reading the first tier, and pass the token to
    /// [`LocalCache::insert`] with the answer.
    pub fn begin(&self, uid: &OrderUid) -> LoadToken {
        self.fence.token(uid)
    }

    /// Like [`LocalCache::begin`], for a load whose uids are not known yet.
    pub fn begin_any(&self) -> AnyLoadToken {
        self.fence.any_token()
    }

    /// Returns the token for one order of such a load.
    pub fn token_of(&self, uid: &OrderUid, any: &AnyLoadToken) -> LoadToken {
        self.fence.token_of(uid, any)
    }

    /// Inserts an answer, unless it may be older than a version announced since `token` was
    /// issued, or the cache holds a newer version.
    pub fn insert(&self, uid: OrderUid, answer: Answer, token: LoadToken) -> Insertion {
        let Some(entries) = &self.entries else {
            return Insertion::TooLarge;
        };
        if weight(&answer) > self.settings.max_bytes / LARGEST_SHARE {
            return Insertion::TooLarge;
        }
        let stripe = self.fence.lock(&uid);
        if !stripe.admits(token, answer.version()) {
            return Insertion::Fenced;
        }
        // An entry that has expired may have a version that Postgres never had, forged in Redis.
        let now = Instant::now();
        if entries.peek(&uid).is_some_and(|held| {
            now < held.expires && held.answer.document_version() > answer.document_version()
        }) {
            return Insertion::KeptNewer;
        }
        entries.insert(
            uid,
            Entry {
                expires: token.started() + self.ttl(&answer),
                answer,
            },
        );
        Insertion::Kept
    }

    /// Applies an announcement: drops the entry if it is older than `version`.
    pub fn invalidate(&self, uid: &OrderUid, version: Version) {
        let mut stripe = self.fence.lock(uid);
        stripe.announce(version);
        if let Some(entries) = &self.entries {
            entries.remove_if(uid, |held| held.answer.version() < Some(version));
        }
    }

    /// Marks the link as up: announcements are received from now on. Drops everything loaded
    /// before, because it may have missed an announcement.
    pub fn link_up(&self) {
        self.drop_all();
        self.linked.store(true, Ordering::Release);
    }

    /// Marks the link as down: drops everything, and serves no entry for longer than one second
    /// until [`LocalCache::link_up`].
    pub fn link_down(&self) {
        self.linked.store(false, Ordering::Release);
        self.drop_all();
    }

    /// Returns whether announcements are received.
    pub fn is_linked(&self) -> bool {
        self.linked.load(Ordering::Acquire)
    }

    /// Bytes of all entries, with their estimated overhead.
    pub fn bytes(&self) -> u64 {
        self.entries.as_ref().map_or(0, sync::Cache::weight)
    }

    /// Drops all entries and fences all loads in flight.
    pub fn drop_all(&self) {
        // The fence first: it rejects loads in flight from here on. The next line clears what they
        // inserted before.
        self.fence.drop_all();
        if let Some(entries) = &self.entries {
            entries.clear();
        }
    }
}

#[cfg(test)]
mod tests;

//! The cache inside the process: bounded in bytes, short-lived, and never a step behind an announcement.
//!
//! Three things keep it from serving what is old: entries expire [`Settings::ttl`] after the *start* of the load that
//! made them; an announcement drops what is older than the announced version; and a fence refuses what was loaded before
//! an announcement and comes after it. While announcements cannot be heard nothing is served longer than a second.

mod fence;

use std::{
    mem::size_of,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use quick_cache::{Weighter, sync};
use shared::{
    fault::Rule,
    order::{OrderUid, Version},
};

pub use fence::{AnyTicket, Ticket};

use crate::answer::{Answer, Document};
use fence::Fence;

/// For how long at most an entry is served while announcements cannot be heard.
const UNLINKED_TTL: Duration = Duration::from_secs(1);

/// Longer than any process runs, and short enough to be added to any moment.
const FOREVER: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// An entry larger than this share of the whole is not kept: it would push too many others out.
const LARGEST_SHARE: usize = 8;

/// A usual document, to size the tables.
const USUAL_ENTRY: usize = 1536;

/// What an entry costs beside its document: key, slot, etag, allocator.
const OVERHEAD: usize = size_of::<OrderUid>() + size_of::<Entry>() + Document::ETAG_WIDTH + 128;

/// How much is kept, and for how long.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Memory for entries, their overhead included; 0 keeps nothing.
    pub max_bytes: usize,
    /// How long an order is served.
    pub ttl: Duration,
    /// How long it is remembered that an order does not exist.
    pub negative_ttl: Duration,
}

/// What became of an answer that was offered to the cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Insertion {
    /// It is served from now on.
    Kept,
    /// It may be older than what was announced since the load began.
    Fenced,
    /// The cache holds a newer version.
    KeptNewer,
    /// It would take too large a share, or the cache is off.
    TooLarge,
}

/// The cache inside the process.
pub struct LocalCache {
    entries: Option<sync::Cache<OrderUid, Entry, Weight>>,
    fence: Fence,
    settings: Settings,
    /// Whether announcements are heard.
    linked: AtomicBool,
}

#[derive(Clone)]
struct Entry {
    answer: Answer,
    /// From this moment on it is not served any more.
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
        Answer::Order(document) => document.json.len(),
        Answer::Erased(_) | Answer::Unknown => 0,
    };
    OVERHEAD + document
}

impl LocalCache {
    /// An empty cache that does not hear announcements yet.
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

    /// What is known about `uid`, if that may still be served at the moment `now`.
    pub fn get(&self, uid: &OrderUid, now: Instant) -> Option<Answer> {
        let entry = self.entries.as_ref()?.get(uid)?;
        (now < entry.expires).then_some(entry.answer)
    }

    /// For how long an answer is served, from the beginning of its load on. Whether announcements are heard need not be asked
    /// again when it is served: when that changes, everything is dropped, and so is what is being loaded.
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

    /// To be called before the first tier is asked; the ticket goes to [`LocalCache::insert`] with the answer.
    pub fn begin(&self, uid: &OrderUid) -> Ticket {
        self.fence.ticket(uid)
    }

    /// As [`LocalCache::begin`], for a load of which it is not known yet what it will bring.
    pub fn begin_any(&self) -> AnyTicket {
        self.fence.any_ticket()
    }

    /// The ticket for one of the orders that such a load brought.
    pub fn ticket_of(&self, uid: &OrderUid, any: &AnyTicket) -> Ticket {
        self.fence.ticket_of(uid, any)
    }

    /// Takes an answer in, unless it may be older than what was announced since `ticket` was drawn, or a newer version is
    /// there.
    pub fn insert(&self, uid: OrderUid, answer: Answer, ticket: Ticket) -> Insertion {
        let Some(entries) = &self.entries else {
            return Insertion::TooLarge;
        };
        if weight(&answer) > self.settings.max_bytes / LARGEST_SHARE {
            return Insertion::TooLarge;
        }
        let stripe = self.fence.lock(&uid);
        if !stripe.admits(ticket, answer.version()) && !Rule::FillFence.is_broken() {
            return Insertion::Fenced;
        }
        if entries
            .peek(&uid)
            .is_some_and(|held| held.answer.version() > answer.version())
        {
            return Insertion::KeptNewer;
        }
        entries.insert(
            uid,
            Entry {
                expires: ticket.started() + self.ttl(&answer),
                answer,
            },
        );
        Insertion::Kept
    }

    /// Drops what is older than `version`, which was announced.
    pub fn invalidate(&self, uid: &OrderUid, version: Version) {
        let mut stripe = self.fence.lock(uid);
        stripe.announce(version);
        if let Some(entries) = &self.entries {
            entries.remove_if(uid, |held| held.answer.version() < Some(version));
        }
    }

    /// Announcements are heard from now on. What was loaded before may have missed one and is dropped.
    pub fn link_up(&self) {
        self.drop_all();
        self.linked.store(true, Ordering::Release);
    }

    /// Announcements are not heard any more: everything is dropped, and nothing is served longer than a second until
    /// they are.
    pub fn link_down(&self) {
        self.linked.store(false, Ordering::Release);
        self.drop_all();
    }

    /// Whether announcements are heard.
    pub fn is_linked(&self) -> bool {
        self.linked.load(Ordering::Acquire)
    }

    /// Bytes that its entries take, as far as they are counted.
    pub fn bytes(&self) -> u64 {
        self.entries.as_ref().map_or(0, sync::Cache::weight)
    }

    /// Drops everything, also what is being loaded.
    pub fn drop_all(&self) {
        // First the fence: a load that is under way is refused from here on, and what it brought before this line is
        // cleared by the next.
        self.fence.drop_all();
        if let Some(entries) = &self.entries {
            entries.clear();
        }
    }
}

#[cfg(test)]
mod tests;

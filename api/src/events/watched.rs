//! Watched orders: what is known about each, kept only while it has watchers.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::Arc,
};

use parking_lot::Mutex;
use shared::{
    cache::Announcement,
    order::{DocumentVersion, OrderUid, Version},
};
use tokio::sync::{Notify, watch};

use super::{
    End,
    event::{Event, Form},
    frame::{Frame, Reset},
};
use crate::answer::{Answer, View};

/// The watched orders.
pub(super) struct Watched {
    table: Mutex<Table>,
    /// Notified when an order is queued for a lookup.
    queued: Notify,
    /// Maximum bytes of all frames that wait for their watchers.
    max_bytes: usize,
}

#[derive(Default)]
struct Table {
    is_closed: bool,
    orders: HashMap<OrderUid, Watch>,
    /// Orders whose lookup is due.
    queue: VecDeque<OrderUid>,
    /// Orders whose lookup failed, or found less than was announced.
    late: Vec<OrderUid>,
    /// The orders whose frames are held, by the number of the frame: the oldest first.
    held: BTreeMap<u64, OrderUid>,
    held_bytes: usize,
    /// Number of frames so far.
    frames: u64,
}

/// One watched order.
struct Watch {
    /// The greatest version that was announced.
    announced: Option<Version>,
    lookup: Phase,
    state: watch::Sender<State>,
    /// Number and length of the event in `state`.
    held: Option<(u64, usize)>,
    /// Number of watchers that may not see every order as it is.
    restricted: usize,
}

/// Progress of the lookup of an order. An order has at most one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// No lookup is due.
    Idle,
    /// The order is in `queue`.
    Due,
    /// The lookup runs.
    Running,
    /// The order is in `late`.
    Late,
}

/// What the watchers of an order share. The newest replaces the one before, so an order that
/// changes faster than its watchers read costs no memory.
#[derive(Default)]
struct State {
    /// The version of the newest event.
    version: Option<DocumentVersion>,
    /// The newest event, until newer ones of other orders need its place.
    event: Option<Event>,
    /// Number of resets, and the last one.
    resets: u64,
    reset: Option<Reset>,
}

impl Watched {
    pub(super) fn new(max_bytes: usize) -> Self {
        Self {
            table: Mutex::default(),
            queued: Notify::new(),
            max_bytes,
        }
    }

    /// Adds a watcher of `uid` that sees what `view` shows. Returns `None` if no more watchers are
    /// accepted.
    pub(super) fn watch(self: &Arc<Self>, uid: OrderUid, view: View) -> Option<OrderChanges> {
        let mut table = self.table.lock();
        if table.is_closed {
            return None;
        }
        let watch = table.orders.entry(uid).or_insert_with(|| Watch {
            announced: None,
            lookup: Phase::Idle,
            state: watch::Sender::default(),
            held: None,
            restricted: 0,
        });
        watch.restricted += usize::from(view.is_restricted());
        let state = watch.state.subscribe();
        let resets = state.borrow().resets;
        Some(OrderChanges {
            uid,
            sent: None,
            resets,
            state: Some(state),
            watched: self.clone(),
            view,
        })
    }

    /// Queues the watched orders that are older than an announcement.
    pub(super) fn announce(&self, announcements: &[Announcement]) {
        let table = &mut *self.table.lock();
        if table.orders.is_empty() {
            return;
        }
        for Announcement { uid, version } in announcements {
            let Some(watch) = table.orders.get_mut(uid) else {
                continue;
            };
            if Some(*version) <= watch.announced.max(watch.shown()) {
                continue;
            }
            watch.announced = Some(*version);
            if matches!(watch.lookup, Phase::Idle | Phase::Late) {
                watch.lookup = Phase::Due;
                table.queue.push_back(*uid);
                self.queued.notify_one();
            }
        }
    }

    /// Waits for an order whose lookup is due. Returns its uid and the version that was announced.
    /// The caller must call [`Watched::finish`] after the lookup.
    pub(super) async fn next(&self) -> (OrderUid, Option<Version>) {
        loop {
            if let Some(next) = self.take() {
                return next;
            }
            self.queued.notified().await;
        }
    }

    fn take(&self) -> Option<(OrderUid, Option<Version>)> {
        let table = &mut *self.table.lock();
        while let Some(uid) = table.queue.pop_front() {
            if let Some(watch) = table.orders.get_mut(&uid) {
                watch.lookup = Phase::Running;
                return Some((uid, watch.announced));
            }
        }
        None
    }

    /// Ends the lookup of `uid`, for which `announced` was announced at its start. Queues the order
    /// again if it has been announced since, or later if the lookup did not find what was
    /// announced.
    pub(super) fn finish(&self, uid: &OrderUid, announced: Option<Version>) {
        let table = &mut *self.table.lock();
        let Some(watch) = table.orders.get_mut(uid) else {
            return;
        };
        if watch.announced <= watch.shown() {
            watch.lookup = Phase::Idle;
            return;
        }
        if watch.announced > announced {
            watch.lookup = Phase::Due;
            table.queue.push_back(*uid);
            self.queued.notify_one();
        } else {
            watch.lookup = Phase::Late;
            table.late.push(*uid);
        }
    }

    /// Queues the orders whose lookup did not find what was announced.
    pub(super) fn retry_late(&self) {
        let table = &mut *self.table.lock();
        for uid in table.late.drain(..) {
            // It may have been announced again meanwhile, or be no longer watched.
            if let Some(watch) = table.orders.get_mut(&uid)
                && watch.lookup == Phase::Late
            {
                watch.lookup = Phase::Due;
                table.queue.push_back(uid);
                self.queued.notify_one();
            }
        }
    }

    /// Shows `answer` to the watchers of `uid`, unless they have seen the same version or a newer
    /// one.
    pub(super) fn show(&self, uid: &OrderUid, answer: &Answer) {
        let Some(version) = answer.document_version() else {
            return;
        };
        let mut event = None;
        // Twice if a watcher that joins meanwhile needs another form of the event.
        while let Some(form) = self.keep(uid, version, event) {
            // Formatted without the lock: a document may have a mebibyte.
            event = Event::of(uid, answer, form);
        }
    }

    /// Keeps `event` for the watchers of `uid`. Returns the form that they need if it does not
    /// have it.
    fn keep(&self, uid: &OrderUid, version: DocumentVersion, event: Option<Event>) -> Option<Form> {
        let table = &mut *self.table.lock();
        let watch = table.orders.get_mut(uid)?;
        let form = watch.lacked(version)?;
        let Some(event) = event.filter(|event| event.is_for(form)) else {
            return Some(form);
        };
        let bytes = event.bytes();
        let number = table.frames;
        table.frames += 1;
        table.held.insert(number, *uid);
        table.held_bytes += bytes;
        let replaced = watch.held.replace((number, bytes));
        watch.state.send_modify(|state| {
            state.version = Some(version);
            state.event = Some(event);
        });
        table.forget(replaced);
        table.release(self.max_bytes);
        None
    }

    /// Sends a reset to all watchers.
    pub(super) fn reset(&self, reason: Reset) {
        for watch in self.table.lock().orders.values() {
            watch.state.send_modify(|state| {
                state.resets += 1;
                state.reset = Some(reason);
            });
        }
    }

    /// The uids of all watched orders.
    pub(super) fn uids(&self) -> Vec<OrderUid> {
        self.table.lock().orders.keys().copied().collect()
    }

    /// Ends all watchers after what they have not sent yet, and accepts no more.
    pub(super) fn close(&self) {
        *self.table.lock() = Table {
            is_closed: true,
            ..Table::default()
        };
    }
}

impl Table {
    /// Releases the oldest frames until all frames together have at most `max_bytes`. Their
    /// watchers have not read them for the time that it took to fill that space.
    fn release(&mut self, max_bytes: usize) {
        while self.held_bytes > max_bytes {
            let Some((_, uid)) = self.held.pop_first() else {
                return;
            };
            if let Some(watch) = self.orders.get_mut(&uid) {
                let held = watch.held.take();
                self.held_bytes -= held.map_or(0, |(_, bytes)| bytes);
                watch.state.send_modify(|state| state.event = None);
            }
        }
    }

    /// Forgets a frame that its order no longer has.
    fn forget(&mut self, held: Option<(u64, usize)>) {
        if let Some((number, bytes)) = held {
            self.held.remove(&number);
            self.held_bytes -= bytes;
        }
    }
}

impl Watch {
    fn shown(&self) -> Option<Version> {
        let version = self.state.borrow().version;
        version.map(|shown| shown.version)
    }

    /// Returns the form of event that watchers need to get `version`; `None` if they can get it or
    /// a newer one.
    fn lacked(&self, version: DocumentVersion) -> Option<Form> {
        let form = if self.restricted > 0 {
            Form::Restricted
        } else {
            Form::Whole
        };
        let state = self.state.borrow();
        let event = state.event.as_ref();
        let has_it = event.is_some_and(|event| event.is_complete(form));
        let is_lacked = Some(version) > state.version || Some(version) == state.version && !has_it;
        is_lacked.then_some(form)
    }
}

/// What one watcher of one order receives.
pub(super) struct OrderChanges {
    uid: OrderUid,
    /// The last version that the client has.
    sent: Option<DocumentVersion>,
    /// Number of resets that were sent.
    resets: u64,
    /// Always there, except during the drop.
    state: Option<watch::Receiver<State>>,
    watched: Arc<Watched>,
    view: View,
}

impl OrderChanges {
    /// Skips the frame of `version`, which the client has.
    pub(super) fn skip(&mut self, version: DocumentVersion) {
        self.sent = Some(version);
    }

    /// Waits for a frame that the client does not have.
    pub(super) async fn next(&mut self) -> Result<Frame, End> {
        let state = self.state.as_mut().ok_or(End::Closed)?;
        loop {
            {
                let state = state.borrow_and_update();
                if let Some(reset) = state.reset.filter(|_| state.resets > self.resets) {
                    self.resets = state.resets;
                    return Ok(Frame::reset(reset));
                }
                if state.version > self.sent {
                    self.sent = state.version;
                    let event = state.event.as_ref().ok_or(End::Slow)?;
                    return event.show(&self.view).ok_or(End::Hidden);
                }
            }
            if state.changed().await.is_err() {
                return Err(End::Closed);
            }
        }
    }

    /// Returns whether the frame that the client needs next was released.
    pub(super) fn is_behind(&self) -> bool {
        self.state.as_ref().is_some_and(|state| {
            let state = state.borrow();
            state.version > self.sent && state.event.is_none()
        })
    }
}

impl Drop for OrderChanges {
    /// Removes the order with its last watcher.
    fn drop(&mut self) {
        drop(self.state.take());
        let table = &mut *self.watched.table.lock();
        let Some(watch) = table.orders.get_mut(&self.uid) else {
            return;
        };
        watch.restricted -= usize::from(self.view.is_restricted());
        if watch.state.receiver_count() == 0 {
            let held = table.orders.remove(&self.uid).and_then(|watch| watch.held);
            table.forget(held);
        }
    }
}

#[cfg(test)]
mod tests;

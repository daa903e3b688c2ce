//! What the layers of one connection share: its service, [`Vetted`](super::vetted::Vetted) and
//! [`Guarded`](super::deadlines::Guarded).

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use parking_lot::Mutex;

use super::super::request::MalformedRequest;

/// Progress of the requests of one connection. Only the connection's own task uses it.
#[derive(Default)]
pub(super) struct Exchange {
    heads: AtomicU64,
    ends_with_client: AtomicBool,
    /// The last request is malformed.
    malformed: Mutex<Option<MalformedRequest>>,
    /// The response to the current request is the last one.
    is_last: AtomicBool,
    is_resting: AtomicBool,
    response_bytes: AtomicUsize,
}

impl Exchange {
    /// Records that a request head was read completely.
    pub(super) fn begin(&self) {
        self.heads.store(self.heads() + 1, Ordering::Relaxed);
        self.ends_with_client.store(false, Ordering::Relaxed);
    }

    /// Number of request heads that were read completely.
    pub(super) fn heads(&self) -> u64 {
        self.heads.load(Ordering::Relaxed)
    }

    /// Records that the current response ends when the client closes its side.
    pub(super) fn end_with_client(&self) {
        self.ends_with_client.store(true, Ordering::Relaxed);
    }

    /// Returns whether the current response ends when the client closes its side.
    pub(super) fn ends_with_client(&self) -> bool {
        self.ends_with_client.load(Ordering::Relaxed)
    }

    /// Records that the next request, the last one of the connection, is malformed.
    pub(super) fn reject(&self, malformed: MalformedRequest) {
        *self.malformed.lock() = Some(malformed);
        self.end();
    }

    /// Returns why the current request must be rejected, if it must.
    pub(super) fn malformed(&self) -> Option<MalformedRequest> {
        match self.is_last() {
            true => *self.malformed.lock(),
            false => None,
        }
    }

    /// Records that the connection closes after the response to the current request.
    pub(super) fn end(&self) {
        self.is_last.store(true, Ordering::Relaxed);
    }

    /// Returns whether the connection closes after the response to the current request.
    pub(super) fn is_last(&self) -> bool {
        self.is_last.load(Ordering::Relaxed)
    }

    /// Records whether the client has been silent for a while after a whole response.
    pub(super) fn rest(&self, rests: bool) {
        self.is_resting.store(rests, Ordering::Relaxed);
    }

    /// Returns whether the client has been silent for a while after a whole response, and may send
    /// another request.
    pub(super) fn is_resting(&self) -> bool {
        self.is_resting.load(Ordering::Relaxed) && !self.is_last()
    }

    /// Records the memory that the current response takes until the client has read it.
    pub(super) fn respond(&self, bytes: usize) {
        self.response_bytes.store(bytes, Ordering::Relaxed);
    }

    /// Memory that the current response takes until the client has read it.
    pub(super) fn response_bytes(&self) -> usize {
        self.response_bytes.load(Ordering::Relaxed)
    }
}

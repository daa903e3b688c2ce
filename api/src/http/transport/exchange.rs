//! What the service of a connection and its stream share.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Progress of the requests of one connection. Only the connection's own task uses it.
#[derive(Default)]
pub(super) struct Exchange {
    heads: AtomicU64,
    ends_with_client: AtomicBool,
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
}

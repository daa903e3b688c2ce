//! The body of a request, and whether it has arrived.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
};

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};

/// A request body that reports its end.
pub(super) struct Upload {
    body: Incoming,
    complete: Arc<AtomicBool>,
}

/// Whether the body of a request has arrived.
pub(super) struct Arrival(Arc<AtomicBool>);

impl Upload {
    pub(super) fn new(body: Incoming) -> (Self, Arrival) {
        let complete = Arc::<AtomicBool>::default();
        let arrival = Arrival(Arc::clone(&complete));
        (Self { body, complete }, arrival)
    }
}

impl Arrival {
    /// Returns whether a part of the body is missing.
    pub(super) fn is_incomplete(&self) -> bool {
        !self.0.load(Ordering::Relaxed)
    }
}

impl Body for Upload {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(context);
        if matches!(frame, Poll::Ready(None)) || self.body.is_end_stream() {
            self.complete.store(true, Ordering::Relaxed);
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

//! The body of a request: its limit, and whether it has arrived.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::{
    body::{Body as _, Frame, Incoming, SizeHint},
    http::Request as HttpRequest,
};
use poem::{
    Addr, Body, Request, RequestParts,
    error::ReadBodyError,
    http::uri::Scheme,
    web::{LocalAddr, RemoteAddr},
};

/// Maximum bytes of a request body. A larger body gets 413.
pub(super) const BODY_BYTES: usize = 64 * 1024;

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

impl hyper::body::Body for Upload {
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

/// The request as handlers receive it, complete except for path parameters, which poem's own router
/// would add, and the arrival of its body, if it has one.
pub(super) fn endpoint_request(
    request: HttpRequest<Incoming>,
    client: SocketAddr,
) -> (Request, Option<Arrival>) {
    let local = LocalAddr::default();
    let remote = RemoteAddr(Addr::SocketAddr(client));
    let (head, body) = request.into_parts();
    let (body, arrival) = if body.is_end_stream() {
        // Needs no allocation.
        (Body::empty(), None)
    } else {
        let (body, arrival) = Upload::new(body);
        let limited = Limited::new(body, BODY_BYTES);
        let body = Body::from(limited.map_err(io::Error::other).boxed());
        (body, Some(arrival))
    };
    let parts = RequestParts::from((head, local, remote, Scheme::HTTP));
    (Request::from_parts(parts, body), arrival)
}

/// Returns whether the body had more than [`BODY_BYTES`].
pub(super) fn is_over_limit(error: &poem::Error) -> bool {
    let Some(ReadBodyError::Io(error)) = error.downcast_ref() else {
        return false;
    };
    // poem wraps the error of the body, which wraps the one of the limit.
    let body = error.get_ref().and_then(|error| error.downcast_ref());
    body.and_then(io::Error::get_ref)
        .is_some_and(|error| error.is::<LengthLimitError>())
}

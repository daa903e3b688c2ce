//! A streamed body that ends with the credentials of its caller, and is logged at its end.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body_util::combinators::BoxBody;
use hyper::body::{Body, Frame, SizeHint};

use super::audit::Record;
use crate::auth::Identity;

/// What follows when the credentials end before the body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Then {
    /// The body ends like a complete one.
    End,
    /// The body fails, so that the client does not take it for complete.
    Fail,
}

/// A streamed body.
pub(super) struct WatchedBody {
    inner: BoxBody<Bytes, io::Error>,
    bytes: u64,
    credentials: Option<Credentials>,
    record: Record,
}

struct Credentials {
    end: Pin<Box<dyn Future<Output = ()> + Send + Sync>>,
    then: Then,
}

impl WatchedBody {
    pub(super) fn new(
        inner: BoxBody<Bytes, io::Error>,
        identity: Option<&Identity>,
        then: Then,
        record: Record,
    ) -> Self {
        Self {
            inner,
            bytes: 0,
            credentials: identity.map(|identity| Credentials {
                end: Box::pin(identity.end()),
                then,
            }),
            record,
        }
    }
}

impl Body for WatchedBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let this = &mut *self;
        if let Some(credentials) = &mut this.credentials
            && credentials.end.as_mut().poll(context).is_ready()
        {
            return Poll::Ready(match credentials.then {
                Then::End => None,
                Then::Fail => Some(Err(io::Error::other("the credentials ended"))),
            });
        }
        let frame = Pin::new(&mut this.inner).poll_frame(context);
        if let Poll::Ready(Some(Ok(frame))) = &frame {
            this.bytes += frame.data_ref().map_or(0, Bytes::len) as u64;
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl Drop for WatchedBody {
    fn drop(&mut self) {
        self.record.log(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use std::{
        net::Ipv4Addr,
        sync::Arc,
        time::{Instant, SystemTime},
    };

    use futures_util::stream;
    use http_body_util::{BodyExt, StreamBody};
    use poem::{
        Response,
        http::{HeaderValue, Method},
    };
    use prometheus::Registry;

    use super::{super::audit::Visit, *};
    use crate::{
        auth::{Caller, Scopes, Usage},
        metrics::AccessFamilies,
    };

    fn identity(expires: Option<SystemTime>) -> Identity {
        let families = AccessFamilies::register(&Registry::new()).unwrap();
        let caller = Caller {
            name: "support".into(),
            scopes: Scopes::default(),
            customer: None,
        };
        Identity::new(caller, expires, Usage::new(families).of_key("support"))
    }

    /// A body that sends two pieces, and then waits.
    fn endless() -> BoxBody<Bytes, io::Error> {
        let pieces = [b"one", b"two"].map(|text| Ok(Frame::data(Bytes::from_static(text))));
        let pieces = stream::StreamExt::chain(stream::iter(pieces), stream::pending());
        BodyExt::boxed(StreamBody::new(pieces))
    }

    fn watched(identity: &Identity, then: Then) -> WatchedBody {
        let visit = Visit::of_test(Method::GET, Ipv4Addr::LOCALHOST.into(), Instant::now());
        let id = HeaderValue::from_static("id");
        let record = Record::new(visit, None, id, None, &mut Response::default());
        WatchedBody::new(endless(), Some(identity), then, record)
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_ends_or_fails_with_its_credentials() {
        let expires = SystemTime::now() + std::time::Duration::from_secs(60);
        for then in [Then::End, Then::Fail] {
            let identity = Arc::new(identity(Some(expires)));
            let mut body = watched(&identity, then);
            for text in ["one", "two"] {
                let frame = body.frame().await.unwrap().unwrap();
                assert_eq!(frame.data_ref().unwrap(), text);
            }
            assert_eq!(body.bytes, 6);
            // The clock of the runtime moves on, because nothing else can happen.
            match body.frame().await {
                None => assert_eq!(then, Then::End),
                Some(frame) => assert!(frame.is_err() && then == Then::Fail),
            }
        }
    }

    #[tokio::test]
    async fn expired_credentials_send_nothing() {
        let mut body = watched(&identity(Some(SystemTime::UNIX_EPOCH)), Then::End);
        assert!(body.frame().await.is_none());
    }
}

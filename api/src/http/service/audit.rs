//! What the service records about each request of an operation: the access log, and the metrics of
//! the caller.

use std::{
    net::{IpAddr, SocketAddr},
    sync::{Arc, atomic::Ordering},
    time::Instant,
};

use hyper::{body::Incoming, http::Request as HttpRequest};
use poem::{
    Response,
    http::{HeaderValue, Method},
};
use shared::order::OrderUid;

use super::super::{disclosed::Disclosed, orders::X_SOURCE, route::Handler, router::Mounted};
use crate::{
    access_log::{AccessLog, Line},
    auth::{Auth, Identity},
};

/// A request of an operation.
pub(super) struct Visit {
    route: &'static str,
    method: Method,
    /// The order in the path.
    uid: Option<OrderUid>,
    client: IpAddr,
    started: Instant,
}

impl Visit {
    /// Returns `None` for a request that reads no order: of a page, or `OPTIONS`.
    pub(super) fn new(
        request: &HttpRequest<Incoming>,
        mounted: &Mounted,
        client: SocketAddr,
        started: Instant,
    ) -> Option<Self> {
        let is_operation = matches!(mounted.route.handler, Handler::Operation { .. });
        if !is_operation || request.method() == Method::OPTIONS {
            return None;
        }
        let uid = mounted.parameter(request.uri().path());
        Some(Self {
            route: mounted.route.path,
            method: request.method().clone(),
            // Any other text is not logged: it may be personal data.
            uid: uid.and_then(|uid| OrderUid::parse(uid).ok()),
            client: client.ip(),
            started,
        })
    }
}

#[cfg(test)]
impl Visit {
    pub(super) fn of_test(method: Method, client: IpAddr, started: Instant) -> Self {
        Self {
            route: "/test",
            method,
            uid: None,
            client,
            started,
        }
    }
}

/// What is known about a visit when the head of its response is ready.
pub(super) struct Record {
    visit: Visit,
    identity: Option<Arc<Identity>>,
    status: u16,
    source: Option<HeaderValue>,
    disclosed: Option<Disclosed>,
    request_id: HeaderValue,
    log: Option<AccessLog>,
}

impl Record {
    /// Counts the orders of `response` for the caller.
    pub(super) fn new(
        visit: Visit,
        identity: Option<Arc<Identity>>,
        request_id: HeaderValue,
        log: Option<AccessLog>,
        response: &mut Response,
    ) -> Self {
        let disclosed = response.extensions_mut().remove::<Disclosed>();
        if let Some(identity) = &identity {
            if let Some(uid) = &visit.uid {
                identity.usage.requested(uid);
            }
            if let Some(Disclosed::Orders(uids)) = &disclosed {
                uids.iter().for_each(|uid| identity.usage.requested(uid));
            }
        }
        Self {
            visit,
            identity,
            status: response.status().as_u16(),
            source: response.headers().get(&X_SOURCE).cloned(),
            disclosed,
            request_id,
            log,
        }
    }

    /// Logs the request. The body had so many `bytes`.
    pub(super) fn log(&self, bytes: u64) {
        let Some(log) = &self.log else {
            return;
        };
        let is_head = self.visit.method == Method::HEAD;
        let (orders, uids) = match &self.disclosed {
            _ if is_head => (0, &[][..]),
            Some(Disclosed::Orders(uids)) => (uids.len() as u64, &uids[..]),
            Some(Disclosed::Stream(count)) => (count.load(Ordering::Relaxed), &[][..]),
            None => (
                u64::from(self.visit.uid.is_some() && self.status == 200),
                &[][..],
            ),
        };
        let identity = self.identity.as_deref();
        log.write(&Line {
            caller: identity.map(|identity| &*identity.caller.name),
            key: identity.map(|identity| identity.usage.label()),
            client: self.visit.client,
            method: self.visit.method.as_str(),
            route: self.visit.route,
            uid: self.visit.uid,
            status: self.status,
            source: self.source.as_ref().and_then(|source| source.to_str().ok()),
            orders,
            uids,
            bytes: if is_head { 0 } else { bytes },
            duration_ms: self.visit.started.elapsed().as_micros() as f64 / 1000.0,
            request_id: self.request_id.to_str().unwrap_or_default(),
        });
    }
}

/// Counts a response to a request that needed a caller. `identity` is `None` without valid
/// credentials.
pub(super) fn count(auth: &Auth, identity: Option<&Identity>, status: u16) {
    match identity {
        Some(identity) => identity.usage.responded(status),
        None => auth.unknown().responded(status),
    }
}

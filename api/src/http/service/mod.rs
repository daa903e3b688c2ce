//! The layer before all routes: assigns the request id, authorises, limits the rate, routes,
//! enforces the deadline, and counts the response.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    task::Poll,
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures_util::{future::BoxFuture, poll};
use http_body_util::{BodyExt, LengthLimitError, Limited, combinators::BoxBody};
use hyper::{
    body::{Body as _, Incoming},
    http::Request as HttpRequest,
};
use poem::{
    Addr, Body, IntoResponse, Request, RequestParts, Response,
    error::ReadBodyError,
    http::{HeaderMap, HeaderValue, Method, StatusCode, header, uri::Scheme},
    web::{LocalAddr, RemoteAddr},
};
use shared::{
    config::ConfigError,
    runtime::request,
    telemetry::traces::{self, TRACEPARENT},
};
use tokio::time::timeout;

use super::{
    cors::Cors,
    document,
    problem::Problem,
    request_id::{RequestIds, X_REQUEST_ID},
    route::{Handler, Resources, Route},
    router::{Mounted, Router},
    routes::ROUTES,
    transport::Service,
};
use crate::{
    auth::{Caller, Denial, Keys},
    config,
    events::Events,
    lookup::Lookup,
    metrics::{HttpMetrics, Metrics, Series},
    rate_limit::RateLimit,
    trace::RequestSpan,
};

/// Failures whose counters exist from the start, for dashboards and alerts.
const FAILURES: [u16; 8] = [400, 401, 403, 404, 410, 429, 500, 503];

/// Maximum bytes of a request body. A larger body gets 413.
const BODY_BYTES: usize = 64 * 1024;

/// Name in metrics of requests to a path without a route.
const UNMATCHED: &str = "unmatched";

/// All routes of the public port.
pub struct HttpService {
    router: Router,
    keys: Option<Keys>,
    rate_limit: Option<RateLimit>,
    cors: Cors,
    request_ids: RequestIds,
    timeout: Duration,
    metrics: HttpMetrics,
}

impl HttpService {
    /// Serves orders from `lookup`, and their changes from `events`; `None` if the caches are
    /// disabled. With `keys`, only callers with a valid key may read orders.
    ///
    /// # Errors
    /// Returns an error that names the variable with an unusable value.
    pub fn new(
        config: &config::Api,
        keys: Option<Keys>,
        lookup: Lookup,
        events: Option<Events>,
        metrics: &Metrics,
    ) -> anyhow::Result<Self> {
        let resources = Resources {
            lookup,
            events,
            documentation: document::render(),
        };
        Self::over(ROUTES, &resources, config, keys, metrics)
    }

    /// Serves the routes of `table`.
    fn over(
        table: &'static [Route],
        resources: &Resources,
        config: &config::Api,
        keys: Option<Keys>,
        metrics: &Metrics,
    ) -> anyhow::Result<Self> {
        if config.request_timeout.is_zero() {
            return Err(ConfigError::malformed(
                "API_REQUEST_TIMEOUT",
                "0s is not a timeout; write 2s or 500ms",
            )
            .into());
        }
        let series = table
            .iter()
            .map(|route| (route.method.as_str(), route.path));
        let series: Vec<Series> = series.chain([("GET", UNMATCHED)]).collect();
        Ok(Self {
            router: Router::new(table, resources)?,
            keys,
            rate_limit: (config.rate_limit > 0).then(|| RateLimit::per_second(config.rate_limit)),
            cors: Cors::new(&config.cors_origins)?,
            request_ids: RequestIds::new(),
            timeout: config.request_timeout,
            metrics: HttpMetrics::new(&metrics.http, &series, &FAILURES),
        })
    }

    fn begin<'a>(
        &'a self,
        request: HttpRequest<Incoming>,
        mounted: Option<&'a Mounted>,
        client: SocketAddr,
        now: Instant,
    ) -> Work<'a> {
        let caller = self.caller(request.headers(), mounted);
        let cost = mounted.map_or(1, |mounted| mounted.route.cost);
        if !self.admits(client.ip(), &caller, cost, now) {
            return Work::done(Problem::RateLimited);
        }
        let checked = request::check(
            request.method(),
            request.uri(),
            request.version(),
            request.headers(),
        );
        if let Err(malformed) = checked {
            return Work::done(Problem::from(malformed));
        }
        let Some(mounted) = mounted else {
            // Only OPTIONS may have the target `*`, which addresses the whole server.
            if request.uri().path() == "*" {
                return Work::Done(options(&self.router.allow));
            }
            return Work::done(Problem::NotFound);
        };
        let method = request.method();
        if *method == Method::OPTIONS {
            return Work::Done(options(&mounted.allow));
        }
        if !mounted.answers(method) {
            let mut response = Problem::MethodNotAllowed.into_response();
            let headers = response.headers_mut();
            headers.insert(header::ALLOW, mounted.allow.clone());
            return Work::Done(response);
        }
        let caller = match caller {
            Ok(caller) => caller.cloned(),
            Err(denial) => return Work::done(Problem::from(denial)),
        };
        if let Err(invalid) = mounted.check_query(request.uri()) {
            return Work::done(invalid);
        }
        let mut request = endpoint_request(request, client);
        if let Some(caller) = caller {
            request.extensions_mut().insert(caller);
        }
        Work::Call(mounted.endpoint.call(request))
    }

    /// The caller, if the route needs a scope and keys are configured.
    fn caller(
        &self,
        headers: &HeaderMap,
        mounted: Option<&Mounted>,
    ) -> Result<Option<&Caller>, Denial> {
        match (&self.keys, mounted.and_then(|mounted| mounted.route.scope)) {
            (Some(keys), Some(scope)) => {
                let authorization = headers.get(header::AUTHORIZATION);
                keys.check(authorization.map(HeaderValue::as_bytes), scope)
                    .map(Some)
            }
            _ => Ok(None),
        }
    }

    async fn finish(&self, work: Work<'_>, id: &HeaderValue) -> Response {
        let mut call = match work {
            Work::Done(response) => return response,
            Work::Call(call) => call,
        };
        // Most answers are ready at once and need no timer.
        let answer = match poll!(&mut call) {
            Poll::Ready(answer) => Ok(answer),
            Poll::Pending => timeout(self.timeout, call).await,
        };
        match answer {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => rejected(error, id),
            Err(_) => Problem::Timeout.into_response(),
        }
    }

    /// Returns whether the client may make one more request, which counts as `cost`. The client is
    /// its key, or its address if it has no valid key.
    fn admits(
        &self,
        client: IpAddr,
        caller: &Result<Option<&Caller>, Denial>,
        cost: u32,
        now: Instant,
    ) -> bool {
        let Some(limit) = &self.rate_limit else {
            return true;
        };
        match caller {
            Ok(Some(caller)) => limit.admits(&caller.name, cost, now),
            Ok(None) | Err(_) => limit.admits(client, cost, now),
        }
    }
}

impl Service for HttpService {
    type Body = BoxBody<Bytes, io::Error>;

    /// Not an async function: it does all work that needs no waiting before it builds the future.
    /// The future never holds the request, so it is small and cheap to move.
    fn answer(
        &self,
        request: HttpRequest<Incoming>,
        client: SocketAddr,
    ) -> impl Future<Output = hyper::Response<Self::Body>> + Send {
        let started = Instant::now();
        let mounted = self.router.find(request.uri().path());
        let method = request.method().clone();
        let id = self.request_ids.of(request.headers());
        let origin = self
            .cors
            .is_on()
            .then(|| request.headers().get(header::ORIGIN).cloned());
        let span = mounted.and_then(|mounted| trace(&request, mounted.route));
        let work = self.begin(request, mounted, client, started);
        async move {
            let mut response = match span {
                None => self.finish(work, &id).await,
                // Boxed, so that the future of an untraced request does not reserve space for this
                // one.
                Some(span) => {
                    let work = self.finish(work, &id);
                    Box::pin(span.run(work, |response| response.status().as_u16())).await
                }
            };
            let headers = response.headers_mut();
            headers.insert(&X_REQUEST_ID, id);
            if let Some(origin) = origin {
                let preflight = mounted.filter(|_| method == Method::OPTIONS);
                let methods = preflight.map(|mounted| &mounted.methods);
                self.cors.write(origin.as_ref(), methods, headers);
            }
            self.metrics.record(
                mounted.map_or(self.router.len(), |mounted| mounted.index),
                method.as_str(),
                response.status().as_u16(),
                started.elapsed(),
            );
            response.into()
        }
    }
}

/// Progress of a request after the part that needs no waiting.
enum Work<'a> {
    Done(Response),
    Call(BoxFuture<'a, poem::Result<Response>>),
}

impl Work<'_> {
    fn done(answer: impl IntoResponse) -> Self {
        Self::Done(answer.into_response())
    }
}

/// The request as handlers receive it, complete except for path parameters, which poem's own router
/// would add.
fn endpoint_request(request: HttpRequest<Incoming>, client: SocketAddr) -> Request {
    let local = LocalAddr::default();
    let remote = RemoteAddr(Addr::SocketAddr(client));
    let (head, body) = request.into_parts();
    let body = if body.is_end_stream() {
        // Needs no allocation.
        Body::empty()
    } else {
        let limited = Limited::new(body, BODY_BYTES);
        Body::from(limited.map_err(io::Error::other).boxed())
    };
    let parts = RequestParts::from((head, local, remote, Scheme::HTTP));
    Request::from_parts(parts, body)
}

/// The response to a request for which the handler returned `error`.
fn rejected(error: poem::Error, id: &HeaderValue) -> Response {
    // One of our extractors rejected a parameter; the error holds the problem.
    if error.is_from_response() {
        return error.into_response();
    }
    // The text of an error of poem's extractors may quote the body: it is neither sent nor logged.
    let problem = match error.status() {
        _ if is_over_limit(&error) => Problem::BodyTooLarge,
        StatusCode::UNSUPPORTED_MEDIA_TYPE => Problem::UnsupportedMediaType,
        status if status.is_client_error() => {
            Problem::BadRequest("The request body is malformed; /docs describes the operation.")
        }
        _ => {
            let request_id = id.to_str().unwrap_or_default();
            tracing::error!(request_id, %error, "request failed");
            Problem::Internal
        }
    };
    problem.into_response()
}

/// Returns whether the body had more than [`BODY_BYTES`].
fn is_over_limit(error: &poem::Error) -> bool {
    let Some(ReadBodyError::Io(error)) = error.downcast_ref() else {
        return false;
    };
    // poem wraps the error of the body, which wraps the one of the limit.
    let body = error.get_ref().and_then(|error| error.downcast_ref());
    body.and_then(io::Error::get_ref)
        .is_some_and(|error| error.is::<LengthLimitError>())
}

/// The span of the request, if it is traced. Requests for pages and documents never are.
fn trace(request: &HttpRequest<Incoming>, route: &Route) -> Option<RequestSpan> {
    if !traces::enabled() || !matches!(route.handler, Handler::Operation { .. }) {
        return None;
    }
    let traceparent = request.headers().get(TRACEPARENT);
    let traceparent = traceparent.and_then(|value| value.to_str().ok());
    RequestSpan::start(request.method().as_str(), route.path, traceparent)
}

fn options(allow: &HeaderValue) -> Response {
    let mut response = Response::default();
    response.set_status(StatusCode::NO_CONTENT);
    response.headers_mut().insert(header::ALLOW, allow.clone());
    response
}

#[cfg(test)]
mod tests;

//! The layer before all routes: assigns the request id, authorises, limits the rate, routes,
//! enforces the deadline, and records the response.
//!
//! | module | responsibility |
//! |---|---|
//! | `audit` | the access log, and the metrics of callers |
//! | `upload` | the body of a request: its limit, and whether it has arrived |
//! | `watched_body` | streams that end with the credentials of their caller |

mod audit;
mod upload;
mod watched_body;

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    task::Poll,
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures_util::{future::BoxFuture, poll};
use http_body_util::{BodyExt, combinators::BoxBody};
use hyper::{
    body::{Body as _, Incoming},
    http::Request as HttpRequest,
};
use poem::{
    IntoResponse, Response,
    http::{HeaderMap, HeaderValue, Method, StatusCode, header},
};
use shared::{
    config::ConfigError,
    runtime::{
        request::MalformedRequest,
        transport::{EndsWithClient, Service},
    },
    telemetry::traces::{self, TRACEPARENT},
};
use tokio::time::timeout;

use super::{
    cors::Cors,
    document,
    problem::Problem,
    request_id::{RequestIds, X_REQUEST_ID},
    response_headers::ResponseHeaders,
    route::{Access, Handler, Resources, Route},
    router::{Mounted, Router},
    routes::ROUTES,
};
use crate::{
    access_log::AccessLog,
    auth::{Auth, Check, Checked, Denial, Identity},
    config,
    events::Events,
    lookup::Lookup,
    metrics::{HttpMetrics, Metrics, Series},
    rate_limit::RateLimit,
    trace::RequestSpan,
};

use audit::{Record, Visit};
use upload::{Arrival, endpoint_request, is_over_limit};
use watched_body::{Then, WatchedBody};

/// Failures whose counters exist from the start, for dashboards and alerts.
const FAILURES: [u16; 8] = [400, 401, 403, 404, 410, 429, 500, 503];

/// Name in metrics of requests to a path without a route.
const UNMATCHED: &str = "unmatched";

/// All routes of the public port.
pub struct HttpService {
    router: Router,
    auth: Arc<Auth>,
    access_log: Option<AccessLog>,
    rate_limit: Option<RateLimit>,
    cors: Cors,
    headers: ResponseHeaders,
    request_ids: RequestIds,
    timeout: Duration,
    metrics: HttpMetrics,
}

impl HttpService {
    /// Serves orders from `lookup`, and their changes from `events`; `None` if the caches are
    /// disabled. Only callers that `auth` accepts may read them, and `access_log` has each request.
    ///
    /// # Errors
    /// Returns an error that names the variable with an unusable value.
    pub fn new(
        config: &config::Api,
        (auth, access_log): (Arc<Auth>, Option<AccessLog>),
        lookup: Lookup,
        events: Option<Events>,
        metrics: &Metrics,
    ) -> anyhow::Result<Self> {
        let resources = Resources {
            lookup,
            events,
            documentation: document::render(),
        };
        Self::over(ROUTES, &resources, config, (auth, access_log), metrics)
    }

    /// Serves the routes of `table`.
    fn over(
        table: &'static [Route],
        resources: &Resources,
        config: &config::Api,
        (auth, access_log): (Arc<Auth>, Option<AccessLog>),
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
            auth,
            access_log,
            rate_limit: (config.rate_limit > 0).then(|| RateLimit::per_second(config.rate_limit)),
            cors: Cors::new(&config.cors_origins)?,
            headers: ResponseHeaders::new(&config.cache_control)?,
            request_ids: RequestIds::new(),
            timeout: config.request_timeout,
            metrics: HttpMetrics::new(&metrics.http, &series, &FAILURES),
        })
    }

    /// Starts the work on a request. `checked` is the result for its credentials; `None` if it
    /// needs none.
    fn begin<'a>(
        &'a self,
        request: HttpRequest<Incoming>,
        mounted: Option<&'a Mounted>,
        checked: Option<Checked>,
        client: SocketAddr,
        now: Instant,
    ) -> Begun<'a> {
        let identity = match &checked {
            Some(Ok(identity)) => Some(identity.clone()),
            Some(Err(denied)) => denied.identity.clone(),
            None => None,
        };
        Begun {
            identity,
            work: self.work(request, mounted, checked, client, now),
        }
    }

    fn work<'a>(
        &'a self,
        request: HttpRequest<Incoming>,
        mounted: Option<&'a Mounted>,
        checked: Option<Checked>,
        client: SocketAddr,
        now: Instant,
    ) -> Work<'a> {
        let cost = mounted.map_or(1, |mounted| mounted.cost(request.method(), request.uri()));
        if !self.admits(client.ip(), checked.as_ref(), cost, now) {
            return Work::done(Problem::RateLimited);
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
        let caller = match authorise(checked, mounted.route.access) {
            Ok(caller) => caller,
            Err(denial) => return Work::done(Problem::from(denial)),
        };
        if let Err(invalid) = mounted.check_query(request.uri()) {
            return Work::done(invalid);
        }
        let (mut request, arrival) = endpoint_request(request, client);
        if let Some(identity) = caller {
            request.extensions_mut().insert(identity.caller.clone());
        }
        Work::Call(mounted.endpoint.call(request), arrival)
    }

    /// Checks the credentials of a request; `None` if it needs none.
    fn check(&self, headers: &HeaderMap, mounted: Option<&Mounted>) -> Option<Check<'_>> {
        if !self.auth.is_on() || mounted?.route.access == Access::Anyone {
            return None;
        }
        let authorization = headers.get(header::AUTHORIZATION);
        Some(self.auth.check(authorization.map(HeaderValue::as_bytes)))
    }

    /// What to record about the request; `None` if nothing.
    fn visit(
        &self,
        request: &HttpRequest<Incoming>,
        mounted: Option<&Mounted>,
        client: SocketAddr,
        started: Instant,
    ) -> Option<Box<Visit>> {
        if !self.auth.is_on() && self.access_log.is_none() {
            return None;
        }
        Visit::new(request, mounted?, client, started).map(Box::new)
    }

    /// Finishes a request that began at `started`. Returns the response and its caller.
    async fn finish(
        &self,
        start: Start<'_>,
        id: &HeaderValue,
        started: Instant,
    ) -> (Response, Option<Arc<Identity>>) {
        let Begun { identity, work } = match start {
            Start::Now(begun) => begun,
            Start::Later(begun) => match timeout(self.left(started), begun).await {
                Ok(begun) => begun,
                Err(_) => return (Problem::Timeout.into_response(), None),
            },
        };
        let (mut call, arrival) = match work {
            Work::Done(response) => return (response, identity),
            Work::Call(call, arrival) => (call, arrival),
        };
        // Most answers are ready at once and need no timer.
        let answer = match poll!(&mut call) {
            Poll::Ready(answer) => Ok(answer),
            Poll::Pending => timeout(self.left(started), call).await,
        };
        let response = match answer {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => rejected(error, id),
            Err(_) if arrival.is_some_and(|body| body.is_incomplete()) => {
                Problem::BodyIncomplete.into_response()
            }
            Err(_) => Problem::Timeout.into_response(),
        };
        (response, identity)
    }

    /// Time until the deadline of a request that began at `started`.
    fn left(&self, started: Instant) -> Duration {
        self.timeout.saturating_sub(started.elapsed())
    }

    /// Returns whether the client may make one more request, which counts as `cost`. The client is
    /// its key, or its address if it has no valid key.
    fn admits(&self, client: IpAddr, checked: Option<&Checked>, cost: u32, now: Instant) -> bool {
        let Some(limit) = &self.rate_limit else {
            return true;
        };
        match checked {
            Some(Ok(identity)) => {
                // A subject of OpenID Connect may have the name of a key.
                let caller = (identity.usage.label(), &identity.caller.name);
                limit.admits(caller, cost, now)
            }
            None | Some(Err(_)) => limit.admits(client, cost, now),
        }
    }

    /// Records the response, and returns it in the form of the transport.
    fn conclude(
        &self,
        mut response: Response,
        identity: Option<Arc<Identity>>,
        visit: Option<Box<Visit>>,
        id: HeaderValue,
    ) -> hyper::Response<BoxBody<Bytes, io::Error>> {
        let Some(visit) = visit else {
            return response.into();
        };
        if self.auth.is_on() {
            // What a caller sees depends on its scopes and its customer.
            let headers = response.headers_mut();
            headers.append(header::VARY, HeaderValue::from_static("Authorization"));
        }
        let then = match response.extensions().get::<EndsWithClient>() {
            Some(_) => Then::End,
            None => Then::Fail,
        };
        let log = self.access_log.clone();
        let record = Record::new(*visit, identity.clone(), id, log, &mut response);
        let response: hyper::Response<BoxBody<Bytes, io::Error>> = response.into();
        match response.body().size_hint().exact() {
            Some(bytes) => {
                record.log(bytes);
                response
            }
            None => response
                .map(|body| WatchedBody::new(body, identity.as_deref(), then, record).boxed()),
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
        let visit = self.visit(&request, mounted, client, started);
        let check = self.check(request.headers(), mounted);
        let needs_caller = check.is_some() && method != Method::OPTIONS;
        let start = match check {
            None => Start::Now(self.begin(request, mounted, None, client, started)),
            Some(Check::Done(checked)) => {
                Start::Now(self.begin(request, mounted, Some(checked), client, started))
            }
            Some(Check::Pending(checked)) => Start::Later(Box::pin(async move {
                self.begin(request, mounted, Some(checked.await), client, started)
            })),
        };
        async move {
            let finishing = self.finish(start, &id, started);
            let (mut response, identity) = match span {
                None => finishing.await,
                // Boxed, so that the future of an untraced request does not reserve space for this
                // one.
                Some(span) => {
                    Box::pin(span.run(finishing, |(response, _)| response.status().as_u16())).await
                }
            };
            let headers = response.headers_mut();
            headers.insert(&X_REQUEST_ID, id.clone());
            self.headers.write(headers);
            if let Some(origin) = origin {
                let preflight = mounted.filter(|_| method == Method::OPTIONS);
                let methods = preflight.map(|mounted| &mounted.methods);
                self.cors.write(origin.as_ref(), methods, headers);
            }
            let status = response.status().as_u16();
            self.metrics.record(
                mounted.map_or(self.router.len(), |mounted| mounted.index),
                method.as_str(),
                status,
                started.elapsed(),
            );
            if needs_caller {
                audit::count(&self.auth, identity.as_deref(), status);
            }
            self.conclude(response, identity, visit, id)
        }
    }

    fn reject(&self, malformed: MalformedRequest) -> hyper::Response<Self::Body> {
        let mut response = Problem::from(malformed).into_response();
        let id = self.request_ids.of(&HeaderMap::new());
        let headers = response.headers_mut();
        headers.insert(&X_REQUEST_ID, id);
        self.headers.write(headers);
        let status = response.status().as_u16();
        self.metrics
            .record(self.router.len(), "", status, Duration::ZERO);
        response.into()
    }
}

/// The caller of a request for a route with `access`.
///
/// # Errors
/// Returns why the caller may not make it.
fn authorise(checked: Option<Checked>, access: Access) -> Result<Option<Arc<Identity>>, Denial> {
    let identity = match checked {
        None => return Ok(None),
        Some(checked) => checked.map_err(|denied| denied.reason)?,
    };
    match access {
        Access::With(scope) if !identity.caller.scopes.contains(scope) => {
            Err(Denial::Forbidden(scope))
        }
        Access::With(_) | Access::AnyCaller | Access::Anyone => Ok(Some(identity)),
    }
}

/// Progress of a request before its credentials are checked.
enum Start<'a> {
    Now(Begun<'a>),
    Later(BoxFuture<'a, Begun<'a>>),
}

/// A request after the check of its credentials.
struct Begun<'a> {
    /// Its caller, if it is known. It may still be rejected.
    identity: Option<Arc<Identity>>,
    work: Work<'a>,
}

/// Progress of a request after the part that needs no waiting.
enum Work<'a> {
    Done(Response),
    Call(BoxFuture<'a, poem::Result<Response>>, Option<Arrival>),
}

impl Work<'_> {
    fn done(answer: impl IntoResponse) -> Self {
        Self::Done(answer.into_response())
    }
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

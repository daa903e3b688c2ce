//! The layer before all routes: assigns the request id, authorises, limits the rate, routes,
//! enforces the deadline, and counts the response.

use std::{
    collections::HashMap,
    net::IpAddr,
    task::Poll,
    time::{Duration, Instant},
};

use futures_util::{future::BoxFuture, poll};
use poem::{
    IntoResponse, Request, Response,
    endpoint::BoxEndpoint,
    http::{HeaderValue, Method, StatusCode, header, request::Parts},
};
use poem_openapi::OpenApi;
use shared::{
    config::ConfigError,
    runtime::request,
    telemetry::traces::{self, TRACEPARENT},
};
use tokio::time::timeout;

use super::{
    cors::Cors,
    orders::OrdersApi,
    pages::Pages,
    problem::Problem,
    request_id::{RequestIds, X_REQUEST_ID},
    route::Route,
};
use crate::{
    auth::{Caller, Denial, Keys},
    config,
    lookup::Lookup,
    metrics::{HttpMetrics, Metrics},
    rate_limit::RateLimit,
    trace::RequestSpan,
};

/// Failures whose counters exist from the start, for dashboards and alerts.
const FAILURES: [u16; 8] = [400, 401, 403, 404, 410, 429, 500, 503];

/// All routes of the public port.
pub struct HttpService {
    /// The endpoints that poem-openapi generates, called directly: its router would cost more than
    /// the lookup.
    order: BoxEndpoint<'static>,
    orders: BoxEndpoint<'static>,
    pages: Pages,
    keys: Option<Keys>,
    rate_limit: Option<RateLimit>,
    cors: Cors,
    request_ids: RequestIds,
    timeout: Duration,
    metrics: HttpMetrics,
}

impl HttpService {
    /// Serves orders from `lookup`. With `keys`, only callers with a valid key may read orders.
    ///
    /// # Errors
    /// Returns an error that names the variable with an unusable value.
    pub fn new(
        config: &config::Api,
        keys: Option<Keys>,
        lookup: Lookup,
        metrics: &Metrics,
    ) -> anyhow::Result<Self> {
        let mut endpoints = HashMap::new();
        OrdersApi { lookup }.add_routes(&mut endpoints);
        let mut endpoint = |path: &str| {
            let methods: Option<&mut HashMap<Method, BoxEndpoint<'static>>> =
                endpoints.get_mut(path);
            methods
                .and_then(|methods| methods.remove(&Method::GET))
                .ok_or_else(|| anyhow::anyhow!("poem-openapi names {path} otherwise"))
        };
        if config.request_timeout.is_zero() {
            return Err(
                ConfigError::malformed("API_REQUEST_TIMEOUT", "must be longer than 0s").into(),
            );
        }
        Ok(Self {
            order: endpoint("/order/:param0")?,
            orders: endpoint("/orders")?,
            pages: Pages::new(),
            keys,
            rate_limit: (config.rate_limit > 0).then(|| RateLimit::per_second(config.rate_limit)),
            cors: Cors::new(&config.cors_origins)?,
            request_ids: RequestIds::new(),
            timeout: config.request_timeout,
            metrics: metrics
                .http
                .with_routes(&Route::ALL.map(Route::template), &FAILURES),
        })
    }

    /// Answers a request of `client` with the given head. Always returns a response.
    ///
    /// Not an async function: it does all work that needs no waiting before it builds the future.
    /// The future never holds the request, so it is small and cheap to move.
    pub(super) fn answer(&self, head: Parts, client: IpAddr) -> impl Future<Output = Response> {
        let started = Instant::now();
        let route = Route::of(head.uri.path());
        let method = head.method.clone();
        let id = self.request_ids.of(&head.headers);
        let origin = self
            .cors
            .is_on()
            .then(|| head.headers.get(header::ORIGIN).cloned());
        let span = trace(&head, route);
        let work = self.begin(head, route, client, started);
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
                self.cors
                    .write(origin.as_ref(), method == Method::OPTIONS, headers);
            }
            self.metrics.record(
                route as usize,
                method.as_str(),
                response.status().as_u16(),
                started.elapsed(),
            );
            response
        }
    }

    fn begin(&self, head: Parts, route: Route, client: IpAddr, now: Instant) -> Work<'_> {
        let caller = match (&self.keys, route.scope()) {
            (Some(keys), Some(scope)) => {
                let authorization = head
                    .headers
                    .get(header::AUTHORIZATION)
                    .map(HeaderValue::as_bytes);
                keys.check(authorization, scope).map(Some)
            }
            _ => Ok(None),
        };
        if !self.admits(client, &caller, now) {
            return Work::done(Problem::RateLimited);
        }
        if let Err(malformed) = request::check(&head.method, &head.uri, head.version, &head.headers)
        {
            return Work::done(Problem::from(malformed));
        }
        if route == Route::Unmatched {
            // Only OPTIONS may have the target `*`, which addresses the whole server.
            if head.uri.path() == "*" {
                return Work::done(options());
            }
            return Work::done(Problem::NotFound);
        }
        match head.method {
            // The connection omits the body of a response to HEAD.
            Method::GET | Method::HEAD => {}
            Method::OPTIONS => return Work::done(options()),
            _ => return Work::done(Problem::MethodNotAllowed),
        }
        if let Err(denial) = caller {
            return Work::done(Problem::from(denial));
        }
        match route {
            Route::Order => Work::Call(self.order.call(endpoint_request(head))),
            Route::Orders => Work::Call(self.orders.call(endpoint_request(head))),
            Route::Page
            | Route::Asset
            | Route::Docs
            | Route::OpenApiJson
            | Route::OpenApiYaml
            | Route::Unmatched => Work::done(self.pages.get(route, head.uri.path(), &head.headers)),
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
            // An extractor rejected a parameter; the error holds the problem.
            Ok(Err(error)) if error.is_from_response() => error.into_response(),
            Ok(Err(error)) => {
                tracing::error!(request_id = id.to_str().unwrap_or_default(), %error, "a request failed");
                Problem::Internal.into_response()
            }
            Err(_) => Problem::Timeout.into_response(),
        }
    }

    /// Returns whether the client may make one more request. The client is its key, or its address
    /// if it has no valid key.
    fn admits(
        &self,
        client: IpAddr,
        caller: &Result<Option<&Caller>, Denial>,
        now: Instant,
    ) -> bool {
        let Some(limit) = &self.rate_limit else {
            return true;
        };
        match caller {
            Ok(Some(caller)) => limit.admits(&caller.name, now),
            Ok(None) | Err(_) => limit.admits(client, now),
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

/// Builds the request for an endpoint. Ours read only its URI and its headers.
fn endpoint_request(head: Parts) -> Request {
    let mut request = Request::default();
    *request.uri_mut() = head.uri;
    *request.headers_mut() = head.headers;
    request
}

/// The span of the request, if it is traced. Requests for pages and documents never are.
fn trace(head: &Parts, route: Route) -> Option<RequestSpan> {
    if !traces::enabled() {
        return None;
    }
    route.scope()?;
    let traceparent = head.headers.get(TRACEPARENT);
    let traceparent = traceparent.and_then(|value| value.to_str().ok());
    RequestSpan::start(head.method.as_str(), route.template(), traceparent)
}

fn options() -> Response {
    let mut response = Response::default();
    response.set_status(StatusCode::NO_CONTENT);
    response.headers_mut().insert(
        header::ALLOW,
        HeaderValue::from_static("GET, HEAD, OPTIONS"),
    );
    response
}

//! The one layer in front of all routes: it names the request, turns away what may not in, sends it where it belongs within
//! the time that it has, and counts the answer.

use std::{
    collections::HashMap,
    net::IpAddr,
    pin::pin,
    task::Poll,
    time::{Duration, Instant},
};

use futures_util::poll;
use poem::{
    Addr, Endpoint, IntoResponse, Request, Response,
    endpoint::BoxEndpoint,
    http::{HeaderValue, Method, StatusCode, header},
};
use poem_openapi::OpenApi;
use shared::{
    config::ConfigError,
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

/// Failures whose counters are there from the start, for dashboards and alerts.
const FAILURES: [u16; 3] = [404, 500, 503];

/// All routes of the public port.
pub struct Front {
    /// The endpoints that poem-openapi generates, called directly: its router would cost more than the look-up.
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

impl Front {
    /// Answers from `lookup`; with `keys` only callers that present one of them.
    ///
    /// # Errors
    /// Names the variable that cannot be used.
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

    /// Answers one request; whatever it asks for, there is an answer.
    pub(super) async fn answer(&self, request: Request) -> Response {
        let started = Instant::now();
        let route = Route::of(request.uri().path());
        let method = request.method().clone();
        let id = self.request_ids.of(request.headers());
        let origin = self
            .cors
            .is_on()
            .then(|| request.headers().get(header::ORIGIN).cloned());
        let mut response = match trace(&request, route) {
            None => self.respond(request, route, started).await,
            // Boxed, so that the usual future does not carry the room for this one.
            Some(span) => {
                let work = self.respond(request, route, started);
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

    async fn respond(&self, mut request: Request, route: Route, now: Instant) -> Response {
        let caller = match (&self.keys, route.scope()) {
            (Some(keys), Some(scope)) => {
                let authorization = request
                    .headers()
                    .get(header::AUTHORIZATION)
                    .map(HeaderValue::as_bytes);
                keys.check(authorization, scope).map(Some)
            }
            _ => Ok(None),
        };
        if !self.admits(&request, &caller, now) {
            return Problem::RateLimited.into_response();
        }
        if route == Route::Unmatched {
            return Problem::NotFound.into_response();
        }
        match *request.method() {
            Method::GET => {}
            // The connection leaves its body out.
            Method::HEAD => request.set_method(Method::GET),
            Method::OPTIONS => return options(),
            _ => return Problem::MethodNotAllowed.into_response(),
        }
        if let Err(denial) = caller {
            return Problem::from(denial).into_response();
        }
        match route {
            Route::Order => self.call(&self.order, request).await,
            Route::Orders => self.call(&self.orders, request).await,
            Route::Page
            | Route::Asset
            | Route::Docs
            | Route::OpenApiJson
            | Route::OpenApiYaml
            | Route::Unmatched => self
                .pages
                .get(route, request.uri().path(), request.headers()),
        }
    }

    async fn call(&self, endpoint: &BoxEndpoint<'static>, request: Request) -> Response {
        let mut answer = pin!(endpoint.call(request));
        // Most answers are there at once and need no timer.
        let answer = match poll!(answer.as_mut()) {
            Poll::Ready(answer) => Ok(answer),
            Poll::Pending => timeout(self.timeout, answer).await,
        };
        match answer {
            Ok(Ok(response)) => response,
            // A problem with a parameter comes this way.
            Ok(Err(error)) if error.is_from_response() => error.into_response(),
            Ok(Err(error)) => {
                tracing::error!(%error, "a request failed");
                Problem::Internal.into_response()
            }
            Err(_) => Problem::Timeout.into_response(),
        }
    }

    /// Whether the client, known by its key or else by its address, may make one more request.
    fn admits(
        &self,
        request: &Request,
        caller: &Result<Option<&Caller>, Denial>,
        now: Instant,
    ) -> bool {
        let Some(limit) = &self.rate_limit else {
            return true;
        };
        match caller {
            Ok(Some(caller)) => limit.admits(&caller.name, now),
            Ok(None) | Err(_) => limit.admits(peer(request), now),
        }
    }
}

fn peer(request: &Request) -> Option<IpAddr> {
    match &request.remote_addr().0 {
        Addr::SocketAddr(address) => Some(address.ip()),
        _ => None,
    }
}

/// The span of the request, where it is traced; documents and pages never are.
fn trace(request: &Request, route: Route) -> Option<RequestSpan> {
    if !traces::enabled() {
        return None;
    }
    route.scope()?;
    let traceparent = request.header(TRACEPARENT);
    RequestSpan::start(request.method().as_str(), route.template(), traceparent)
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

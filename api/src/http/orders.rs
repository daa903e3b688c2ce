//! The two order routes: endpoints for poem-openapi and their description in the OpenAPI document.

use std::{sync::LazyLock, time::Duration};

use bytes::Bytes;
use poem::{
    IntoResponse, Response,
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
};
use poem_openapi::{
    ApiResponse, OpenApi, Tags,
    registry::{MetaHeader, MetaMediaType, MetaResponse, MetaResponses, MetaSchema, Registry},
    types::Type,
};
use shared::{order::Version, storage::ListFilter};

use super::{
    dto::OrderList,
    params::{ApiKey, Cursor, CustomerId, IfNoneMatch, Limit, PathUid, Query, TrackNumber},
    problem::Problem,
    schema,
};
use crate::{
    answer::Answer,
    lookup::{Found, Freshness, Lookup, Source},
    trace,
};

pub(super) static X_SOURCE: HeaderName = HeaderName::from_static("x-source");
pub(super) static X_DURATION_MS: HeaderName = HeaderName::from_static("x-duration-ms");

/// Only the client may store a copy, and must revalidate it before each use: an order holds
/// personal data and may change at any time.
const CACHE_CONTROL: HeaderValue = HeaderValue::from_static("private, no-cache");
const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// Number of headers of a usual response, with `X-Request-Id`. Space for one more would double the
/// map to a block that is too large for the allocator's fast path.
const HEADERS: usize = 6;

#[derive(Tags)]
enum Tag {
    /// Read and list orders.
    Orders,
}

/// The order routes.
pub(super) struct OrdersApi {
    pub(super) lookup: Lookup,
}

#[OpenApi]
impl OrdersApi {
    /// Get an order
    ///
    /// Returns the order from the fastest tier that has it: local cache, Redis or Postgres.
    /// `X-Source` names the tier. `X-Duration-Ms` is the time of the lookup in milliseconds.
    #[oai(path = "/order/:order_uid", method = "get", tag = "Tag::Orders")]
    async fn get_order(
        &self,
        _key: ApiKey,
        /// Identifies the order.
        #[oai(name = "order_uid")]
        PathUid(uid): PathUid,
        /// `1` reads the current order from Postgres, past all caches.
        #[oai(name = "nocache")]
        Query(freshness): Query<Freshness>,
        /// The `ETag` of the client's copy, a list of ETags, or `*`. If one matches the current
        /// version, the response is 304 without a body.
        #[oai(name = "If-None-Match")]
        known: IfNoneMatch<'_>,
    ) -> OrderResponse {
        match self.lookup.find(uid, freshness).await {
            Ok(Found {
                answer,
                source,
                took,
            }) => {
                trace::answered_by(source.as_str());
                let kind = match answer {
                    Answer::Order(order) if known.matches(order.etag.as_bytes()) => {
                        Kind::NotModified { etag: order.etag }
                    }
                    Answer::Order(order) => Kind::Found {
                        etag: order.etag,
                        json: order.json,
                    },
                    Answer::Erased(_) => Kind::Problem(Problem::OrderErased),
                    Answer::Unknown => Kind::Problem(Problem::OrderNotFound),
                };
                OrderResponse {
                    kind,
                    origin: Some(Origin { source, took }),
                }
            }
            Err(error) => OrderResponse {
                kind: Kind::Problem(error.into()),
                origin: None,
            },
        }
    }

    /// List orders
    ///
    /// Orders come newest first, by the time they were first stored. Erased orders are not listed.
    /// The response has `next_cursor` if there are more orders.
    #[oai(path = "/orders", method = "get", tag = "Tag::Orders")]
    async fn list_orders(
        &self,
        _key: ApiKey,
        /// Lists only orders of this customer; exact match.
        #[oai(name = "customer_id")]
        Query(customer_id): Query<CustomerId>,
        /// Lists only orders with this track number; exact match.
        #[oai(name = "track_number")]
        Query(track_number): Query<TrackNumber>,
        /// Maximum number of orders in the page.
        #[oai(name = "limit")]
        Query(limit): Query<Limit>,
        /// The `next_cursor` of the previous page, unchanged.
        #[oai(name = "cursor")]
        Query(cursor): Query<Cursor>,
    ) -> ListResponse {
        let filter = ListFilter {
            customer_id: customer_id.0,
            track_number: track_number.0,
            after: cursor.0,
        };
        // One order more than requested shows whether there is a next page.
        match self.lookup.list(&filter, limit.0 + 1).await {
            Ok(orders) => ListResponse::Page(OrderList::page(orders, limit.0 as usize)),
            Err(error) => ListResponse::Problem(error.into()),
        }
    }
}

/// Response to the lookup of an order.
pub(super) struct OrderResponse {
    kind: Kind,
    /// `None` if no tier answered.
    origin: Option<Origin>,
}

enum Kind {
    Found { etag: HeaderValue, json: Bytes },
    NotModified { etag: HeaderValue },
    Problem(Problem),
}

struct Origin {
    source: Source,
    took: Duration,
}

impl Origin {
    fn write(self, headers: &mut HeaderMap) {
        headers.insert(&X_SOURCE, HeaderValue::from_static(self.source.as_str()));
        headers.insert(&X_DURATION_MS, millis(self.took.as_micros()));
    }
}

/// Formats microseconds as milliseconds with three decimals. A table holds the values below one
/// millisecond, which most lookups take.
fn millis(micros: u128) -> HeaderValue {
    /// `0.000` to `0.999`, concatenated.
    static TABLE: LazyLock<String> =
        LazyLock::new(|| (0..1000).map(|micros| format!("0.{micros:03}")).collect());
    const WIDTH: usize = 5;

    match usize::try_from(micros) {
        Ok(micros @ 0..1000) => {
            HeaderValue::from_static(&TABLE[micros * WIDTH..(micros + 1) * WIDTH])
        }
        // Digits and a point are always valid in a header.
        _ => HeaderValue::try_from(format!("{}.{:03}", micros / 1000, micros % 1000))
            .unwrap_or(HeaderValue::from_static("0")),
    }
}

impl IntoResponse for OrderResponse {
    fn into_response(self) -> Response {
        let mut response = match self.kind {
            Kind::Found { etag, json } => {
                let mut response = Response::default();
                response.set_body(json);
                let headers = response.headers_mut();
                headers.reserve(HEADERS);
                headers.insert(header::CONTENT_TYPE, JSON);
                headers.insert(header::CACHE_CONTROL, CACHE_CONTROL);
                headers.insert(header::ETAG, etag);
                response
            }
            Kind::NotModified { etag } => {
                let mut response = Response::default();
                response.set_status(StatusCode::NOT_MODIFIED);
                let headers = response.headers_mut();
                headers.insert(header::CACHE_CONTROL, CACHE_CONTROL);
                headers.insert(header::ETAG, etag);
                response
            }
            Kind::Problem(problem) => problem.into_response(),
        };
        if let Some(origin) = self.origin {
            origin.write(response.headers_mut());
        }
        response
    }
}

impl ApiResponse for OrderResponse {
    fn meta() -> MetaResponses {
        let found = MetaResponse {
            description: "The order.",
            status: Some(200),
            status_range: None,
            content: vec![MetaMediaType {
                content_type: "application/json",
                schema: schema::order(),
            }],
            headers: vec![
                source_header(),
                duration_header(),
                etag_header(),
                cache_control_header(),
            ],
        };
        let not_modified = MetaResponse {
            description: "The client's copy is current.",
            status: Some(304),
            status_range: None,
            content: Vec::new(),
            headers: vec![
                source_header(),
                duration_header(),
                etag_header(),
                cache_control_header(),
            ],
        };
        let with_origin = |mut response: MetaResponse| {
            response
                .headers
                .extend([source_header(), duration_header()]);
            response
        };
        MetaResponses {
            responses: vec![
                found,
                not_modified,
                schema::problem(
                    400,
                    "The uid or a parameter is malformed (`malformed_uid`, `bad_request`).",
                ),
                schema::problem(401, "An API key is needed (`unauthorized`)."),
                schema::problem(403, "The API key lacks the scope (`forbidden`)."),
                with_origin(schema::problem(
                    404,
                    "There is no such order (`order_not_found`).",
                )),
                with_origin(schema::problem(
                    410,
                    "The order was erased (`order_erased`).",
                )),
                schema::problem(429, "The client made too many requests (`rate_limited`)."),
                schema::problem(
                    503,
                    "No tier can answer in time (`unavailable`, `timeout`).",
                ),
            ],
        }
    }

    fn register(registry: &mut Registry) {
        schema::register_order(registry);
        schema::register_problem(registry);
    }
}

fn source_header() -> MetaHeader {
    let tiers = ["local", "redis", "postgres"].map(Into::into).to_vec();
    schema::header(
        "X-Source",
        "The tier that answered.",
        MetaSchema {
            enum_items: tiers,
            ..MetaSchema::new("string")
        },
    )
}

fn duration_header() -> MetaHeader {
    let schema = MetaSchema {
        example: Some("0.042".into()),
        ..MetaSchema::new("string")
    };
    schema::header(
        "X-Duration-Ms",
        "How long the look-up took: milliseconds with three decimals.",
        schema,
    )
}

fn etag_header() -> MetaHeader {
    let example = format!("\"{}\"", Version::new(1_637_907_727_000, 42, 5));
    let schema = MetaSchema {
        example: Some(example.into()),
        ..MetaSchema::new("string")
    };
    schema::header(
        "ETag",
        "The version of the order, in double quotes.",
        schema,
    )
}

fn cache_control_header() -> MetaHeader {
    schema::header(
        "Cache-Control",
        "Keep a copy if you like, but ask before you use it.",
        MetaSchema::new("string"),
    )
}

/// Response to a list request.
pub(super) enum ListResponse {
    Page(OrderList),
    Problem(Problem),
}

impl IntoResponse for ListResponse {
    fn into_response(self) -> Response {
        let page = match self {
            Self::Page(page) => serde_json::to_vec(&page).map_err(|error| {
                tracing::error!(%error, "a list could not be written");
                Problem::Internal
            }),
            Self::Problem(problem) => Err(problem),
        };
        match page {
            Ok(body) => {
                let mut response = Response::default();
                response.set_body(body);
                response.headers_mut().insert(header::CONTENT_TYPE, JSON);
                response
                    .headers_mut()
                    .insert(header::CACHE_CONTROL, CACHE_CONTROL);
                response
            }
            Err(problem) => problem.into_response(),
        }
    }
}

impl ApiResponse for ListResponse {
    fn meta() -> MetaResponses {
        let page = MetaResponse {
            description: "A page of orders.",
            status: Some(200),
            status_range: None,
            content: vec![MetaMediaType {
                content_type: "application/json",
                schema: OrderList::schema_ref(),
            }],
            headers: vec![cache_control_header()],
        };
        MetaResponses {
            responses: vec![
                page,
                schema::problem(
                    400,
                    "A parameter is malformed (`invalid_limit`, `invalid_cursor`, `bad_request`).",
                ),
                schema::problem(401, "An API key is needed (`unauthorized`)."),
                schema::problem(403, "The API key lacks the scope (`forbidden`)."),
                schema::problem(429, "The client made too many requests (`rate_limited`)."),
                schema::problem(
                    503,
                    "The database does not answer in time (`unavailable`, `timeout`).",
                ),
            ],
        }
    }

    fn register(registry: &mut Registry) {
        OrderList::register(registry);
        schema::register_problem(registry);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_three_decimals() {
        for (micros, text) in [
            (0, "0.000"),
            (42, "0.042"),
            (999, "0.999"),
            (1000, "1.000"),
            (1_234_567, "1234.567"),
        ] {
            assert_eq!(millis(micros), text);
        }
    }
}

//! `GET /order/{order_uid}`.

use std::{sync::LazyLock, time::Duration};

use bytes::Bytes;
use poem::{
    IntoResponse, Response,
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
};
use poem_openapi::{
    ApiResponse, OpenApi,
    registry::{MetaHeader, MetaMediaType, MetaResponse, MetaResponses, MetaSchema, Registry},
};

use super::{
    super::{
        conditional::IfNoneMatch,
        params::{PathUid, Query},
        problem::Problem,
        route::{Operation, Resources},
        schema,
    },
    JSON, Tag, cache_control_header,
};
use crate::{
    answer::{Shown, View, Visible},
    lookup::{Found, Freshness, Lookup, Source},
    trace,
};

pub(in super::super) static X_SOURCE: HeaderName = HeaderName::from_static("x-source");
static X_DURATION_MS: HeaderName = HeaderName::from_static("x-duration-ms");

/// Number of headers of a usual response, with those that the service adds. Otherwise the map would
/// grow when it adds them.
const HEADERS: usize = 7;

/// The operation.
pub(in super::super) struct GetOrder {
    lookup: Lookup,
}

impl Operation for GetOrder {
    fn new(resources: &Resources) -> Self {
        Self {
            lookup: resources.lookup.clone(),
        }
    }
}

#[OpenApi]
impl GetOrder {
    /// Get an order
    ///
    /// Returns the order from the fastest tier that has it: local cache, Redis or Postgres.
    /// `X-Source` names the tier. `X-Duration-Ms` is the time of the lookup in milliseconds.
    ///
    /// Without the scope `orders:pii`, name, phone, zip, address and e-mail of the delivery are
    /// masked, and the `ETag` is another one. For a caller that is bound to a customer, orders of
    /// others and erased orders do not exist: the response is 404, without the headers of a lookup.
    #[oai(
        path = "/order/:order_uid",
        method = "get",
        operation_id = "getOrder",
        tag = "Tag::Orders"
    )]
    async fn get_order(
        &self,
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
        view: View,
    ) -> OrderResponse {
        match self.lookup.show(uid, freshness, &view).await {
            Ok(Found {
                answer,
                source,
                took,
            }) => {
                trace::answered_by(source.as_str());
                let (kind, is_known) = match answer {
                    Visible::Order(order) => (Kind::of(order, &known), true),
                    Visible::Erased(_) => (Kind::Problem(Problem::OrderErased), true),
                    // The tier would reveal whether another customer has the order.
                    Visible::Unknown => (Kind::Problem(Problem::OrderNotFound), !view.is_bound()),
                };
                OrderResponse {
                    kind,
                    origin: is_known.then_some(Origin { source, took }),
                }
            }
            Err(error) => OrderResponse {
                kind: Kind::Problem(error.into()),
                origin: None,
            },
        }
    }
}

/// Response to the lookup of an order.
pub(super) struct OrderResponse {
    kind: Kind,
    /// `None` if no tier answered, or the caller may not know which one.
    origin: Option<Origin>,
}

enum Kind {
    Found { etag: HeaderValue, json: Bytes },
    NotModified { etag: HeaderValue },
    Problem(Problem),
}

impl Kind {
    fn of(order: Shown, known: &IfNoneMatch<'_>) -> Self {
        // Most requests have no If-None-Match, and need no ETag of their own for the comparison.
        if !known.is_empty() {
            let etag = order.etag();
            if known.matches(etag.as_bytes()) {
                return Self::NotModified { etag };
            }
        }
        let (etag, json) = order.into_etag_and_json();
        Self::Found { etag, json }
    }
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
                headers.insert(header::ETAG, etag);
                response
            }
            Kind::NotModified { etag } => {
                let mut response = Response::default();
                response.set_status(StatusCode::NOT_MODIFIED);
                response.headers_mut().insert(header::ETAG, etag);
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
            description: "The client's copy is the current version.",
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
        let mut not_found = with_origin(schema::problem(
            404,
            "No order has this uid, or it is one of another customer than the caller is bound to \
             (`order_not_found`). For a bound caller, the response does not name a tier.",
        ));
        for header in &mut not_found.headers {
            header.required = false;
        }
        MetaResponses {
            responses: vec![
                found,
                not_modified,
                schema::problem(
                    400,
                    "The uid or a parameter is malformed (`malformed_uid`, `bad_request`), or a \
                     parameter is unknown or repeated (`unknown_parameter`, `repeated_parameter`).",
                ),
                not_found,
                with_origin(schema::problem(
                    410,
                    "The order was erased (`order_erased`).",
                )),
                schema::problem(503, "No tier answers in time (`unavailable`, `timeout`)."),
            ],
        }
    }

    fn register(registry: &mut Registry) {
        schema::register_order(registry);
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
        "Time of the lookup: milliseconds with three decimals.",
        schema,
    )
}

fn etag_header() -> MetaHeader {
    let schema = MetaSchema {
        example: Some(schema::etag_example()),
        ..MetaSchema::new("string")
    };
    schema::header(
        "ETag",
        "The version of the order, in double quotes. It ends in `-masked` if personal data is \
         masked.",
        schema,
    )
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

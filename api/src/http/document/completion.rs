//! What the service decides for every operation before and after its handler: request id,
//! authorisation, rate limit, deadline, size of the body.

use std::collections::HashMap;

use poem_openapi::registry::{MetaHeader, MetaOperation, MetaResponse, MetaSchema};

use super::{
    super::{
        request_id,
        route::{Access, Route},
        schema,
    },
    API_KEY,
};
use crate::auth::Scope;

/// Adds the responses that `operation` does not describe itself, and the headers of all responses.
///
/// An operation with a scope needs an API key, unless the operator configured none. The document
/// has no conditions, so it lists both.
pub(super) fn complete(operation: &mut MetaOperation, route: &Route) {
    let scope = match route.access {
        Access::Anyone | Access::AnyCaller => None,
        Access::With(scope) => Some(scope),
    };
    if scope.is_some() {
        operation.security = vec![HashMap::from([(API_KEY, vec![])]), HashMap::new()];
    }
    let usual = usual(scope, operation.request.is_some());
    let responses = &mut operation.responses.responses;
    for response in usual {
        if responses.iter().all(|own| own.status != response.status) {
            responses.push(response);
        }
    }
    responses.sort_by_key(|response| response.status);
    for response in responses {
        response.headers.push(request_id_header());
    }
}

fn usual(scope: Option<Scope>, has_body: bool) -> Vec<MetaResponse> {
    let mut usual = vec![
        schema::problem(
            400,
            "The query is malformed (`bad_request`) or has a parameter: this operation has none \
             (`unknown_parameter`).",
        ),
        schema::problem(
            431,
            "The request head has more than 16 KiB or 100 headers (`head_too_large`).",
        ),
        schema::problem(429, "The client exceeds its request rate (`rate_limited`)."),
        schema::problem(500, "The server failed (`internal`)."),
        schema::problem(503, "The response was not ready in time (`timeout`)."),
    ];
    if let Some(scope) = scope {
        let forbidden = match scope {
            Scope::OrdersRead => "The caller lacks the scope `orders:read` (`forbidden`).",
            Scope::OrdersList => "The caller lacks the scope `orders:list` (`forbidden`).",
            Scope::OrdersPii => "The caller lacks the scope `orders:pii` (`forbidden`).",
        };
        usual.extend([
            schema::problem(
                401,
                "The request has no valid token (`unauthorized`), or it has expired \
                 (`token_expired`).",
            ),
            schema::problem(403, forbidden),
        ]);
    }
    if has_body {
        usual.extend([
            schema::problem(408, "The body has not arrived in time (`body_incomplete`)."),
            schema::problem(413, "The body has more than 64 KiB (`body_too_large`)."),
            schema::problem(
                415,
                "The Content-Type is missing or not the documented one \
                 (`unsupported_media_type`).",
            ),
        ]);
    }
    usual
}

fn request_id_header() -> MetaHeader {
    let schema = MetaSchema {
        example: Some("0f3c9a7e5b1d2468-0000002a".into()),
        max_length: Some(request_id::MAX_LENGTH),
        ..MetaSchema::new("string")
    };
    schema::header(
        "X-Request-Id",
        "The id of the request: the client's own, or a new one.",
        schema,
    )
}

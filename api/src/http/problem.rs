//! Errors that clients receive: RFC 9457 problem details with a stable code.

use std::borrow::Cow;

use poem::{
    IntoResponse, Response,
    http::{HeaderName, HeaderValue, StatusCode, header},
};
use serde::Serialize;
use shared::runtime::request::MalformedRequest;
use strum::EnumIter;

use crate::{
    answer::PersonalFilter,
    auth::{Denial, Scope},
    lookup::LookupError,
};

/// Media type of a problem.
pub(crate) const CONTENT_TYPE: &str = "application/problem+json";

/// An error response. Its texts are constants. Only [`Problem::response_with`] can repeat a part of
/// the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, EnumIter)]
pub(crate) enum Problem {
    MalformedUid,
    InvalidLimit,
    InvalidCursor,
    /// The text names the parameter and the expected value.
    BadRequest(&'static str),
    HeadTooLarge,
    UnknownParameter,
    RepeatedParameter,
    /// The request has no token.
    Unauthorized,
    /// The request has a token that is not valid.
    InvalidToken,
    ExpiredToken,
    /// The caller lacks this scope.
    Forbidden(Scope),
    /// The caller filters by data that it may not see.
    PersonalData,
    BoundToCustomer,
    OrderNotFound,
    NotFound,
    NotAcceptable,
    /// The service adds `Allow`.
    MethodNotAllowed,
    OrderErased,
    /// The service ends the connection, because the rest of the body may still arrive.
    BodyIncomplete,
    BodyTooLarge,
    UnsupportedMediaType,
    RateLimited,
    Internal,
    Unavailable,
    IssuerUnavailable,
    TooManyExports,
    Timeout,
    ListTimeout,
    TooManyStreams,
    EventsDisabled,
}

/// Body of a problem.
#[derive(Serialize)]
pub(crate) struct Details {
    #[serde(rename = "type")]
    kind: String,
    title: &'static str,
    status: u16,
    detail: Cow<'static, str>,
    code: &'static str,
}

/// Seconds until the client may retry.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("1");
const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");

impl Problem {
    /// Returns the status, the stable code, on which programs may depend, the title, and the
    /// detail: what is expected and the next step.
    #[rustfmt::skip]
    #[expect(clippy::too_many_lines, reason = "a table")]
    const fn row(self) -> (StatusCode, &'static str, &'static str, &'static str) {
        match self {
            Self::MalformedUid => (StatusCode::BAD_REQUEST, "malformed_uid", "Malformed order uid",
                "The path does not have an order uid; write 1 to 64 of A-Z a-z 0-9 _ -."),
            Self::InvalidLimit => (StatusCode::BAD_REQUEST, "invalid_limit", "Invalid limit",
                "limit is not a number from 1 to 100; write limit=20 or omit it."),
            Self::InvalidCursor => (StatusCode::BAD_REQUEST, "invalid_cursor", "Invalid cursor",
                "cursor is not the next_cursor of a response; omit it for the first page."),
            Self::BadRequest(detail) => (StatusCode::BAD_REQUEST, "bad_request", "Bad request",
                detail),
            Self::HeadTooLarge => (StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "head_too_large",
                "Request head too large", MalformedRequest::HeadTooLarge.detail()),
            Self::UnknownParameter => (StatusCode::BAD_REQUEST, "unknown_parameter",
                "Unknown parameter",
                "A query parameter is unknown; write one that /docs lists for this operation."),
            Self::RepeatedParameter => (StatusCode::BAD_REQUEST, "repeated_parameter",
                "Repeated parameter",
                "A query parameter appears more than once; write it once."),
            Self::Unauthorized => (StatusCode::UNAUTHORIZED, "unauthorized", "Unauthorized",
                "The request has no token; send Authorization: Bearer TOKEN."),
            Self::InvalidToken => (StatusCode::UNAUTHORIZED, "unauthorized", "Unauthorized",
                "The token is not valid; send Authorization: Bearer TOKEN with a valid one."),
            Self::ExpiredToken => (StatusCode::UNAUTHORIZED, "token_expired", "Token expired",
                "The token was valid and has expired; ask the operator for a new one."),
            Self::Forbidden(scope) => (StatusCode::FORBIDDEN, "forbidden", "Forbidden",
                match scope {
                    Scope::OrdersRead =>
                        "The caller lacks the scope orders:read; ask the operator to add it.",
                    Scope::OrdersList =>
                        "The caller lacks the scope orders:list; ask the operator to add it.",
                    Scope::OrdersPii =>
                        "The caller lacks the scope orders:pii; ask the operator to add it.",
                }),
            Self::PersonalData => (StatusCode::FORBIDDEN, "personal_data",
                "Personal data",
                "The filters phone and email need the scope orders:pii; \
                 ask the operator to add it, or filter by customer_id."),
            Self::BoundToCustomer => (StatusCode::FORBIDDEN, "bound_to_customer",
                "Bound to a customer",
                "The caller sees the orders of one customer, and this stream has those of all; \
                 watch each order: GET /order/{order_uid}/events."),
            Self::OrderNotFound => (StatusCode::NOT_FOUND, "order_not_found", "Order not found",
                "No order has this uid."),
            Self::NotFound => (StatusCode::NOT_FOUND, "not_found", "Not found",
                "No route has this path; /docs lists the routes."),
            Self::NotAcceptable => (StatusCode::NOT_ACCEPTABLE, "not_acceptable", "Not acceptable",
                "No media type of this operation is in the Accept header; /docs lists them."),
            Self::MethodNotAllowed => (StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed",
                "Method not allowed",
                "This path does not answer this method; use one that the Allow header lists."),
            Self::OrderErased => (StatusCode::GONE, "order_erased", "Order erased",
                "This order was erased."),
            Self::BodyIncomplete => (StatusCode::REQUEST_TIMEOUT, "body_incomplete",
                "Request body incomplete",
                "The request body has not arrived in time; send as many bytes as Content-Length."),
            Self::BodyTooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "body_too_large",
                "Body too large",
                "The request body has more than 64 KiB; send less."),
            Self::UnsupportedMediaType => (StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "unsupported_media_type", "Unsupported media type",
                "The Content-Type of the request is missing or not supported; \
                 /docs describes the operation."),
            Self::RateLimited => (StatusCode::TOO_MANY_REQUESTS, "rate_limited",
                "Too many requests",
                "This client exceeds its request rate; retry after the time in Retry-After."),
            Self::Internal => (StatusCode::INTERNAL_SERVER_ERROR, "internal", "Internal error",
                "The server failed; report the X-Request-Id to the operator."),
            Self::Unavailable => (StatusCode::SERVICE_UNAVAILABLE, "unavailable", "Unavailable",
                "No cache has the answer, and the database is down or busy; \
                 retry after the time in Retry-After."),
            Self::IssuerUnavailable => (StatusCode::SERVICE_UNAVAILABLE, "issuer_unavailable",
                "Issuer unavailable",
                "The key of the token is not known, and its issuer does not answer; \
                 retry after the time in Retry-After."),
            Self::TooManyExports => (StatusCode::SERVICE_UNAVAILABLE, "too_many_exports",
                "Too many exports",
                "This replica sends as many exports as it can; retry after Retry-After."),
            Self::Timeout => (StatusCode::SERVICE_UNAVAILABLE, "timeout", "Timeout",
                "The response was not ready in time; retry after the time in Retry-After."),
            Self::ListTimeout => (StatusCode::SERVICE_UNAVAILABLE, "list_timeout", "List timeout",
                "The database did not find the orders of these filters in time; narrow the list \
                 with created_from and created_to, or retry after the time in Retry-After."),
            Self::TooManyStreams => (StatusCode::SERVICE_UNAVAILABLE, "too_many_streams",
                "Too many streams",
                "This replica has its maximum number of event streams; \
                 retry after the time in Retry-After."),
            Self::EventsDisabled => (StatusCode::SERVICE_UNAVAILABLE, "events_disabled",
                "Events disabled",
                "This replica receives no announcements (CACHE_ENABLED=false); \
                 poll GET /order/{order_uid} with If-None-Match, or GET /orders."),
        }
    }

    /// The stable code.
    pub(crate) const fn code(self) -> &'static str {
        self.row().1
    }

    /// HTTP status of the problem.
    pub(crate) const fn status(self) -> StatusCode {
        self.row().0
    }

    /// Builds the body.
    pub(crate) fn details(self) -> Details {
        self.details_with(Cow::Borrowed(self.row().3))
    }

    /// Builds the response with another detail. The caller makes sure that `detail` is short and
    /// safe to display.
    pub(super) fn response_with(self, detail: String) -> Response {
        self.response(&self.details_with(Cow::Owned(detail)))
    }

    fn details_with(self, detail: Cow<'static, str>) -> Details {
        let (status, code, title, _) = self.row();
        Details {
            kind: format!("urn:order-service:problem:{code}"),
            title,
            status: status.as_u16(),
            detail,
            code,
        }
    }

    /// The challenge of RFC 6750; `None` if other credentials would not help.
    const fn challenge(self) -> Option<&'static str> {
        Some(match self {
            Self::Unauthorized => "Bearer realm=\"orders\"",
            Self::InvalidToken => "Bearer realm=\"orders\", error=\"invalid_token\"",
            Self::ExpiredToken => {
                "Bearer realm=\"orders\", error=\"invalid_token\", \
                 error_description=\"expired\""
            }
            Self::Forbidden(Scope::OrdersRead) => {
                "Bearer realm=\"orders\", error=\"insufficient_scope\", scope=\"orders:read\""
            }
            Self::Forbidden(Scope::OrdersList) => {
                "Bearer realm=\"orders\", error=\"insufficient_scope\", scope=\"orders:list\""
            }
            Self::Forbidden(Scope::OrdersPii) | Self::PersonalData => {
                "Bearer realm=\"orders\", error=\"insufficient_scope\", scope=\"orders:pii\""
            }
            _ => return None,
        })
    }

    /// The additional header of this problem, if it has one.
    const fn header(self) -> Option<(HeaderName, HeaderValue)> {
        if let Some(challenge) = self.challenge() {
            let challenge = HeaderValue::from_static(challenge);
            return Some((header::WWW_AUTHENTICATE, challenge));
        }
        match self.status() {
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
                Some((header::RETRY_AFTER, RETRY_AFTER))
            }
            _ => None,
        }
    }

    fn response(self, details: &Details) -> Response {
        // Strings and a number: serialization cannot fail.
        let body = serde_json::to_vec(details).unwrap_or_default();
        let mut response = Response::builder().status(self.status()).body(body);
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(CONTENT_TYPE));
        headers.insert(header::CACHE_CONTROL, NO_STORE);
        if let Some((name, value)) = self.header() {
            headers.insert(name, value);
        }
        response
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        self.response(&self.details())
    }
}

/// Lets the extractor of a parameter reject a request with this problem.
impl From<Problem> for poem::Error {
    fn from(problem: Problem) -> Self {
        Self::from_response(problem.into_response())
    }
}

impl From<LookupError> for Problem {
    fn from(error: LookupError) -> Self {
        match error {
            LookupError::Overloaded | LookupError::Unavailable => Self::Unavailable,
            LookupError::SlowList => Self::ListTimeout,
        }
    }
}

impl From<PersonalFilter> for Problem {
    fn from(_: PersonalFilter) -> Self {
        Self::PersonalData
    }
}

impl From<MalformedRequest> for Problem {
    fn from(malformed: MalformedRequest) -> Self {
        match malformed {
            MalformedRequest::HeadTooLarge => Self::HeadTooLarge,
            _ => Self::BadRequest(malformed.detail()),
        }
    }
}

impl From<Denial> for Problem {
    fn from(denial: Denial) -> Self {
        match denial {
            Denial::Missing => Self::Unauthorized,
            Denial::Unauthorized => Self::InvalidToken,
            Denial::Expired => Self::ExpiredToken,
            Denial::Unavailable => Self::IssuerUnavailable,
            Denial::Forbidden(scope) => Self::Forbidden(scope),
        }
    }
}

#[cfg(test)]
mod tests {
    use strum::IntoEnumIterator;

    use super::*;

    #[tokio::test]
    async fn a_problem_has_its_type_code_and_headers() {
        for problem in Problem::iter() {
            let response = problem.into_response();
            let status = response.status();
            assert_eq!(response.content_type(), Some(CONTENT_TYPE));
            assert_eq!(
                response.header("Retry-After").is_some(),
                matches!(status.as_u16(), 429 | 503),
                "{problem:?}"
            );
            assert_eq!(
                response.header("WWW-Authenticate").is_some(),
                status == 401 || matches!(problem, Problem::Forbidden(_) | Problem::PersonalData),
                "{problem:?}"
            );
            let body: serde_json::Value = response.into_body().into_json().await.unwrap();
            assert_eq!(body["code"], problem.code());
            assert_eq!(
                body["type"],
                format!("urn:order-service:problem:{}", problem.code())
            );
            assert_eq!(body["status"], status.as_u16());
            assert!(body["title"].is_string() && body["detail"].is_string());
        }
    }

    /// The texts are constants, so each scope has texts of its own.
    #[test]
    fn a_missing_scope_is_named() {
        for scope in Scope::iter() {
            let (problem, name) = (Problem::Forbidden(scope), <&str>::from(scope));
            assert!(problem.row().3.contains(name), "{name}");
            let challenge = problem.challenge().unwrap();
            assert!(challenge.ends_with(&format!("scope=\"{name}\"")), "{name}");
        }
    }
}

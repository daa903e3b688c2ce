//! Errors that clients receive: RFC 9457 problem details with a stable code.

use poem::{
    IntoResponse, Response,
    http::{HeaderName, HeaderValue, StatusCode, header},
};
use serde::Serialize;
use shared::runtime::request::MalformedRequest;

use crate::{auth::Denial, lookup::LookupError};

/// Media type of a problem.
pub(crate) const CONTENT_TYPE: &str = "application/problem+json";

/// An error response. Its texts are constants and never repeat parts of the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Problem {
    MalformedUid,
    InvalidLimit,
    InvalidCursor,
    /// The text names the parameter and the expected value.
    BadRequest(&'static str),
    Unauthorized,
    Forbidden,
    OrderNotFound,
    NotFound,
    MethodNotAllowed,
    OrderErased,
    RateLimited,
    Internal,
    Unavailable,
    Timeout,
}

/// Body of a problem.
#[derive(Serialize)]
pub(crate) struct Details {
    #[serde(rename = "type")]
    kind: String,
    title: &'static str,
    status: u16,
    detail: &'static str,
    code: &'static str,
}

/// Seconds until the client may retry.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("1");
const CHALLENGE: HeaderValue = HeaderValue::from_static("Bearer realm=\"orders\"");
const METHODS: HeaderValue = HeaderValue::from_static("GET, HEAD, OPTIONS");
const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");

impl Problem {
    /// One problem of each kind.
    pub(crate) const ALL: [Self; 14] = [
        Self::MalformedUid,
        Self::InvalidLimit,
        Self::InvalidCursor,
        Self::BadRequest("a parameter is not understood"),
        Self::Unauthorized,
        Self::Forbidden,
        Self::OrderNotFound,
        Self::NotFound,
        Self::MethodNotAllowed,
        Self::OrderErased,
        Self::RateLimited,
        Self::Internal,
        Self::Unavailable,
        Self::Timeout,
    ];

    /// The stable code, on which programs may depend.
    pub(crate) const fn code(self) -> &'static str {
        match self {
            Self::MalformedUid => "malformed_uid",
            Self::InvalidLimit => "invalid_limit",
            Self::InvalidCursor => "invalid_cursor",
            Self::BadRequest(_) => "bad_request",
            Self::Unauthorized => "unauthorized",
            Self::Forbidden => "forbidden",
            Self::OrderNotFound => "order_not_found",
            Self::NotFound => "not_found",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::OrderErased => "order_erased",
            Self::RateLimited => "rate_limited",
            Self::Internal => "internal",
            Self::Unavailable => "unavailable",
            Self::Timeout => "timeout",
        }
    }

    /// HTTP status of the problem.
    pub(crate) const fn status(self) -> StatusCode {
        match self {
            Self::MalformedUid | Self::InvalidLimit | Self::InvalidCursor | Self::BadRequest(_) => {
                StatusCode::BAD_REQUEST
            }
            Self::Unauthorized => StatusCode::UNAUTHORIZED,
            Self::Forbidden => StatusCode::FORBIDDEN,
            Self::OrderNotFound | Self::NotFound => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::OrderErased => StatusCode::GONE,
            Self::RateLimited => StatusCode::TOO_MANY_REQUESTS,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
            Self::Unavailable | Self::Timeout => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    const fn title(self) -> &'static str {
        match self {
            Self::MalformedUid => "Malformed order uid",
            Self::InvalidLimit => "Invalid limit",
            Self::InvalidCursor => "Invalid cursor",
            Self::BadRequest(_) => "Bad request",
            Self::Unauthorized => "Unauthorized",
            Self::Forbidden => "Forbidden",
            Self::OrderNotFound => "Order not found",
            Self::NotFound => "Not found",
            Self::MethodNotAllowed => "Method not allowed",
            Self::OrderErased => "Order erased",
            Self::RateLimited => "Too many requests",
            Self::Internal => "Internal error",
            Self::Unavailable => "Unavailable",
            Self::Timeout => "Timeout",
        }
    }

    const fn detail(self) -> &'static str {
        match self {
            Self::MalformedUid => "An order uid is 1 to 64 of A-Z a-z 0-9 _ -.",
            Self::InvalidLimit => "limit is a number from 1 to 100.",
            Self::InvalidCursor => "cursor is the next_cursor of an earlier answer, unchanged.",
            Self::BadRequest(detail) => detail,
            Self::Unauthorized => "An API key is needed: Authorization: Bearer TOKEN.",
            Self::Forbidden => "This API key may not do that.",
            Self::OrderNotFound => "There is no order with this uid.",
            Self::NotFound => "There is nothing under this path; /docs tells what there is.",
            Self::MethodNotAllowed => "This path can only be read: GET or HEAD.",
            Self::OrderErased => "This order was erased.",
            Self::RateLimited => "This client made too many requests; try again later.",
            Self::Internal => "The request failed for a reason on our side.",
            Self::Unavailable => {
                "No cache can answer this, and the database does not answer or is busy; try again later."
            }
            Self::Timeout => "The answer took too long; try again later.",
        }
    }

    /// Builds the body.
    pub(crate) fn details(self) -> Details {
        Details {
            kind: format!("urn:order-service:problem:{}", self.code()),
            title: self.title(),
            status: self.status().as_u16(),
            detail: self.detail(),
            code: self.code(),
        }
    }

    /// The additional header of this problem, if it has one.
    const fn header(self) -> Option<(HeaderName, HeaderValue)> {
        match self.status() {
            StatusCode::UNAUTHORIZED => Some((header::WWW_AUTHENTICATE, CHALLENGE)),
            StatusCode::METHOD_NOT_ALLOWED => Some((header::ALLOW, METHODS)),
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
                Some((header::RETRY_AFTER, RETRY_AFTER))
            }
            _ => None,
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        // Strings and a number: serialization cannot fail.
        let body = serde_json::to_vec(&self.details()).unwrap_or_default();
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
        }
    }
}

impl From<MalformedRequest> for Problem {
    fn from(malformed: MalformedRequest) -> Self {
        Self::BadRequest(malformed.detail())
    }
}

impl From<Denial> for Problem {
    fn from(denial: Denial) -> Self {
        match denial {
            Denial::Unauthorized => Self::Unauthorized,
            Denial::Forbidden => Self::Forbidden,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_problem_has_its_type_code_and_headers() {
        for problem in Problem::ALL {
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
                status == 401,
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
}

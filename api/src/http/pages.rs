//! Pages that need no lookup: the web page and the documentation.

use bytes::Bytes;
use poem::{
    Endpoint, IntoResponse, Request, Response,
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
};
use sha2::{Digest, Sha256};
use strum::IntoEnumIterator;

use super::{conditional::none_match, problem::Problem};
use crate::{
    auth::{Caller, Scope},
    web::{self, Asset},
};

/// Policy for Swagger UI, which is one file with inline script and style and calls only this
/// service.
const SWAGGER_POLICY: &str = "default-src 'none'; script-src 'unsafe-inline'; \
     style-src 'unsafe-inline'; img-src 'self' data:; connect-src 'self'; base-uri 'none'; \
     form-action 'none'; frame-ancestors 'none'";

/// The OpenAPI document in the forms in which it is served.
pub(super) struct Documentation {
    /// Swagger UI with the document embedded; HTML.
    pub(super) swagger_ui: String,
    pub(super) json: String,
    pub(super) yaml: String,
}

/// A page that is ready to send.
pub(super) struct Page {
    body: Bytes,
    etag: HeaderValue,
    content_type: &'static str,
    policy: Option<&'static str>,
}

impl Page {
    pub(super) fn swagger_ui(html: &str) -> Self {
        Self::new(html, "text/html; charset=utf-8", Some(SWAGGER_POLICY))
    }

    pub(super) fn json(document: &str) -> Self {
        Self::new(document, "application/json", None)
    }

    pub(super) fn yaml(document: &str) -> Self {
        Self::new(document, "application/yaml", None)
    }

    fn new(body: &str, content_type: &'static str, policy: Option<&'static str>) -> Self {
        let digest = hex::encode(&Sha256::digest(body)[..8]);
        // Quotes and hexadecimal digits are always valid in a header. An empty ETag would match
        // nothing.
        let etag =
            HeaderValue::try_from(format!("\"{digest}\"")).unwrap_or(HeaderValue::from_static(""));
        Self {
            body: Bytes::copy_from_slice(body.as_bytes()),
            etag,
            content_type,
            policy,
        }
    }

    fn respond(&self, request: &HeaderMap) -> Response {
        let mut response = Response::default();
        if none_match(request, self.etag.as_bytes()) {
            response.set_status(StatusCode::NOT_MODIFIED);
        } else {
            response.set_body(self.body.clone());
        }
        let fixed: [(HeaderName, &'static str); 3] = [
            (header::CONTENT_TYPE, self.content_type),
            (header::CACHE_CONTROL, web::CACHE_CONTROL),
            (header::REFERRER_POLICY, "no-referrer"),
        ];
        let headers = response.headers_mut();
        for (name, value) in fixed {
            headers.insert(name, HeaderValue::from_static(value));
        }
        headers.insert(header::ETAG, self.etag.clone());
        if let Some(policy) = self.policy {
            headers.insert(
                header::CONTENT_SECURITY_POLICY,
                HeaderValue::from_static(policy),
            );
        }
        response
    }
}

impl Endpoint for Page {
    type Output = Response;

    async fn call(&self, request: Request) -> poem::Result<Response> {
        Ok(self.respond(request.headers()))
    }
}

impl From<Asset> for Page {
    fn from(asset: Asset) -> Self {
        Self {
            body: Bytes::from_static(asset.body.as_bytes()),
            etag: HeaderValue::from_static(asset.etag),
            content_type: asset.content_type,
            policy: Some(web::CONTENT_SECURITY_POLICY),
        }
    }
}

/// The files of the web page.
pub(super) struct Assets;

impl Endpoint for Assets {
    type Output = Response;

    async fn call(&self, request: Request) -> poem::Result<Response> {
        Ok(match web::asset(request.uri().path()) {
            Some(asset) => Page::from(asset).respond(request.headers()),
            None => Problem::NotFound.into_response(),
        })
    }
}

/// The caller as JSON, for the web page: name, scopes, and the customer to whom the caller is
/// bound. Where callers need no credentials, the name is null, and every scope is listed.
pub(super) struct WhoCalls;

impl Endpoint for WhoCalls {
    type Output = Response;

    async fn call(&self, request: Request) -> poem::Result<Response> {
        let caller = request.extensions().get::<Caller>();
        let scopes = Scope::iter()
            .filter(|scope| caller.is_none_or(|caller| caller.scopes.contains(*scope)));
        let body = serde_json::json!({
            "name": caller.map(|caller| &*caller.name),
            "scopes": scopes.map(<&str>::from).collect::<Vec<_>>(),
            "customer": caller.and_then(|caller| caller.customer.as_deref()),
        });
        let response = Response::builder()
            .content_type("application/json")
            .header(header::CACHE_CONTROL, "no-store")
            .header(header::VARY, "Authorization")
            .body(body.to_string());
        Ok(response)
    }
}

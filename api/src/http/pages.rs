//! Pages that need no lookup: the web page and the documentation.

use bytes::Bytes;
use poem::{
    IntoResponse, Response,
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
};
use sha2::{Digest, Sha256};

use super::{document, params::none_match, problem::Problem, route::Route};
use crate::web;

/// Policy for Swagger UI, which is one file with inline script and style and calls only this
/// service.
const SWAGGER_POLICY: &str = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src 'self' data:; \
     connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// The documentation, rendered once at the start.
pub(super) struct Pages {
    docs: Page,
    json: Page,
    yaml: Page,
}

struct Page {
    body: Bytes,
    etag: HeaderValue,
    content_type: &'static str,
    policy: Option<&'static str>,
}

impl Page {
    fn new(body: String, content_type: &'static str, policy: Option<&'static str>) -> Self {
        let digest = Sha256::digest(&body);
        let hex: String = digest[..8]
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        // Quotes and hexadecimal digits are always valid in a header. An empty ETag would match
        // nothing.
        let etag =
            HeaderValue::try_from(format!("\"{hex}\"")).unwrap_or(HeaderValue::from_static(""));
        Self {
            body: Bytes::from(body),
            etag,
            content_type,
            policy,
        }
    }
}

impl Pages {
    pub(super) fn new() -> Self {
        Self {
            docs: Page::new(
                document::swagger_ui(),
                "text/html; charset=utf-8",
                Some(SWAGGER_POLICY),
            ),
            json: Page::new(document::json(), "application/json", None),
            yaml: Page::new(document::yaml(), "application/yaml", None),
        }
    }

    /// Returns the page at `path`, whose route is `route`.
    pub(super) fn get(&self, route: Route, path: &str, request: &HeaderMap) -> Response {
        match route {
            Route::Docs => self.docs.respond(request),
            Route::OpenApiJson => self.json.respond(request),
            Route::OpenApiYaml => self.yaml.respond(request),
            Route::Page | Route::Asset => match web::asset(path) {
                Some(asset) => Page {
                    body: Bytes::from_static(asset.body.as_bytes()),
                    etag: HeaderValue::from_static(asset.etag),
                    content_type: asset.content_type,
                    policy: Some(web::CONTENT_SECURITY_POLICY),
                }
                .respond(request),
                None => Problem::NotFound.into_response(),
            },
            Route::Order | Route::Orders | Route::Unmatched => Problem::NotFound.into_response(),
        }
    }
}

impl Page {
    fn respond(&self, request: &HeaderMap) -> Response {
        let mut response = Response::default();
        if none_match(request, self.etag.as_bytes()) {
            response.set_status(StatusCode::NOT_MODIFIED);
        } else {
            response.set_body(self.body.clone());
        }
        let fixed: [(HeaderName, &'static str); 4] = [
            (header::CONTENT_TYPE, self.content_type),
            (header::CACHE_CONTROL, web::CACHE_CONTROL),
            (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
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

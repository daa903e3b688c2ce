//! CORS: the other origins whose pages may read responses. None unless the operator configures
//! them.

use poem::http::{HeaderMap, HeaderValue, header};
use shared::config::ConfigError;

const REQUEST_HEADERS: HeaderValue = HeaderValue::from_static(
    "Authorization, Content-Type, If-None-Match, Last-Event-ID, X-Request-Id, traceparent",
);
const RESPONSE_HEADERS: HeaderValue = HeaderValue::from_static(
    "Content-Disposition, ETag, Retry-After, X-Source, X-Duration-Ms, X-Request-Id",
);
const MAX_AGE: HeaderValue = HeaderValue::from_static("600");

/// The origins that may read responses.
pub(super) struct Cors {
    origins: Vec<HeaderValue>,
    any: bool,
}

impl Cors {
    /// Parses the origins of `API_CORS_ORIGINS`.
    ///
    /// # Errors
    /// Returns an error if an entry is not an origin.
    pub(super) fn new(origins: &[String]) -> Result<Self, ConfigError> {
        let origins: Vec<&str> = origins
            .iter()
            .map(|origin| origin.trim())
            .filter(|origin| !origin.is_empty())
            .collect();
        let parsed = origins
            .iter()
            .filter(|origin| **origin != "*")
            .map(|origin| {
                let is_origin = origin.split_once("://").is_some_and(|(scheme, host)| {
                    !scheme.is_empty() && !host.is_empty() && !host.contains('/')
                });
                let value = HeaderValue::from_str(origin).ok().filter(|_| is_origin);
                value.ok_or_else(|| {
                    ConfigError::malformed(
                        "API_CORS_ORIGINS",
                        "an entry is not an origin; write https://shop.example, or * for all",
                    )
                })
            });
        Ok(Self {
            origins: parsed.collect::<Result<_, _>>()?,
            any: origins.contains(&"*"),
        })
    }

    /// Returns whether any origin is configured.
    pub(super) fn is_on(&self) -> bool {
        self.any || !self.origins.is_empty()
    }

    /// Adds the headers that let pages of `origin` read the response. With `methods`, those of the
    /// route, it also adds the answer to a preflight request.
    pub(super) fn write(
        &self,
        origin: Option<&HeaderValue>,
        methods: Option<&HeaderValue>,
        headers: &mut HeaderMap,
    ) {
        headers.append(header::VARY, HeaderValue::from_static("Origin"));
        let Some(origin) = origin.filter(|origin| self.any || self.origins.contains(origin)) else {
            return;
        };
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
        headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, RESPONSE_HEADERS);
        if let Some(methods) = methods {
            headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, methods.clone());
            headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, REQUEST_HEADERS);
            headers.insert(header::ACCESS_CONTROL_MAX_AGE, MAX_AGE);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(cors: &Cors, origin: &'static str) -> bool {
        let mut headers = HeaderMap::new();
        cors.write(Some(&HeaderValue::from_static(origin)), None, &mut headers);
        headers.contains_key(header::ACCESS_CONTROL_ALLOW_ORIGIN)
    }

    #[test]
    fn only_configured_origins_are_allowed() {
        let cors = Cors::new(&[
            "https://a.example".to_owned(),
            " http://localhost:3000".to_owned(),
        ])
        .unwrap();
        assert!(
            cors.is_on()
                && allowed(&cors, "https://a.example")
                && allowed(&cors, "http://localhost:3000")
        );
        assert!(!allowed(&cors, "https://b.example") && !allowed(&cors, "null"));
        let all = Cors::new(&["*".to_owned()]).unwrap();
        assert!(all.is_on() && allowed(&all, "https://b.example"));
        assert!(!Cors::new(&[String::new()]).unwrap().is_on());
    }

    #[test]
    fn a_malformed_origin_stops_the_start() {
        for bad in ["a.example", "https://a.example/path", "://a", "https://"] {
            assert!(Cors::new(&[bad.to_owned()]).is_err(), "{bad}");
        }
    }
}

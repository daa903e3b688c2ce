//! Headers that every response has.

use poem::http::{HeaderMap, HeaderValue, header};
use shared::config::ConfigError;

/// A browser must not guess another type than `Content-Type`.
const NOSNIFF: HeaderValue = HeaderValue::from_static("nosniff");

/// Headers that every response has.
pub(super) struct ResponseHeaders {
    /// For responses that have no `Cache-Control` of their own: the orders.
    cache_control: HeaderValue,
}

impl ResponseHeaders {
    /// Parses `API_CACHE_CONTROL`.
    ///
    /// # Errors
    /// Returns an error if the value is no header, or allows shared caches to store orders. They
    /// hold personal data, and two callers may see different parts of an order.
    pub(super) fn new(cache_control: &str) -> Result<Self, ConfigError> {
        let is_empty = cache_control.trim().is_empty();
        let cache_control = HeaderValue::from_str(cache_control)
            .ok()
            .filter(|value| !is_empty && value.to_str().is_ok())
            .ok_or_else(|| {
                ConfigError::malformed(
                    "API_CACHE_CONTROL",
                    "not a Cache-Control header; write private, no-store or private, no-cache",
                )
            })?;
        if is_shared(&cache_control) {
            return Err(ConfigError::malformed(
                "API_CACHE_CONTROL",
                "public and s-maxage let shared caches store personal data; write private, \
                 no-store or private, no-cache",
            ));
        }
        Ok(Self { cache_control })
    }

    /// Adds the headers.
    pub(super) fn write(&self, headers: &mut HeaderMap) {
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, NOSNIFF);
        headers
            .entry(header::CACHE_CONTROL)
            .or_insert_with(|| self.cache_control.clone());
    }
}

/// Returns whether a shared cache may store a response with this `Cache-Control`.
fn is_shared(cache_control: &HeaderValue) -> bool {
    let directives = cache_control.to_str().unwrap_or_default().split(',');
    directives.map(str::trim).any(|directive| {
        let name = directive.split('=').next().unwrap_or_default().trim();
        ["public", "s-maxage"]
            .iter()
            .any(|shared| name.eq_ignore_ascii_case(shared))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_response_keeps_its_own_cache_control() {
        let defaults = ResponseHeaders::new("private, max-age=5").unwrap();
        let mut headers = HeaderMap::new();
        defaults.write(&mut headers);
        assert_eq!(headers[header::CACHE_CONTROL], "private, max-age=5");
        assert_eq!(headers[header::X_CONTENT_TYPE_OPTIONS], "nosniff");

        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        defaults.write(&mut headers);
        assert_eq!(headers[header::CACHE_CONTROL], "no-store");
    }

    #[test]
    fn shared_caches_and_malformed_values_are_rejected() {
        for rejected in [
            "",
            " ",
            "no-store\n",
            "privé",
            "public, max-age=60",
            "max-age=0, S-MaxAge=60",
            "PUBLIC",
        ] {
            let error = ResponseHeaders::new(rejected)
                .err()
                .map(|error| error.to_string());
            let error = error.unwrap_or_else(|| panic!("{rejected:?} was accepted"));
            assert!(
                error.starts_with("API_CACHE_CONTROL: ") && error.contains("write private"),
                "{error}"
            );
        }
        for accepted in [
            "private, no-store",
            "private, no-cache",
            "no-cache, private",
        ] {
            assert!(ResponseHeaders::new(accepted).is_ok(), "{accepted}");
        }
    }
}

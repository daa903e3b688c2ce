//! Conditional requests: the `If-None-Match` header.

use poem::{
    Request, RequestBody,
    http::{HeaderMap, header},
};
use poem_openapi::{
    ApiExtractor, ApiExtractorType, ExtractParamOptions,
    registry::{MetaParamIn, MetaSchema, MetaSchemaRef},
};

use super::schema;

/// The `If-None-Match` header.
pub(super) struct IfNoneMatch<'a>(&'a HeaderMap);

impl<'a> ApiExtractor<'a> for IfNoneMatch<'a> {
    const TYPES: &'static [ApiExtractorType] = &[ApiExtractorType::Parameter];
    type ParamType = ();
    type ParamRawType = ();

    fn param_in() -> Option<MetaParamIn> {
        Some(MetaParamIn::Header)
    }

    fn param_schema_ref() -> Option<MetaSchemaRef> {
        Some(schema::text(MetaSchema {
            example: Some(schema::etag_example()),
            ..MetaSchema::new("string")
        }))
    }

    async fn from_request(
        request: &'a Request,
        _: &mut RequestBody,
        _: ExtractParamOptions<()>,
    ) -> poem::Result<Self> {
        Ok(Self(request.headers()))
    }
}

impl IfNoneMatch<'_> {
    /// Returns whether the request has no such header.
    pub(super) fn is_empty(&self) -> bool {
        !self.0.contains_key(header::IF_NONE_MATCH)
    }

    /// Returns whether the client's copy is current. `etag` includes its quotes.
    pub(super) fn matches(&self, etag: &[u8]) -> bool {
        none_match(self.0, etag)
    }
}

/// Returns whether `If-None-Match` lists `etag` (with its quotes) or contains `*`. Uses the weak
/// comparison of RFC 9110.
pub(super) fn none_match(headers: &HeaderMap, etag: &[u8]) -> bool {
    // Our ETags contain no comma.
    headers
        .get_all(header::IF_NONE_MATCH)
        .iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .any(|tag| {
            let tag = tag.trim_ascii();
            tag == b"*" || tag.strip_prefix(b"W/").unwrap_or(tag) == etag
        })
}

#[cfg(test)]
mod tests {
    use poem::http::HeaderValue;

    use super::*;

    #[test]
    fn if_none_match_takes_lists_weak_tags_and_the_star() {
        for (values, matches) in [
            (&["\"v1\""][..], true),
            (&["W/\"v1\""], true),
            (&["\"v0\", \"v1\""], true),
            (&["\"v0\",W/\"v1\" ,\"v2\""], true),
            (&["\"v0\"", "\"v1\""], true),
            (&["*"], true),
            (&[], false),
            (&["\"v0\""], false),
            (&["v1"], false),
            (&["\"v11\""], false),
            (&[""], false),
        ] {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(header::IF_NONE_MATCH, HeaderValue::from_static(value));
            }
            assert_eq!(none_match(&headers, b"\"v1\""), matches, "{values:?}");
        }
    }
}

//! Request parameters, each with its schema in the OpenAPI document.
//!
//! Not poem-openapi's own extractors: those need its router for each request, and its pattern
//! validator compiles its regular expression for each request.

use percent_encoding::percent_decode_str;
use poem::{
    Request, RequestBody,
    http::{HeaderMap, header},
};
use poem_openapi::{
    ApiExtractor, ApiExtractorType, ExtractParamOptions,
    registry::{MetaParamIn, MetaSchema, MetaSchemaRef},
};
use serde_json::json;
use shared::{
    order::{Field, Order, OrderUid, Rule, Text},
    storage::Position,
};

use super::{cursor, problem::Problem, schema};
use crate::lookup::Freshness;

/// Page size if the client sets no limit.
const DEFAULT_LIMIT: u32 = 20;
/// Maximum page size.
const MAX_LIMIT: u32 = 100;

/// Prefix of the path of an order.
pub(super) const ORDER_PREFIX: &str = "/order/";

/// The order uid in the path.
pub(super) struct PathUid(pub(super) OrderUid);

impl<'a> ApiExtractor<'a> for PathUid {
    const TYPES: &'static [ApiExtractorType] = &[ApiExtractorType::Parameter];
    const PARAM_IS_REQUIRED: bool = true;
    type ParamType = ();
    type ParamRawType = ();

    fn param_in() -> Option<MetaParamIn> {
        Some(MetaParamIn::Path)
    }

    fn param_schema_ref() -> Option<MetaSchemaRef> {
        Some(order_field("order_uid"))
    }

    async fn from_request(
        request: &'a Request,
        _: &mut RequestBody,
        _: ExtractParamOptions<()>,
    ) -> poem::Result<Self> {
        let rest = request.uri().path().strip_prefix(ORDER_PREFIX);
        let segment = rest.and_then(|rest| rest.split('/').next());
        Ok(Self(segment.and_then(uid).ok_or(Problem::MalformedUid)?))
    }
}

/// Parses a path segment. A uid needs no escapes, so most segments parse without decoding.
fn uid(segment: &str) -> Option<OrderUid> {
    OrderUid::parse(segment).ok().or_else(|| {
        let decoded = percent_decode_str(segment).decode_utf8().ok()?;
        OrderUid::parse(&decoded).ok()
    })
}

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
        Some(schema::text(MetaSchema::new("string")))
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

/// A query parameter.
pub(super) struct Query<T>(pub(super) T);

/// A value that a query parameter can have.
pub(super) trait QueryParam: Sized {
    /// The schema in the OpenAPI document.
    fn schema() -> MetaSchemaRef;

    /// Parses the value; returns the default if the parameter is absent.
    fn parse(value: Option<&str>) -> Result<Self, Problem>;
}

impl<'a, T: QueryParam + Send> ApiExtractor<'a> for Query<T> {
    const TYPES: &'static [ApiExtractorType] = &[ApiExtractorType::Parameter];
    type ParamType = ();
    type ParamRawType = ();

    fn param_in() -> Option<MetaParamIn> {
        Some(MetaParamIn::Query)
    }

    fn param_schema_ref() -> Option<MetaSchemaRef> {
        Some(T::schema())
    }

    async fn from_request(
        request: &'a Request,
        _: &mut RequestBody,
        of: ExtractParamOptions<()>,
    ) -> poem::Result<Self> {
        if request.uri().query().is_none() {
            return Ok(Self(T::parse(None)?));
        }
        let pairs: Vec<(String, String)> = request.params().map_err(|_| {
            Problem::BadRequest("The query is not form-encoded; write name=value&name=value.")
        })?;
        let value = pairs
            .iter()
            .find(|(name, _)| name == of.name)
            .map(|(_, value)| value.as_str());
        Ok(Self(T::parse(value)?))
    }
}

impl QueryParam for Freshness {
    fn schema() -> MetaSchemaRef {
        schema::text(MetaSchema {
            enum_items: vec![json!("0"), json!("1")],
            default: Some(json!("0")),
            ..MetaSchema::new("string")
        })
    }

    fn parse(value: Option<&str>) -> Result<Self, Problem> {
        match value {
            None | Some("0" | "false") => Ok(Self::Cached),
            Some("1" | "true" | "") => Ok(Self::Current),
            Some(_) => Err(Problem::BadRequest(
                "nocache is not 0 or 1; write nocache=1 or omit it.",
            )),
        }
    }
}

/// Maximum number of orders in a page.
pub(super) struct Limit(pub(super) u32);

impl QueryParam for Limit {
    fn schema() -> MetaSchemaRef {
        schema::text(MetaSchema {
            minimum: Some(1.0),
            maximum: Some(f64::from(MAX_LIMIT)),
            default: Some(json!(DEFAULT_LIMIT)),
            ..MetaSchema::new_with_format("integer", "int32")
        })
    }

    fn parse(value: Option<&str>) -> Result<Self, Problem> {
        let Some(value) = value else {
            return Ok(Self(DEFAULT_LIMIT));
        };
        let limit = value
            .bytes()
            .all(|byte| byte.is_ascii_digit())
            .then(|| value.parse().ok())
            .flatten();
        limit
            .filter(|limit| (1..=MAX_LIMIT).contains(limit))
            .map(Self)
            .ok_or(Problem::InvalidLimit)
    }
}

/// The position after which a page begins.
pub(super) struct Cursor(pub(super) Option<Position>);

impl QueryParam for Cursor {
    fn schema() -> MetaSchemaRef {
        schema::text(MetaSchema::new("string"))
    }

    fn parse(value: Option<&str>) -> Result<Self, Problem> {
        let Some(value) = value else {
            return Ok(Self(None));
        };
        cursor::decode(value)
            .map(|position| Self(Some(position)))
            .ok_or(Problem::InvalidCursor)
    }
}

/// Filter by customer.
pub(super) struct CustomerId(pub(super) Option<String>);

impl QueryParam for CustomerId {
    fn schema() -> MetaSchemaRef {
        order_field("customer_id")
    }

    fn parse(value: Option<&str>) -> Result<Self, Problem> {
        let detail =
            "customer_id is blank, too long or has control characters; write 1 to 256 characters.";
        filter(value, &Text::NAME, detail).map(Self)
    }
}

/// Filter by track number.
pub(super) struct TrackNumber(pub(super) Option<String>);

impl QueryParam for TrackNumber {
    fn schema() -> MetaSchemaRef {
        order_field("track_number")
    }

    fn parse(value: Option<&str>) -> Result<Self, Problem> {
        filter(
            value,
            &Text::CODE,
            "track_number is malformed; write 1 to 64 of A-Z a-z 0-9 _ -.",
        )
        .map(Self)
    }
}

/// Rejects a value that breaks the rule of its field. No order has such a value, and Postgres
/// rejects some of them as query parameters.
fn filter(
    value: Option<&str>,
    rule: &Text,
    detail: &'static str,
) -> Result<Option<String>, Problem> {
    match value {
        Some(value) if !rule.holds(value) => Err(Problem::BadRequest(detail)),
        value => Ok(value.map(str::to_owned)),
    }
}

/// The schema of the order's field `name`, with its limits.
fn order_field(name: &str) -> MetaSchemaRef {
    let is_it = |field: &&Field| field.name == name && matches!(field.rule, Rule::Text(_));
    let found = Order::FIELDS.iter().find(is_it);
    schema::text(match found {
        Some(field) => MetaSchema {
            example: Some(field.example()),
            ..schema::field(field)
        },
        None => MetaSchema::new("string"),
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

    #[test]
    fn a_uid_in_the_path_may_have_escapes() {
        for (segment, text) in [
            ("abc-1", Some("abc-1")),
            ("%61bc%2D1", Some("abc-1")),
            ("%2", None),
            ("%zz", None),
            ("%C3%A4", None),
            ("%ff", None),
            ("a%2Fb", None),
            ("", None),
        ] {
            let parsed = uid(segment);
            assert_eq!(parsed.as_ref().map(OrderUid::as_str), text, "{segment}");
        }
    }

    #[test]
    fn limits_are_enforced() {
        for (value, limit) in [
            (None, Some(20)),
            (Some("1"), Some(1)),
            (Some("100"), Some(100)),
        ] {
            assert_eq!(Limit::parse(value).ok().map(|limit| limit.0), limit);
        }
        for value in ["", "0", "101", "-1", "+5", "1.0", "ten", "99999999999"] {
            assert_eq!(
                Limit::parse(Some(value)).err(),
                Some(Problem::InvalidLimit),
                "{value}"
            );
        }
    }

    #[test]
    fn filters_follow_the_rules_of_their_fields() {
        assert!(CustomerId::parse(Some("a\0b")).is_err() && CustomerId::parse(Some(" ")).is_err());
        assert!(TrackNumber::parse(Some("a b")).is_err() && TrackNumber::parse(Some("")).is_err());
        assert_eq!(
            CustomerId::parse(Some("test"))
                .ok()
                .and_then(|id| id.0)
                .as_deref(),
            Some("test")
        );
    }

    #[test]
    fn nocache_accepts_only_flags() {
        assert_eq!(Freshness::parse(None), Ok(Freshness::Cached));
        assert_eq!(Freshness::parse(Some("1")), Ok(Freshness::Current));
        assert_eq!(Freshness::parse(Some("0")), Ok(Freshness::Cached));
        assert!(Freshness::parse(Some("maybe")).is_err());
    }
}

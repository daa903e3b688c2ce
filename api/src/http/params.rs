//! Request parameters, each with its schema in the OpenAPI document.
//!
//! Not poem-openapi's own extractors: those need its router for each request, and its pattern
//! validator compiles its regular expression for each request.

use chrono::{DateTime, Utc};
use percent_encoding::percent_decode_str;
use poem::{FromRequest, Request, RequestBody};
use poem_openapi::{
    ApiExtractor, ApiExtractorType, ExtractParamOptions,
    registry::{MetaParamIn, MetaSchema, MetaSchemaRef},
};
use serde_json::json;
use shared::{
    order::{Delivery, Field, Order, OrderUid, Rule, Text, parse_time_rounded_up},
    storage::Position,
};

use super::{
    cursor,
    dto::{MAX_LIMIT, ORDER_PREFIX},
    problem::Problem,
    query, schema,
};
use crate::{answer::View, auth::Caller, lookup::Freshness};

/// Page size if the client sets no limit.
const DEFAULT_LIMIT: u32 = 20;

/// What the caller may see, as its key says.
impl<'a> FromRequest<'a> for View {
    async fn from_request(request: &'a Request, _: &mut RequestBody) -> poem::Result<Self> {
        Ok(Self::of(request.extensions().get::<Caller>()))
    }
}

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
        let query = request.uri().query().unwrap_or_default();
        for pair in query::pairs(query) {
            let (name, value) = pair.map_err(Problem::from)?;
            if name == of.name {
                return Ok(Self(T::parse(Some(&value))?));
            }
        }
        Ok(Self(T::parse(None)?))
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
            None | Some("0") => Ok(Self::Cached),
            Some("1") => Ok(Self::Current),
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
        schema::text(schema::cursor())
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

/// Filter by phone number.
pub(super) struct Phone(pub(super) Option<String>);

impl QueryParam for Phone {
    fn schema() -> MetaSchemaRef {
        order_field("phone")
    }

    fn parse(value: Option<&str>) -> Result<Self, Problem> {
        let detail = "phone is not an E.164 number; write + as %2B: phone=%2B9720000000.";
        filter(value, &Text::PHONE, detail).map(Self)
    }
}

/// Filter by e-mail address.
pub(super) struct Email(pub(super) Option<String>);

impl QueryParam for Email {
    fn schema() -> MetaSchemaRef {
        order_field("email")
    }

    fn parse(value: Option<&str>) -> Result<Self, Problem> {
        let detail = "email is not an e-mail address; write NAME@DOMAIN, and a + in it as %2B.";
        filter(value, &Text::EMAIL, detail).map(Self)
    }
}

/// Start of the period in which orders were first stored.
pub(super) struct CreatedFrom(Option<DateTime<Utc>>);

/// End of the period in which orders were first stored.
pub(super) struct CreatedTo(Option<DateTime<Utc>>);

impl QueryParam for CreatedFrom {
    fn schema() -> MetaSchemaRef {
        time_schema()
    }

    fn parse(value: Option<&str>) -> Result<Self, Problem> {
        let detail = "created_from is not an RFC 3339 time; write 2026-01-31T00:00:00Z, \
                      and the + of an offset as %2B.";
        time(value, detail).map(Self)
    }
}

impl QueryParam for CreatedTo {
    fn schema() -> MetaSchemaRef {
        time_schema()
    }

    fn parse(value: Option<&str>) -> Result<Self, Problem> {
        let detail = "created_to is not an RFC 3339 time; write 2026-01-31T00:00:00Z, \
                      and the + of an offset as %2B.";
        time(value, detail).map(Self)
    }
}

/// Returns the start and the end of a period.
pub(super) fn period(
    CreatedFrom(from): CreatedFrom,
    CreatedTo(to): CreatedTo,
) -> Result<[Option<DateTime<Utc>>; 2], Problem> {
    match (from, to) {
        (Some(from), Some(to)) if from > to => Err(Problem::BadRequest(
            "created_from is later than created_to; the period begins with created_from.",
        )),
        period => Ok(period.into()),
    }
}

fn time_schema() -> MetaSchemaRef {
    schema::text(MetaSchema {
        example: Some(json!("2026-01-31T00:00:00Z")),
        ..MetaSchema::new_with_format("string", "date-time")
    })
}

fn time(value: Option<&str>, detail: &'static str) -> Result<Option<DateTime<Utc>>, Problem> {
    let Some(value) = value else {
        return Ok(None);
    };
    let time = parse_time_rounded_up(value);
    time.map(Some).ok_or(Problem::BadRequest(detail))
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

/// The schema of the field `name` of the order or its delivery, with its limits.
fn order_field(name: &str) -> MetaSchemaRef {
    let is_it = |field: &&Field| field.name == name && matches!(field.rule, Rule::Text(_));
    let mut fields = Order::FIELDS.iter().chain(Delivery::FIELDS);
    let found = fields.find(is_it);
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
    use super::*;

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
        assert!(Email::parse(Some("a")).is_err() && Email::parse(Some("a@example.com")).is_ok());
        for (phone, is_valid) in [("+9720000000", true), (" 9720000000", false), ("+1", false)] {
            assert_eq!(Phone::parse(Some(phone)).is_ok(), is_valid, "{phone}");
        }
        assert_eq!(
            CustomerId::parse(Some("test"))
                .ok()
                .and_then(|id| id.0)
                .as_deref(),
            Some("test")
        );
    }

    #[test]
    fn periods_have_microseconds_and_do_not_end_before_they_begin() {
        let from = |text| CreatedFrom::parse(Some(text));
        let to = |text| CreatedTo::parse(Some(text));
        for text in [
            "",
            "2026",
            "2026-01-31",
            "2026-01-31T00:00:00",
            "2026-01-31T00:00:00 01:00",
        ] {
            assert!(from(text).is_err() && to(text).is_err(), "{text}");
        }
        let micros = |text| {
            from(text)
                .ok()
                .and_then(|time| time.0)
                .map(|time| time.timestamp_micros())
        };
        assert_eq!(micros("1970-01-01T01:00:00.000001+01:00"), Some(1));
        assert_eq!(micros("1970-01-01T00:00:00.000001001Z"), Some(2));
        let day = |text| (from(text).ok().unwrap(), to(text).ok().unwrap());
        let ((from, to), (later, _)) = (day("2026-01-31T00:00:00Z"), day("2026-02-01T00:00:00Z"));
        assert!(matches!(period(from, to), Ok([Some(from), Some(to)]) if from == to));
        assert!(period(later, CreatedTo::parse(None).ok().unwrap()).is_ok());
        let ((_, to), (later, _)) = (day("2026-01-31T00:00:00Z"), day("2026-02-01T00:00:00Z"));
        assert!(period(later, to).is_err());
    }

    #[test]
    fn nocache_accepts_only_flags() {
        assert_eq!(Freshness::parse(None), Ok(Freshness::Cached));
        assert_eq!(Freshness::parse(Some("1")), Ok(Freshness::Current));
        assert_eq!(Freshness::parse(Some("0")), Ok(Freshness::Cached));
        for value in ["maybe", "true", "false", ""] {
            assert!(Freshness::parse(Some(value)).is_err(), "{value}");
        }
    }
}

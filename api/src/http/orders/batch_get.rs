//! `POST /orders/batch-get`.

use std::{collections::HashSet, io};

use bytes::Bytes;
use futures_util::stream;
use poem::{
    Body, IntoResponse, Request, RequestBody, Response,
    http::{HeaderValue, header},
};
use poem_openapi::{
    ApiExtractor, ApiExtractorType, ApiResponse, ExtractParamOptions, OpenApi,
    registry::{MetaMediaType, MetaRequest, MetaResponse, MetaResponses, Registry},
};
use serde::Deserialize;
use shared::order::OrderUid;

use super::{
    super::{
        disclosed::Disclosed,
        dto::MAX_UIDS,
        problem::Problem,
        route::{Operation, Resources},
        schema,
    },
    JSON, Tag, cache_control_header,
};
use crate::{
    answer::{Text, View, Visible},
    lookup::Lookup,
};

/// The operation.
pub(in super::super) struct BatchGetOrders {
    lookup: Lookup,
}

impl Operation for BatchGetOrders {
    fn new(resources: &Resources) -> Self {
        Self {
            lookup: resources.lookup.clone(),
        }
    }
}

#[OpenApi]
impl BatchGetOrders {
    /// Get many orders
    ///
    /// Returns up to 100 orders in the order of the request. Each is the same document that
    /// `getOrder` returns. `missing` lists the uids of no order, `erased` those of erased orders. A
    /// uid that the request repeats counts once, at its first place. A request counts as 10 in the
    /// rate limit. A caller that is bound to a customer gets only orders of that customer; the
    /// others, and all erased orders, are missing.
    #[oai(
        path = "/orders/batch-get",
        method = "post",
        operation_id = "batchGetOrders",
        tag = "Tag::Orders"
    )]
    async fn batch_get_orders(&self, view: View, OrderUids(uids): OrderUids) -> BatchResponse {
        match self.lookup.show_many(&uids, &view).await {
            Ok(answers) => BatchResponse::found(uids, answers),
            Err(error) => BatchResponse::Problem(error.into()),
        }
    }
}

/// The uids in the body, each once.
pub(super) struct OrderUids(Vec<OrderUid>);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RequestDocument {
    order_uids: Vec<String>,
}

impl<'a> ApiExtractor<'a> for OrderUids {
    const TYPES: &'static [ApiExtractorType] = &[ApiExtractorType::RequestObject];
    type ParamType = ();
    type ParamRawType = ();

    fn register(registry: &mut Registry) {
        schema::register_batch_request(registry);
    }

    fn request_meta() -> Option<MetaRequest> {
        Some(MetaRequest {
            description: Some("The uids of the orders."),
            content: vec![MetaMediaType {
                content_type: "application/json",
                schema: schema::batch_request(),
            }],
            required: true,
        })
    }

    async fn from_request(
        request: &'a Request,
        body: &mut RequestBody,
        _: ExtractParamOptions<()>,
    ) -> poem::Result<Self> {
        if !request.content_type().is_some_and(is_json) {
            return Err(Problem::UnsupportedMediaType.into());
        }
        let body = body.take()?.into_bytes().await?;
        let uids =
            parse(&body).map_err(|invalid| poem::Error::from_response(invalid.response()))?;
        Ok(Self(uids))
    }
}

/// Returns whether a `Content-Type` is JSON, with any parameters.
fn is_json(content_type: &str) -> bool {
    let media_type = content_type.split(';').next().unwrap_or_default();
    media_type.trim().eq_ignore_ascii_case("application/json")
}

/// A body that is no valid request. Its texts repeat no part of the body.
#[derive(Debug, PartialEq, Eq)]
enum InvalidBody {
    NotTheDocument,
    /// How many uids it has.
    Count(usize),
    /// The first text that is no uid.
    Uid(usize),
}

impl InvalidBody {
    fn response(self) -> Response {
        match self {
            Self::NotTheDocument => Problem::BadRequest(
                "The body is not the documented object; write {\"order_uids\":[\"UID\"]} and \
                 nothing else.",
            )
            .into_response(),
            Self::Count(count) => Problem::BadRequest("").response_with(format!(
                "order_uids has {count} elements; write 1 to {MAX_UIDS}."
            )),
            Self::Uid(index) => Problem::MalformedUid.response_with(format!(
                "order_uids[{index}] is not an order uid; write 1 to 64 of A-Z a-z 0-9 _ -."
            )),
        }
    }
}

/// Parses a body. Returns each uid once, in the order of the first occurrences.
fn parse(body: &[u8]) -> Result<Vec<OrderUid>, InvalidBody> {
    // serde also accepts an array of the values of a struct.
    let is_object = body.trim_ascii_start().starts_with(b"{");
    let document: RequestDocument = is_object
        .then(|| serde_json::from_slice(body).ok())
        .flatten()
        .ok_or(InvalidBody::NotTheDocument)?;
    let count = document.order_uids.len();
    if !(1..=MAX_UIDS).contains(&count) {
        return Err(InvalidBody::Count(count));
    }
    let mut seen = HashSet::with_capacity(count);
    let mut uids = Vec::with_capacity(count);
    for (index, text) in document.order_uids.iter().enumerate() {
        let uid = OrderUid::parse(text).map_err(|_| InvalidBody::Uid(index))?;
        if seen.insert(uid) {
            uids.push(uid);
        }
    }
    Ok(uids)
}

/// Response to a batch.
pub(super) enum BatchResponse {
    Found {
        orders: Vec<Text>,
        /// The uids of `orders`, for the access log.
        uids: Vec<OrderUid>,
        missing: Vec<OrderUid>,
        erased: Vec<OrderUid>,
    },
    Problem(Problem),
}

impl BatchResponse {
    fn found(uids: Vec<OrderUid>, answers: Vec<Visible>) -> Self {
        let (mut orders, mut found) = (Vec::new(), Vec::new());
        let (mut missing, mut erased) = (Vec::new(), Vec::new());
        for (uid, answer) in uids.into_iter().zip(answers) {
            match answer {
                Visible::Order(order) => {
                    orders.push(order.into_text());
                    found.push(uid);
                }
                Visible::Unknown => missing.push(uid),
                Visible::Erased(_) => erased.push(uid),
            }
        }
        Self::Found {
            orders,
            uids: found,
            missing,
            erased,
        }
    }
}

/// The parts of the JSON text. The documents are the caches' own bytes, not copies, except for what
/// is masked.
fn parts(
    orders: impl ExactSizeIterator<Item = Text>,
    missing: &[OrderUid],
    erased: &[OrderUid],
) -> Vec<Bytes> {
    let mut parts = Vec::with_capacity(4 * orders.len() + 2);
    parts.push(Bytes::from_static(b"{\"orders\":["));
    for (index, order) in orders.enumerate() {
        if index > 0 {
            parts.push(Bytes::from_static(b","));
        }
        parts.extend(order.into_parts());
    }
    // A uid has no character that JSON escapes.
    let list = |uids: &[OrderUid]| {
        let quoted: Vec<String> = uids.iter().map(|uid| format!("\"{uid}\"")).collect();
        quoted.join(",")
    };
    parts.push(Bytes::from(format!(
        "],\"missing\":[{}],\"erased\":[{}]}}",
        list(missing),
        list(erased)
    )));
    parts
}

impl IntoResponse for BatchResponse {
    fn into_response(self) -> Response {
        let (parts, uids) = match self {
            Self::Found {
                orders,
                uids,
                missing,
                erased,
            } => (parts(orders.into_iter(), &missing, &erased), uids),
            Self::Problem(problem) => return problem.into_response(),
        };
        let length: usize = parts.iter().map(Bytes::len).sum();
        let parts = stream::iter(parts.into_iter().map(Ok::<_, io::Error>));
        let mut response = Response::default();
        response.set_body(Body::from_bytes_stream(parts));
        let disclosed = Disclosed::Orders(uids.into());
        response.extensions_mut().insert(disclosed);
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, JSON);
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
        response
    }
}

impl ApiResponse for BatchResponse {
    fn meta() -> MetaResponses {
        let found = MetaResponse {
            description: "The orders that exist, and the uids of the others.",
            status: Some(200),
            status_range: None,
            content: vec![MetaMediaType {
                content_type: "application/json",
                schema: schema::batch(),
            }],
            headers: vec![cache_control_header()],
        };
        MetaResponses {
            responses: vec![
                found,
                schema::problem(
                    400,
                    "The body or the query is malformed (`bad_request`), a uid of the body is \
                     (`malformed_uid`), or the query has a parameter: this operation has none \
                     (`unknown_parameter`).",
                ),
                schema::problem(
                    503,
                    "No tier answers in time for one of the orders (`unavailable`, `timeout`).",
                ),
            ],
        }
    }

    fn register(registry: &mut Registry) {
        schema::register_batch(registry);
    }
}

#[cfg(test)]
mod tests {
    use shared::order::{DocumentVersion, Version};

    use super::*;
    use crate::answer::Answer;

    fn texts(body: &str) -> Result<Vec<String>, InvalidBody> {
        parse(body.as_bytes()).map(|uids| uids.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn each_uid_counts_once_in_the_order_of_the_request() {
        for (body, uids) in [
            (r#"{"order_uids":["b","a"]}"#, &["b", "a"][..]),
            (r#" {"order_uids": ["b","a","b","a"]} "#, &["b", "a"]),
        ] {
            assert_eq!(texts(body).unwrap(), uids, "{body}");
        }
    }

    #[test]
    fn an_invalid_body_has_its_reason() {
        for body in [
            "",
            "[]",
            "null",
            "{}",
            r#"["a"]"#,
            r#"[["a"]]"#,
            r#"{"order_uids":"a"}"#,
            r#"{"order_uids":null}"#,
            r#"{"order_uids":[1]}"#,
            r#"{"order_uids":["a"],"limit":1}"#,
            r#"{"order_uids":["a"],"order_uids":["b"]}"#,
            r#"{"order_uids":["a"]"#,
            r#"{"order_uids":["a"]} x"#,
        ] {
            assert_eq!(texts(body), Err(InvalidBody::NotTheDocument), "{body}");
        }
        let many = |count: usize| {
            let uids: Vec<String> = (0..count).map(|n| format!("\"u{n}\"")).collect();
            format!("{{\"order_uids\":[{}]}}", uids.join(","))
        };
        assert_eq!(texts(&many(100)).unwrap().len(), 100);
        for count in [0, 101] {
            assert_eq!(texts(&many(count)), Err(InvalidBody::Count(count)));
        }
        assert_eq!(
            texts(r#"{"order_uids":["a","b","a b","c d"]}"#),
            Err(InvalidBody::Uid(2))
        );
    }

    #[test]
    fn json_may_have_parameters() {
        for (content_type, json) in [
            ("application/json", true),
            ("Application/JSON; charset=utf-8", true),
            ("application/json;charset=utf-8", true),
            ("application/problem+json", false),
            ("text/plain", false),
            ("", false),
        ] {
            assert_eq!(is_json(content_type), json, "{content_type}");
        }
    }

    #[test]
    fn the_documents_are_written_unchanged() {
        let uid = |text| OrderUid::parse(text).unwrap();
        let text = |parts: Vec<Bytes>| String::from_utf8(parts.concat()).unwrap();
        let order = |json: &str| {
            let version = DocumentVersion::current(Version::new(1, 2, 3));
            let answer = Answer::new(version, Some(json.as_bytes()));
            match View::EVERYTHING.show(answer) {
                Ok(Visible::Order(order)) => order.into_text(),
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(
            text(parts([].into_iter(), &[], &[])),
            r#"{"orders":[],"missing":[],"erased":[]}"#
        );
        let orders = [order(r#"{"a": 1}"#), order(r#"{"b":2}"#)].into_iter();
        assert_eq!(
            text(parts(orders, &[uid("x"), uid("y")], &[uid("z")])),
            r#"{"orders":[{"a": 1},{"b":2}],"missing":["x","y"],"erased":["z"]}"#
        );
    }
}

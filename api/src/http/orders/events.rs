//! `GET /order/{order_uid}/events` and `GET /orders/events`.

use std::io;

use futures_util::stream;
use poem::{
    Body, IntoResponse, Request, RequestBody, Response,
    http::{HeaderName, HeaderValue, header},
};
use poem_openapi::{
    ApiExtractor, ApiExtractorType, ApiResponse, ExtractParamOptions, OpenApi,
    registry::{
        MetaMediaType, MetaParamIn, MetaResponse, MetaResponses, MetaSchema, MetaSchemaRef,
        Registry,
    },
};
use serde_json::json;
use shared::{order::Version, runtime::transport::EndsWithClient};

use super::{
    super::{
        disclosed::Disclosed,
        params::PathUid,
        problem::Problem,
        route::{Operation, Resources},
        schema,
    },
    Tag, set_stream_headers,
};
use crate::{
    answer::{Edition, View},
    events::{Events, Refusal, Watcher},
};

const EVENT_STREAM: HeaderValue = HeaderValue::from_static("text/event-stream; charset=utf-8");

static LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// The operation on one order.
pub(in super::super) struct WatchOrder {
    events: Option<Events>,
}

/// The operation on all orders.
pub(in super::super) struct WatchOrders {
    events: Option<Events>,
}

impl Operation for WatchOrder {
    fn new(resources: &Resources) -> Self {
        Self {
            events: resources.events.clone(),
        }
    }
}

impl Operation for WatchOrders {
    fn new(resources: &Resources) -> Self {
        Self {
            events: resources.events.clone(),
        }
    }
}

#[OpenApi]
impl WatchOrder {
    /// Watch an order
    ///
    /// A stream of server-sent events: `order` with the current document, then one for each newer
    /// document, and `erased` when the order is erased. If the order changes faster than the client
    /// reads, only the newest document is sent. `reset` states that changes may be late; the stream
    /// catches up by itself. A comment follows every 15 s. The stream has no end; reconnect when
    /// the connection closes.
    ///
    /// Documents are masked, and orders hidden, as by `getOrder`. The stream ends if the order
    /// becomes one of another customer than the caller is bound to.
    #[oai(
        path = "/order/:order_uid/events",
        method = "get",
        operation_id = "watchOrder",
        tag = "Tag::Orders"
    )]
    async fn watch_order(
        &self,
        /// Identifies the order.
        #[oai(name = "order_uid")]
        PathUid(uid): PathUid,
        /// The `id` of the last event that the client received. If it is the current version of the
        /// order, the stream begins without a document.
        #[oai(name = "Last-Event-ID")]
        known: LastEventId,
        view: View,
    ) -> OrderEvents {
        let Some(events) = &self.events else {
            return OrderEvents(Err(Problem::EventsDisabled));
        };
        let watcher = events.watch_order(uid, known.edition(), &view).await;
        OrderEvents(watcher.map_err(Problem::from))
    }
}

#[OpenApi]
impl WatchOrders {
    /// Watch all orders
    ///
    /// A stream of server-sent events: `change` with uid and version whenever an order changes or
    /// is erased, without personal data. `reset` states that changes may have been missed: read
    /// again what you show. A comment follows every 15 s. The stream has no end; reconnect when the
    /// connection closes. A caller that is bound to a customer gets 403: a change does not say
    /// whose order it is.
    #[oai(
        path = "/orders/events",
        method = "get",
        operation_id = "watchOrders",
        tag = "Tag::Orders"
    )]
    async fn watch_orders(
        &self,
        /// The `id` of the last event that the client received. The stream then begins with
        /// `reset`, because changes since then are not known.
        #[oai(name = "Last-Event-ID")]
        known: LastEventId,
        view: View,
    ) -> OrdersEvents {
        let Some(events) = &self.events else {
            return OrdersEvents(Err(Problem::EventsDisabled));
        };
        let watcher = events.watch_orders(known.0.is_some(), &view);
        OrdersEvents(watcher.map_err(Problem::from))
    }
}

/// The `Last-Event-ID` header.
struct LastEventId(Option<HeaderValue>);

impl LastEventId {
    /// The document of the last event; `None` for any other text.
    fn edition(&self) -> Option<Edition> {
        self.0.as_ref()?.to_str().ok()?.parse().ok()
    }
}

impl<'a> ApiExtractor<'a> for LastEventId {
    const TYPES: &'static [ApiExtractorType] = &[ApiExtractorType::Parameter];
    type ParamType = ();
    type ParamRawType = ();

    fn param_in() -> Option<MetaParamIn> {
        Some(MetaParamIn::Header)
    }

    fn param_schema_ref() -> Option<MetaSchemaRef> {
        Some(schema::text(MetaSchema {
            example: Some(json!(example_version())),
            ..MetaSchema::new("string")
        }))
    }

    async fn from_request(
        request: &'a Request,
        _: &mut RequestBody,
        _: ExtractParamOptions<()>,
    ) -> poem::Result<Self> {
        let id = request.headers().get(&LAST_EVENT_ID);
        // A client sends an empty id if it has none.
        Ok(Self(id.filter(|id| !id.is_empty()).cloned()))
    }
}

fn example_version() -> String {
    Version::new(1_637_907_727_000, 42, 5).to_string()
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Unknown => Self::OrderNotFound,
            Refusal::Erased => Self::OrderErased,
            Refusal::Bound => Self::BoundToCustomer,
            Refusal::TooMany => Self::TooManyStreams,
            Refusal::Closed => Self::Unavailable,
            Refusal::Lookup(error) => error.into(),
        }
    }
}

/// Response of `watchOrder`.
pub(super) struct OrderEvents(Result<Watcher, Problem>);

/// Response of `watchOrders`.
pub(super) struct OrdersEvents(Result<Watcher, Problem>);

fn respond(watcher: Result<Watcher, Problem>) -> Response {
    let watcher = match watcher {
        Ok(watcher) => watcher,
        Err(problem) => return problem.into_response(),
    };
    let orders = watcher.orders_sent();
    let texts = stream::unfold(watcher, |mut watcher| async move {
        let text = watcher.next().await?;
        Some((Ok::<_, io::Error>(text), watcher))
    });
    let mut response = Response::builder().body(Body::from_bytes_stream(texts));
    response.extensions_mut().insert(EndsWithClient);
    response.extensions_mut().insert(Disclosed::Stream(orders));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, EVENT_STREAM);
    set_stream_headers(headers);
    response
}

impl IntoResponse for OrderEvents {
    fn into_response(self) -> Response {
        respond(self.0)
    }
}

impl IntoResponse for OrdersEvents {
    fn into_response(self) -> Response {
        respond(self.0)
    }
}

/// Describes a stream, with an example of its text.
fn stream_response(description: &'static str, example: String) -> MetaResponse {
    let schema = MetaSchema {
        example: Some(example.into()),
        ..MetaSchema::new("string")
    };
    MetaResponse {
        description,
        status: Some(200),
        status_range: None,
        content: vec![MetaMediaType {
            content_type: "text/event-stream",
            schema: MetaSchemaRef::Inline(Box::new(schema)),
        }],
        headers: vec![schema::header(
            "Cache-Control",
            "No copy of a stream may be kept.",
            MetaSchema::new("string"),
        )],
    }
}

impl ApiResponse for OrderEvents {
    fn meta() -> MetaResponses {
        let version = example_version();
        let example = format!(
            "event: order\nid: {version}\ndata: {{\"order_uid\":\"b563feb7b2b84b6test\"}}\n\n"
        );
        MetaResponses {
            responses: vec![
                stream_response("The document of the order, and each newer one.", example),
                schema::problem(
                    400,
                    "The uid or the query is malformed (`malformed_uid`, `bad_request`), or the \
                     query has a parameter: this operation has none (`unknown_parameter`).",
                ),
                schema::problem(404, "No order has this uid (`order_not_found`)."),
                schema::problem(410, "The order was erased (`order_erased`)."),
                schema::problem(
                    503,
                    "No tier answers in time (`unavailable`, `timeout`), the replica has too many \
                     streams (`too_many_streams`), or it receives no announcements \
                     (`events_disabled`).",
                ),
            ],
        }
    }

    fn register(_: &mut Registry) {}
}

impl ApiResponse for OrdersEvents {
    fn meta() -> MetaResponses {
        let version = example_version();
        let example = format!(
            "event: change\nid: {version}\n\
             data: {{\"order_uid\":\"b563feb7b2b84b6test\",\"version\":\"{version}\"}}\n\n"
        );
        MetaResponses {
            responses: vec![
                stream_response("Changes of all orders.", example),
                schema::problem(
                    403,
                    "The caller lacks the scope `orders:list` (`forbidden`), or is bound to a \
                     customer (`bound_to_customer`).",
                ),
                schema::problem(
                    503,
                    "The replica has too many streams (`too_many_streams`), or it receives no \
                     announcements (`events_disabled`).",
                ),
            ],
        }
    }

    fn register(_: &mut Registry) {}
}

//! The operations on orders: endpoints for poem-openapi and their description in the OpenAPI
//! document.

mod batch_get;
mod events;
mod export;
mod get;
mod list;

use poem::http::{HeaderMap, HeaderName, HeaderValue, header};
use poem_openapi::{
    Tags,
    registry::{MetaHeader, MetaSchema},
};

use super::schema;

pub(super) use batch_get::BatchGetOrders;
pub(super) use events::{WatchOrder, WatchOrders};
pub(super) use export::ExportOrders;
pub(super) use get::{GetOrder, X_SOURCE};
pub(super) use list::ListOrders;

const JSON: HeaderValue = HeaderValue::from_static("application/json");

#[derive(Tags)]
enum Tag {
    /// Read, list, export and watch orders.
    Orders,
}

/// Sets what the headers of a streamed response have in common. Nothing may store it: it holds
/// personal data, or ends only with its client. nginx passes each piece at once; otherwise it would
/// hold events back, and read ahead of a slow client, to disk.
fn set_stream_headers(headers: &mut HeaderMap) {
    static X_ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(&X_ACCEL_BUFFERING, HeaderValue::from_static("no"));
}

fn cache_control_header() -> MetaHeader {
    schema::header(
        "Cache-Control",
        "Nothing may store a copy, unless the operator sets `API_CACHE_CONTROL`.",
        MetaSchema::new("string"),
    )
}

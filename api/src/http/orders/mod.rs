//! The operations on orders: endpoints for poem-openapi and their description in the OpenAPI
//! document.

mod batch_get;
mod events;
mod export;
mod get;
mod list;

use poem::http::HeaderValue;
use poem_openapi::{
    Tags,
    registry::{MetaHeader, MetaSchema},
};

use super::schema;

pub(super) use batch_get::BatchGetOrders;
pub(super) use events::{WatchOrder, WatchOrders};
pub(super) use export::ExportOrders;
pub(super) use get::GetOrder;
pub(super) use list::ListOrders;

/// Only the client may store a copy, and must revalidate it before each use: an order holds
/// personal data and may change at any time.
const CACHE_CONTROL: HeaderValue = HeaderValue::from_static("private, no-cache");
const JSON: HeaderValue = HeaderValue::from_static("application/json");

#[derive(Tags)]
enum Tag {
    /// Read, list, export and watch orders.
    Orders,
}

fn cache_control_header() -> MetaHeader {
    schema::header(
        "Cache-Control",
        "A client may keep a copy, but must revalidate it before each use.",
        MetaSchema::new("string"),
    )
}

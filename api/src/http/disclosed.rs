//! The orders of a response, which handlers report to the service for its records.

use std::sync::{Arc, atomic::AtomicU64};

use shared::order::OrderUid;

/// The orders of a response, in its extensions. A response to a request for one order needs none.
#[derive(Clone)]
pub(super) enum Disclosed {
    /// These orders.
    Orders(Arc<[OrderUid]>),
    /// A stream, which counts the orders that it sends.
    Stream(Arc<AtomicU64>),
}

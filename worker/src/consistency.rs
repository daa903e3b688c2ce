//! Compares what Postgres and Redis hold of an order.
//!
//! The system runs during a comparison, so a first difference may be a change that Redis does not
//! have yet. [`confirm`] is the one rule that separates such a moment from a fault. Two callers use
//! it: `worker verify` for all orders or a share of them, and each worker for a few at random.
//!
//! | module | responsibility |
//! |---|---|
//! | [`difference`] | compares one row with one entry; pure |
//! | [`confirm`] | decides whether a difference is a fault; pure |
//! | [`tiers`] | reads Postgres and Redis in the order that the rule needs |
//! | [`sampling`] | the comparison that each worker runs in the background |

pub mod confirm;
pub mod difference;
pub mod sampling;
pub mod tiers;

//! What an order *is*: its shape, its rules, its one JSON form, its version and the reasons to refuse it.
//!
//! Pure: no I/O, no async, no clock.
//!
//! | module | responsibility |
//! |---|---|
//! | [`model`](Order) | the four structs, each field with its type, rule and documentation, once |
//! | `entity` | the macro that makes struct, reader, writer, checks and schema of them |
//! | [`rule`](Rule) | the rules a field can have |
//! | `registry` | the currencies and language subtags that exist |
//! | `decode` | bytes to [`Order`], or a [`Refusal`] |
//! | `foreign` | the values of fields that we do not know |
//! | `timestamp` | RFC 3339 in and out |
//! | `version`, `uid`, `revision`, `refusal` | [`Version`], [`OrderUid`], [`Revision`], [`Refusal`] |
//! | `sample` (feature `sample`) | valid and invalid orders for the producer and for tests |

mod decode;
mod entity;
mod foreign;
mod model;
mod refusal;
mod registry;
mod revision;
mod rule;
#[cfg(feature = "sample")]
pub mod sample;
#[cfg(test)]
mod tests;
mod timestamp;
mod uid;
mod version;

use std::time::Duration;

pub use decode::{Decoded, ForeignFields, decode};
pub use model::{Delivery, Item, Order, Payment};
pub use refusal::{Reason, Refusal};
pub use revision::Revision;
pub use rule::{Entity, Field, List, Range, Rule, Text, Years};
pub use uid::{InvalidUid, OrderUid};
pub use version::{Version, VersionError, parse_replay_version};

/// The longest value of a record that is taken for an order, in bytes.
pub const MAX_VALUE_BYTES: usize = 1 << 20;

/// How far in the future a timestamp that a producer chose may lie: a skewed clock must not freeze an order.
pub const MAX_FUTURE: Duration = Duration::from_secs(5 * 60);

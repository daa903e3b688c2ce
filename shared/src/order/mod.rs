//! The definition of an order: its shape, rules, JSON form, version, and the reasons to reject a
//! record.
//!
//! Pure: no I/O, no async, no clock.
//!
//! | module | responsibility |
//! |---|---|
//! | [`model`](Order) | the four structs: the type, rule and documentation of each field |
//! | `entity` | the macro that generates struct, reader, writer, checks and schema from them |
//! | [`rule`](Rule) | the rules that a field can have |
//! | `registry` | the registered currencies and language subtags |
//! | `field_type` | what the type of a field must be able to do |
//! | `decode`, `decode_state` | bytes to [`Order`], or a [`Rejection`] |
//! | `unknown` | the values of unknown fields |
//! | `timestamp` | RFC 3339 parsing and formatting |
//! | `version`, `uid` | [`Version`], [`OrderUid`] |
//! | `document_version` | [`DocumentVersion`]: version and shape of a document |
//! | `revision`, `rejection` | [`Revision`], [`Rejection`] |
//! | `words` | the rules in words, for people who read a rejection |
//! | `sample` (feature `sample`) | valid and invalid orders for the producer and for tests |

mod decode;
mod decode_state;
mod document_version;
mod entity;
mod field_type;
mod model;
mod registry;
mod rejection;
mod revision;
mod rule;
#[cfg(feature = "sample")]
pub mod sample;
#[cfg(test)]
mod tests;
mod timestamp;
mod uid;
mod unknown;
mod version;
mod words;

use std::time::Duration;

pub use decode::{Decoded, UnknownFields, decode};
pub use document_version::DocumentVersion;
pub use model::{Delivery, Item, Order, Payment, REPRESENTATION};
pub use rejection::{Reason, Rejection};
pub use revision::Revision;
pub use rule::{Entity, Field, List, Range, Relation, Rule, Text, Years};
pub use timestamp::parse_time_rounded_up;
pub use uid::{InvalidUid, OrderUid};
pub use version::{Version, VersionError, parse_replay_version};
pub use words::explain;

/// Maximum length of a record's value in bytes. The worker rejects longer values.
pub const MAX_VALUE_BYTES: usize = 1 << 20;

/// How far in the future a record's timestamp may be. The limit prevents a skewed producer clock
/// from blocking updates of an order.
pub const MAX_FUTURE: Duration = Duration::from_secs(5 * 60);

//! What the api knows about an order.

use bytes::Bytes;
use poem::http::HeaderValue;
use shared::order::{Revision, Version};

/// What is known about an order; cheap to clone.
#[derive(Clone, Debug)]
pub enum Answer {
    /// It exists.
    Order(Document),
    /// It existed, and this version erased it.
    Erased(Version),
    /// Nobody has heard of it.
    Unknown,
}

/// An order as it is answered. Both parts are one block of memory: an answer from a cache that holds many orders finds each of
/// them out of the processor's sight, and waits for every block once.
#[derive(Clone, Debug)]
pub struct Document {
    /// Its version.
    pub version: Version,
    /// The version in double quotes, as a header has it; made once so that no answer has to.
    pub etag: HeaderValue,
    /// The JSON document.
    pub json: Bytes,
}

impl Document {
    /// Bytes of an etag.
    pub const ETAG_WIDTH: usize = Version::WIDTH + 2;

    fn new(version: Version, json: &[u8]) -> Self {
        let etag = format!("\"{version}\"");
        let mut block = Bytes::from([etag.as_bytes(), json].concat());
        let json = block.split_off(etag.len());
        Self {
            version,
            // Quotes, digits and dashes are always fit for a header; an empty one names nothing.
            etag: HeaderValue::from_maybe_shared(block).unwrap_or(HeaderValue::from_static("")),
            json,
        }
    }
}

impl Answer {
    /// The answer that a version with or without document stands for.
    pub fn new(version: Version, document: Option<&[u8]>) -> Self {
        match document {
            Some(json) => Self::Order(Document::new(version, json)),
            None => Self::Erased(version),
        }
    }

    /// The answer that Postgres' row, or the lack of one, stands for.
    pub fn from_row(row: Option<&Revision>) -> Self {
        match row {
            Some(row) => Self::new(row.version, row.document.as_deref()),
            None => Self::Unknown,
        }
    }

    /// The version; none when the order is unknown, so that any version is greater.
    pub fn version(&self) -> Option<Version> {
        match self {
            Self::Order(document) => Some(document.version),
            Self::Erased(version) => Some(*version),
            Self::Unknown => None,
        }
    }
}

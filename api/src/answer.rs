//! The answer of a tier about an order.

use bytes::Bytes;
use poem::http::HeaderValue;
use shared::order::{Revision, Version};

/// State of an order; cheap to clone.
#[derive(Clone, Debug)]
pub enum Answer {
    /// The order exists.
    Order(Document),
    /// The order existed; this version erased it.
    Erased(Version),
    /// There is no such order.
    Unknown,
}

/// A document and its version, ready to send.
///
/// ETag and JSON share one block of memory. In a cache with many orders each block is a cache miss
/// of the processor, so one block means one miss.
#[derive(Clone, Debug)]
pub struct Document {
    /// Version of the order.
    pub version: Version,
    /// The version in double quotes, as the ETag header needs it. Built once, so that no response
    /// has to.
    pub etag: HeaderValue,
    /// The JSON document.
    pub json: Bytes,
}

impl Document {
    /// Length of an ETag in bytes.
    pub const ETAG_WIDTH: usize = Version::WIDTH + 2;

    fn new(version: Version, json: &[u8]) -> Self {
        let etag = format!("\"{version}\"");
        let mut block = Bytes::from([etag.as_bytes(), json].concat());
        let json = block.split_off(etag.len());
        Self {
            version,
            // Quotes, digits and dashes are always valid in a header. An empty ETag would match
            // nothing.
            etag: HeaderValue::from_maybe_shared(block).unwrap_or(HeaderValue::from_static("")),
            json,
        }
    }
}

impl Answer {
    /// Builds the answer for a version. `None` as the document means that the version erased the
    /// order.
    pub fn new(version: Version, document: Option<&[u8]>) -> Self {
        match document {
            Some(json) => Self::Order(Document::new(version, json)),
            None => Self::Erased(version),
        }
    }

    /// Builds the answer for a row of Postgres, or for its absence.
    pub fn from_row(row: Option<&Revision>) -> Self {
        match row {
            Some(row) => Self::new(row.version, row.document.as_deref()),
            None => Self::Unknown,
        }
    }

    /// Version of the answer. `None` if the order is unknown; any version is greater.
    pub fn version(&self) -> Option<Version> {
        match self {
            Self::Order(document) => Some(document.version),
            Self::Erased(version) => Some(*version),
            Self::Unknown => None,
        }
    }
}

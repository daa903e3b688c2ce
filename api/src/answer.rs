//! What the api knows about an order.

use std::sync::Arc;

use bytes::Bytes;
use poem::http::HeaderValue;
use shared::order::{Revision, Version};

/// What is known about an order; cheap to clone.
#[derive(Clone, Debug)]
pub enum Answer {
    /// It exists.
    Order(Arc<Document>),
    /// It existed, and this version erased it.
    Erased(Version),
    /// Nobody has heard of it.
    Unknown,
}

/// An order as it is answered.
#[derive(Debug)]
pub struct Document {
    /// Its version.
    pub version: Version,
    /// The version in double quotes, as a header has it; made once so that no answer has to.
    pub etag: HeaderValue,
    /// The JSON document.
    pub json: Bytes,
}

impl Answer {
    /// The answer that a version with or without document stands for.
    pub fn new(version: Version, document: Option<Bytes>) -> Self {
        match document {
            Some(json) => {
                // Quotes, digits and dashes are always fit for a header; an empty one names nothing.
                let etag = HeaderValue::try_from(["\"", &version.to_string(), "\""].concat())
                    .unwrap_or(HeaderValue::from_static(""));
                Self::Order(Arc::new(Document {
                    version,
                    etag,
                    json,
                }))
            }
            None => Self::Erased(version),
        }
    }

    /// The answer that Postgres' row, or the lack of one, stands for.
    pub fn from_row(row: Option<&Revision>) -> Self {
        match row {
            // A copy of exactly the document's length: what is serialised has spare room, which the cache would hold
            // without counting it.
            Some(row) => Self::new(
                row.version,
                row.document.as_deref().map(Bytes::copy_from_slice),
            ),
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

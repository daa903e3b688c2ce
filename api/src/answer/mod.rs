//! The answer of a tier about an order, and what a caller may see of it.
//!
//! The bytes of a document leave this module only through a [`View`], so no handler can send what
//! its caller may not see.
//!
//! | module | responsibility |
//! |---|---|
//! | `mod` | the state of an order, as the tiers return it |
//! | [`view`](View) | what a caller may see: of an order, of a list |
//! | [`mask`](MASKS) | finds the personal data of a document and replaces it |
//! | [`edition`](Edition) | the version of a document, masked or not: the text of the ETag |

mod edition;
mod mask;
mod view;

use bytes::Bytes;
use poem::http::HeaderValue;
use shared::order::{DocumentVersion, Revision, Version};

pub use edition::Edition;
pub use mask::{MASKS, Mask, Unreadable};
pub use view::{PersonalFilter, Selection, Shown, Text, View, Visible};

/// State of an order; cheap to clone.
#[derive(Clone, Debug)]
pub enum Answer {
    /// The order exists.
    Order(Document),
    /// The order existed; this version erased it.
    Erased(DocumentVersion),
    /// There is no such order.
    Unknown,
}

/// A document and its version, ready to send. Only a [`View`] reads its bytes.
///
/// ETag and JSON share one block of memory. In a cache with many orders each block is a cache miss
/// of the processor, so one block means one miss.
#[derive(Clone, Debug)]
pub struct Document {
    /// Version of the order, and the shape of the document. An entry of Redis may have a newer
    /// shape than this program writes.
    pub version: DocumentVersion,
    /// The version in double quotes, as the ETag header needs it. Built once, so that no response
    /// has to.
    etag: HeaderValue,
    /// The JSON document.
    json: Bytes,
}

impl Document {
    /// Maximum length of an ETag in bytes.
    pub const ETAG_WIDTH: usize = DocumentVersion::MAX_WIDTH + 2;

    fn new(version: DocumentVersion, json: &[u8]) -> Self {
        let (etag, json) = in_one_block(&Edition::whole(version), &[json]);
        Self {
            version,
            etag,
            json,
        }
    }

    /// Returns the customer of the order.
    ///
    /// # Errors
    /// If the document is not one of an order.
    pub fn customer(&self) -> Result<Box<str>, Unreadable> {
        let outline = mask::Outline::read(&self.json)?;
        Ok(outline.customer_id.into())
    }

    /// Length of the JSON document in bytes.
    pub fn size(&self) -> usize {
        self.json.len()
    }
}

/// Returns the ETag of `edition`, and the JSON document of `parts`.
fn in_one_block(edition: &Edition, parts: &[&[u8]]) -> (HeaderValue, Bytes) {
    let etag = edition.etag();
    let mut block =
        Vec::with_capacity(etag.len() + parts.iter().map(|part| part.len()).sum::<usize>());
    block.extend_from_slice(etag.as_bytes());
    parts.iter().for_each(|part| block.extend_from_slice(part));
    let mut block = Bytes::from(block);
    let json = block.split_off(etag.len());
    (header(block), json)
}

fn header(etag: Bytes) -> HeaderValue {
    // Quotes, digits, dashes and letters are always valid in a header. An empty ETag would match
    // nothing.
    HeaderValue::from_maybe_shared(etag).unwrap_or(HeaderValue::from_static(""))
}

impl Answer {
    /// Builds the answer for a version. `None` as the document means that the version erased the
    /// order.
    pub fn new(version: DocumentVersion, document: Option<&[u8]>) -> Self {
        match document {
            Some(json) => Self::Order(Document::new(version, json)),
            None => Self::Erased(version),
        }
    }

    /// Builds the answer for a row of Postgres, or for its absence.
    pub fn from_row(row: Option<&Revision>) -> Self {
        match row {
            Some(row) => {
                let version = DocumentVersion::current(row.version);
                Self::new(version, row.document.as_deref())
            }
            None => Self::Unknown,
        }
    }

    /// Version of the order. `None` if the order is unknown; any version is greater.
    pub fn version(&self) -> Option<Version> {
        self.document_version().map(|document| document.version)
    }

    /// Version of the order and shape of its document. `None` if the order is unknown.
    pub fn document_version(&self) -> Option<DocumentVersion> {
        match self {
            Self::Order(document) => Some(document.version),
            Self::Erased(version) => Some(*version),
            Self::Unknown => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Clients and operators know this text: it must never change for documents of shape 1.
    const TEXT: &str = "\"0000001637907727000-0000000000000000042-0000000005\"";

    fn etag(representation: u8) -> String {
        let version = DocumentVersion {
            version: Version::new(1_637_907_727_000, 42, 5),
            representation,
        };
        match Answer::new(version, Some(b"{}")) {
            Answer::Order(document) => {
                assert_eq!(document.json, "{}");
                document.etag.to_str().unwrap().to_owned()
            }
            other => panic!("{other:?} instead of an order"),
        }
    }

    #[test]
    fn the_etag_is_the_version_of_the_document_in_quotes() {
        assert_eq!(etag(1), TEXT);
        assert_eq!(etag(2), TEXT.replace("05\"", "05-2\""));
        assert!(etag(255).len() <= Document::ETAG_WIDTH);
    }
}

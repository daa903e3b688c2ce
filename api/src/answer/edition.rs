//! Which document a client has: the version of the order, and whether its personal data is masked.

use std::{fmt, str::FromStr};

use poem::http::HeaderValue;
use shared::order::{DocumentVersion, VersionError};

/// What ends the text of a masked document's edition.
const MASKED: &str = "-masked";

/// A document of an order as a client has it. Its text is the `ETag` without quotes, and the `id`
/// of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Edition {
    /// The version of the order, and the shape of the document.
    pub version: DocumentVersion,
    /// Whether personal data is masked.
    pub is_masked: bool,
}

impl Edition {
    /// The edition of the document with personal data.
    pub const fn whole(version: DocumentVersion) -> Self {
        Self {
            version,
            is_masked: false,
        }
    }

    /// Returns the ETag, with its quotes.
    pub(super) fn etag(&self) -> String {
        format!("\"{self}\"")
    }

    /// Returns the ETag as a header.
    pub fn header(&self) -> HeaderValue {
        super::header(self.etag().into())
    }
}

impl fmt::Display for Edition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.version.fmt(f)?;
        f.write_str(if self.is_masked { MASKED } else { "" })
    }
}

impl FromStr for Edition {
    type Err = VersionError;

    fn from_str(text: &str) -> Result<Self, VersionError> {
        let (version, is_masked) = match text.strip_suffix(MASKED) {
            Some(version) => (version, true),
            None => (text, false),
        };
        Ok(Self {
            version: version.parse()?,
            is_masked,
        })
    }
}

#[cfg(test)]
mod tests {
    use shared::order::Version;

    use super::*;

    #[test]
    fn the_text_of_a_masked_document_is_another_one() {
        for representation in [1, 2] {
            let version = DocumentVersion {
                version: Version::new(1, 2, 3),
                representation,
            };
            let whole = Edition::whole(version);
            let masked = Edition {
                version,
                is_masked: true,
            };
            assert_eq!(whole.to_string(), version.to_string());
            assert_eq!(masked.to_string(), format!("{version}-masked"));
            assert_eq!(masked.header(), format!("\"{version}-masked\""));
            for edition in [whole, masked] {
                assert_eq!(edition.to_string().parse(), Ok(edition));
            }
        }
        for text in ["", "-masked", "x-masked", "masked"] {
            assert_eq!(text.parse::<Edition>(), Err(VersionError), "{text}");
        }
    }
}

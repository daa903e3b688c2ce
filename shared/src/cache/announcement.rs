//! Announcements (invalidation messages): which orders changed, and to which version.

use std::fmt::Write;

use crate::order::{OrderUid, Revision, Version};

/// The Redis channel of announcements.
pub const CHANNEL: &str = "order-changes";

/// The message that every entry was removed. It is not a valid line of an announcement, so a reader
/// that does not know it skips it.
pub(super) const CLEARED: &str = "cleared";

/// One changed order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announcement {
    /// The uid of the order.
    pub uid: OrderUid,
    /// The version that was written. Readers drop older versions.
    pub version: Version,
}

/// Encodes a message with one line `UID VERSION` for each revision.
pub(super) fn encode<'a>(revisions: impl IntoIterator<Item = &'a Revision>) -> String {
    let mut message = String::new();
    for revision in revisions {
        // Writing to a string cannot fail.
        let _ = writeln!(message, "{} {}", revision.uid, revision.version);
    }
    message
}

/// Returns the announcements of a message. Skips lines that it cannot parse.
pub(crate) fn decode(message: &[u8]) -> Vec<Announcement> {
    let line = |line: &str| {
        let (uid, version) = line.split_once(' ')?;
        Some(Announcement {
            uid: OrderUid::parse(uid).ok()?,
            version: version.parse().ok()?,
        })
    };
    std::str::from_utf8(message)
        .map(|text| text.lines().filter_map(line).collect())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_encoded_message_decodes_to_the_same_changes() {
        let revisions: Vec<Revision> = (0..3)
            .map(|n| Revision {
                uid: OrderUid::parse(&format!("uid-{n}")).unwrap(),
                version: Version::new(1_700_000_000_000, n, 5),
                document: None,
            })
            .collect();
        let decoded = decode(encode(&revisions).as_bytes());
        assert_eq!(decoded.len(), 3);
        assert!(
            decoded
                .iter()
                .zip(&revisions)
                .all(|(got, sent)| got.uid == sent.uid && got.version == sent.version)
        );
    }

    #[test]
    fn malformed_lines_are_skipped() {
        assert!(decode(b"\xff\xfe").is_empty());
        assert!(decode(b"uid\n\nuid not-a-version\n").is_empty());
    }
}

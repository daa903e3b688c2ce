//! What must hold for every input, as functions of bytes. `fuzz/` searches for an input that breaks
//! one; the tests below try the inputs that it kept.

use crate::{
    cache,
    order::{UnknownFields, decode},
};

/// Checks the decoder of a record's value: the canonical bytes of an accepted order are accepted,
/// and decode to the same order.
///
/// # Panics
/// If that does not hold.
pub fn record(value: &[u8]) {
    let strict = decode(value, UnknownFields::Reject);
    let Ok(decoded) = decode(value, UnknownFields::Ignore) else {
        assert!(strict.is_err(), "strict mode accepts more");
        return;
    };
    assert_eq!(strict.is_ok(), decoded.unknown_fields == 0);
    let canonical = decoded.order.to_json();
    let again = decode(&canonical, UnknownFields::Reject);
    let again = again.expect("the canonical bytes are accepted").order;
    assert_eq!(again, decoded.order);
    assert_eq!(again.to_json(), canonical);
}

/// Checks the decoder of announcements: each one stands in the message as it is encoded.
///
/// # Panics
/// If that does not hold.
pub fn announcement(message: &[u8]) {
    let announcements = cache::decode_announcements(message);
    let text = String::from_utf8_lossy(message);
    for announcement in announcements {
        let line = format!("{} {}", announcement.uid, announcement.version);
        assert!(text.lines().any(|other| other == line), "{line}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::corpus;

    #[test]
    fn each_record_of_the_corpus_decodes_or_is_rejected() {
        corpus("record").iter().for_each(|value| record(value));
    }

    #[test]
    fn each_announcement_of_the_corpus_is_as_it_was_encoded() {
        corpus("announcement")
            .iter()
            .for_each(|message| announcement(message));
    }
}

//! Request ids, which correlate the logs of several services.

use std::{
    hash::{BuildHasher, RandomState},
    sync::atomic::{AtomicU32, Ordering},
};

use poem::http::{HeaderMap, HeaderName, HeaderValue};

pub(super) static X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Maximum length of an id that a client sends.
pub(super) const MAX_LENGTH: usize = 128;

/// Generates ids for requests without one: a prefix that differs per process, and a counter.
pub(super) struct RequestIds {
    /// The first id. The others differ in the counter after the dash.
    first: [u8; 25],
    count: AtomicU32,
}

impl RequestIds {
    pub(super) fn new() -> Self {
        let mut first = *b"0000000000000000-00000000";
        let prefix = RandomState::new().hash_one(std::process::id());
        write_hex(&mut first[..16], &prefix.to_be_bytes());
        Self {
            first,
            count: AtomicU32::new(0),
        }
    }

    /// Returns the client's id if it is safe to repeat, else a new one.
    pub(super) fn of(&self, headers: &HeaderMap) -> HeaderValue {
        headers
            .get(&X_REQUEST_ID)
            .filter(|id| is_safe(id.as_bytes()))
            .cloned()
            .unwrap_or_else(|| self.next())
    }

    fn next(&self) -> HeaderValue {
        let mut text = self.first;
        let count = self.count.fetch_add(1, Ordering::Relaxed);
        write_hex(&mut text[17..], &count.to_be_bytes());
        // Hexadecimal digits and a dash are always valid in a header.
        HeaderValue::from_bytes(&text).unwrap_or(HeaderValue::from_static("-"))
    }
}

/// Writes `bytes` into `text`, which has two digits for each byte.
fn write_hex(text: &mut [u8], bytes: &[u8]) {
    // Fails only if the lengths differ. The text then keeps its zeros.
    let _ = hex::encode_to_slice(bytes, text);
}

fn is_safe(id: &[u8]) -> bool {
    (1..=MAX_LENGTH).contains(&id.len())
        && id.iter().all(|byte| {
            byte.is_ascii_alphanumeric()
                || matches!(byte, b'-' | b'_' | b'.' | b':' | b'/' | b'+' | b'=')
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id_for(sent: &'static [u8]) -> String {
        let mut headers = HeaderMap::new();
        headers.insert(&X_REQUEST_ID, HeaderValue::from_bytes(sent).unwrap());
        RequestIds::new().of(&headers).to_str().unwrap().to_owned()
    }

    #[test]
    fn a_safe_id_is_kept_and_any_other_replaced() {
        assert_eq!(id_for(b"abc-123"), "abc-123");
        for bad in [&b""[..], b"a b", b"a,b", b"<script>", b"\xff", &[b'x'; 129]] {
            let mut headers = HeaderMap::new();
            headers.insert(&X_REQUEST_ID, HeaderValue::from_bytes(bad).unwrap());
            let id = RequestIds::new().of(&headers);
            assert!(id.len() == 25 && id.as_bytes() != bad, "{id:?}");
        }
    }

    #[test]
    fn new_ids_differ() {
        let ids = RequestIds::new();
        assert_ne!(ids.next(), ids.next());
        assert_ne!(ids.next(), RequestIds::new().next());
    }
}

//! Request ids, which correlate the logs of several services.

use std::{
    hash::{BuildHasher, RandomState},
    sync::atomic::{AtomicU64, Ordering},
};

use poem::http::{HeaderMap, HeaderName, HeaderValue};

pub(super) static X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Maximum length of an id that a client sends.
const MAX_LENGTH: usize = 128;

/// Generates ids for requests without one: a prefix that differs per process, and a counter.
pub(super) struct RequestIds {
    /// The first id. The others differ in the counter after the dash.
    first: [u8; 25],
    count: AtomicU64,
}

impl RequestIds {
    pub(super) fn new() -> Self {
        let mut first = *b"0000000000000000-00000000";
        hex(
            &mut first[..16],
            RandomState::new().hash_one(std::process::id()),
        );
        Self {
            first,
            count: AtomicU64::new(0),
        }
    }

    /// Returns the client's id if it is safe to repeat, else a new one.
    pub(super) fn of(&self, headers: &HeaderMap) -> HeaderValue {
        headers
            .get(&X_REQUEST_ID)
            .filter(|id| is_sane(id.as_bytes()))
            .cloned()
            .unwrap_or_else(|| self.next())
    }

    fn next(&self) -> HeaderValue {
        let mut text = self.first;
        hex(&mut text[17..], self.count.fetch_add(1, Ordering::Relaxed));
        // Hexadecimal digits and a dash are always valid in a header.
        HeaderValue::from_bytes(&text).unwrap_or(HeaderValue::from_static("-"))
    }
}

/// Writes the lowest hexadecimal digits of `number` into `text`, as many as fit.
fn hex(text: &mut [u8], mut number: u64) {
    for digit in text.iter_mut().rev() {
        *digit = b"0123456789abcdef"[(number & 0xf) as usize];
        number >>= 4;
    }
}

fn is_sane(id: &[u8]) -> bool {
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
    fn a_sane_name_is_kept_and_any_other_replaced() {
        assert_eq!(id_for(b"abc-123"), "abc-123");
        for bad in [&b""[..], b"a b", b"a,b", b"<script>", b"\xff", &[b'x'; 129]] {
            let mut headers = HeaderMap::new();
            headers.insert(&X_REQUEST_ID, HeaderValue::from_bytes(bad).unwrap());
            let id = RequestIds::new().of(&headers);
            assert!(id.len() == 25 && id.as_bytes() != bad, "{id:?}");
        }
    }

    #[test]
    fn new_names_differ() {
        let ids = RequestIds::new();
        assert_ne!(ids.next(), ids.next());
        assert_ne!(ids.next(), RequestIds::new().next());
    }
}

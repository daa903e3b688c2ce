//! A name for each request, by which logs of several services can be brought together.

use std::{
    hash::{BuildHasher, RandomState},
    sync::atomic::{AtomicU64, Ordering},
};

use poem::http::{HeaderMap, HeaderName, HeaderValue};

pub(super) static X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The longest name that is taken from a client.
const MAX_LENGTH: usize = 128;

/// Names requests that come without a name: a start that differs per process, and a count.
pub(super) struct RequestIds {
    /// The first name; the others differ in the count behind the dash.
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

    /// The client's name for the request where it has one that is fit to be repeated, else a new one.
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
        // Hexadecimal digits and a dash are always fit for a header.
        HeaderValue::from_bytes(&text).unwrap_or(HeaderValue::from_static("-"))
    }
}

/// The lowest digits of `number`, as many as fit.
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

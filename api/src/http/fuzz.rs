//! What must hold for every input, as functions of bytes; see `shared::fuzz`.

use super::cursor;

/// Checks the decoder of cursors: an accepted text is exactly what its position encodes to, and
/// fits the pattern in the OpenAPI document.
///
/// # Panics
/// If that does not hold.
pub fn cursor(text: &[u8]) {
    let Ok(text) = str::from_utf8(text) else {
        return;
    };
    if let Some(position) = cursor::decode(text) {
        assert_eq!(cursor::encode(position), text);
    }
}

#[cfg(test)]
mod tests {
    use shared::testing::corpus;

    use super::*;

    #[test]
    fn each_cursor_of_the_corpus_is_a_position_or_rejected() {
        corpus("cursor").iter().for_each(|text| cursor(text));
    }
}

//! The cursor of a list: a position as opaque text that clients return unchanged.

use chrono::DateTime;
use shared::storage::Position;

/// Hexadecimal digits of each part: the time in microseconds since 1970, then the id.
const WIDTH: usize = 16;

/// Encodes a position as text.
pub(super) fn encode(position: Position) -> String {
    format!(
        "{:016x}{:016x}",
        position.created_at.timestamp_micros(),
        position.id
    )
}

/// Decodes a text from [`encode`]; `None` if it is malformed.
pub(super) fn decode(text: &str) -> Option<Position> {
    let digits = text
        .bytes()
        .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    if text.len() != 2 * WIDTH || !digits {
        return None;
    }
    let (micros, id) = text.split_at(WIDTH);
    Some(Position {
        created_at: DateTime::from_timestamp_micros(i64::from_str_radix(micros, 16).ok()?)?,
        id: i64::from_str_radix(id, 16).ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_comes_back_as_it_went() {
        for (micros, id) in [
            (0, 1),
            (1_700_000_000_123_456, 42),
            (253_402_300_799_999_999, i64::MAX),
        ] {
            let position = Position {
                created_at: DateTime::from_timestamp_micros(micros).unwrap(),
                id,
            };
            assert_eq!(decode(&encode(position)), Some(position));
        }
    }

    #[test]
    fn other_texts_are_refused() {
        let good = encode(Position {
            created_at: DateTime::UNIX_EPOCH,
            id: 1,
        });
        let bad = [
            "",
            "x",
            &good[1..],
            &format!("{good}0"),
            &good.replace('1', "G"),
            &good.replacen('0', "+", 1),
            &"f".repeat(32),
        ];
        for text in bad {
            assert_eq!(decode(text), None, "{text}");
        }
        assert_eq!(
            decode(&format!("{}{}", "7".repeat(16), "0".repeat(16))),
            None,
            "beyond the calendar"
        );
    }
}

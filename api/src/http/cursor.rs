//! The cursor of a list: a position as opaque text that clients return unchanged.

use chrono::DateTime;
use shared::storage::Position;

/// Pattern of a cursor. Each text with this pattern is a position: a time up to the year 11000, and
/// an id that is not negative.
pub(super) const PATTERN: &str = "^0[0-3][0-9a-f]{14}[0-7][0-9a-f]{15}$";

/// Encodes a position as text: the hexadecimal digits of the time in microseconds since 1970, then
/// of the id.
pub(super) fn encode(position: Position) -> String {
    let micros = position.created_at.timestamp_micros();
    hex::encode([micros.to_be_bytes(), position.id.to_be_bytes()].concat())
}

/// Decodes a text from [`encode`]; `None` if it is malformed.
pub(super) fn decode(text: &str) -> Option<Position> {
    let is_canonical = matches!(text.as_bytes(), [b'0', b'0'..=b'3', ..])
        && !text.bytes().any(|byte| byte.is_ascii_uppercase());
    if !is_canonical {
        return None;
    }
    let mut bytes = [0; 16];
    hex::decode_to_slice(text, &mut bytes).ok()?;
    let number = u128::from_be_bytes(bytes);
    let (micros, id) = ((number >> 64) as u64, number as u64);
    Some(Position {
        created_at: DateTime::from_timestamp_micros(micros.try_into().ok()?)?,
        id: id.try_into().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_decoded_position_equals_the_encoded_one() {
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
    fn the_greatest_texts_of_the_pattern_are_positions() {
        let greatest = format!("03{}7{}", "f".repeat(14), "f".repeat(15));
        let position = decode(&greatest).unwrap();
        assert_eq!(encode(position), greatest);
        assert_eq!(position.id, i64::MAX);
    }

    #[test]
    fn malformed_texts_are_rejected() {
        let good = encode(Position {
            created_at: DateTime::UNIX_EPOCH,
            id: 10,
        });
        let bad = [
            "",
            "x",
            &good[1..],
            &format!("{good}0"),
            &good.replace('a', "G"),
            &good.to_uppercase(),
            &good.replacen('0', "+", 1),
            &format!("04{}", &good[2..]),
            &format!("{}8{}", &good[..16], &good[17..]),
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

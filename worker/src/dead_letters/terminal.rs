//! Buffered output, and text that cannot control the terminal.

use std::io::{self, BufWriter, StdoutLock, Write};

use shared::runtime::output;

/// Buffered output for long lists. A closed pipe ends the command.
pub(super) struct Output {
    out: BufWriter<StdoutLock<'static>>,
}

impl Output {
    pub(super) fn new() -> Self {
        Self {
            out: BufWriter::new(io::stdout().lock()),
        }
    }

    /// Writes a line.
    ///
    /// # Errors
    /// [`output::Closed`] if the reader is gone.
    pub(super) fn line(&mut self, text: &str) -> anyhow::Result<()> {
        output::written(writeln!(self.out, "{text}"))
    }

    /// Writes `bytes` as they are.
    ///
    /// # Errors
    /// As for [`Output::line`].
    pub(super) fn bytes(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        output::written(self.out.write_all(bytes))
    }

    /// Writes what is buffered.
    ///
    /// # Errors
    /// As for [`Output::line`].
    pub(super) fn flush(&mut self) -> anyhow::Result<()> {
        output::written(self.out.flush())
    }
}

/// Returns `text` with every character escaped that is not printable or that changes the direction
/// of the text.
pub(super) fn safe(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for character in text.chars() {
        match is_harmless(character) {
            true => safe.push(character),
            false => safe.extend(character.escape_default()),
        }
    }
    safe
}

/// Returns `bytes` as lines that cannot control the terminal. Line breaks and tabs stay, bytes that
/// are not UTF-8 appear as `\xNN`.
pub(super) fn safe_lines(bytes: &[u8]) -> String {
    let mut safe = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            match matches!(character, '\n' | '\t') || is_harmless(character) {
                true => safe.push(character),
                false => safe.extend(character.escape_default()),
            }
        }
        for byte in chunk.invalid() {
            safe.push_str(&format!("\\x{byte:02x}"));
        }
    }
    safe
}

fn is_harmless(character: char) -> bool {
    // Marks of direction can make a line read differently from what it holds.
    let turns = matches!(
        character,
        '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2028}' | '\u{2029}'
            | '\u{2066}'..='\u{2069}' | '\u{61c}'
    );
    !character.is_control() && !turns
}

/// Returns `count` and the noun in singular or plural: `1 dead letter`.
pub(super) fn letters(count: u64) -> String {
    match count {
        0 => "no dead letters".to_owned(),
        1 => "1 dead letter".to_owned(),
        count => format!("{count} dead letters"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_and_marks_of_direction_are_escaped() {
        assert_eq!(safe("Müller, 東京 \u{1f600}"), "Müller, 東京 \u{1f600}");
        for (text, expected) in [
            ("a\u{1b}[31mb", "a\\u{1b}[31mb"),
            ("a\r\n\tb", "a\\r\\n\\tb"),
            ("\u{9b}2J", "\\u{9b}2J"),
            ("\u{202e}gpj", "\\u{202e}gpj"),
            ("\0\u{7f}", "\\u{0}\\u{7f}"),
        ] {
            assert_eq!(safe(text), expected);
        }
        assert_eq!(
            safe_lines(b"{\n\t\"a\": \x1b[2J\xff\r}"),
            "{\n\t\"a\": \\u{1b}[2J\\xff\\r}"
        );
    }
}

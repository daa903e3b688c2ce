//! The bytes of a file with their places, and the text of one JSON value among them.

use std::io::{self, BufRead};

/// Maximum size of an order, in bytes. Four times what the topic accepts, so that the broker or the
/// client rejects an order that is only a little too large.
const MAX_ORDER: usize = if cfg!(test) { 1 << 16 } else { 32 << 20 };

/// A place in a file. Lines and columns count from 1, and columns count bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) line: u64,
    pub(super) column: u64,
}

impl Place {
    /// Returns the place that is at `line` and `column` of a text that begins here.
    pub(super) fn plus(self, line: usize, column: usize) -> Self {
        let (lines, column) = (line.max(1) as u64 - 1, column as u64);
        Self {
            line: self.line + lines,
            column: match lines {
                0 => self.column + column.max(1) - 1,
                _ => column,
            },
        }
    }
}

/// A text is larger than [`MAX_ORDER`].
#[derive(Debug)]
pub(super) struct TooLarge;

pub(super) const TOO_LARGE: &str = "the order is larger than 32 MiB";

/// Outcome of reading one text.
pub(super) type Text = Result<Vec<u8>, TooLarge>;

/// Reads bytes and counts lines and columns.
pub(super) struct Source<R> {
    reader: R,
    /// Bytes to read again, before those of the reader, in reverse order.
    again: Vec<u8>,
    place: Place,
    /// Number of bytes read from the reader.
    read: u64,
}

impl<R: BufRead> Source<R> {
    pub(super) fn new(reader: R) -> Self {
        Self {
            reader,
            again: Vec::new(),
            place: Place { line: 1, column: 1 },
            read: 0,
        }
    }

    /// Place of the next byte.
    pub(super) fn place(&self) -> Place {
        self.place
    }

    /// Number of bytes that were read.
    pub(super) fn bytes_read(&self) -> u64 {
        self.read
    }

    /// Returns the next byte without consuming it; `None` at the end.
    pub(super) fn peek(&mut self) -> io::Result<Option<u8>> {
        match self.again.last() {
            Some(byte) => Ok(Some(*byte)),
            None => Ok(self.reader.fill_buf()?.first().copied()),
        }
    }

    /// Consumes `byte`, which [`Source::peek`] returned.
    pub(super) fn advance(&mut self, byte: u8) {
        if self.again.pop().is_none() {
            self.reader.consume(1);
            self.read += 1;
        }
        if byte == b'\n' {
            self.place.line += 1;
            self.place.column = 1;
        } else {
            self.place.column += 1;
        }
    }

    /// Consumes the next bytes while `take` returns true for them. Returns the byte after them.
    pub(super) fn skip_while(&mut self, take: impl Fn(u8) -> bool) -> io::Result<Option<u8>> {
        loop {
            match self.peek()? {
                Some(byte) if take(byte) => self.advance(byte),
                next => return Ok(next),
            }
        }
    }

    /// Skips blanks and line breaks. Returns the byte after them.
    pub(super) fn skip_blanks(&mut self) -> io::Result<Option<u8>> {
        self.skip_while(|byte| byte.is_ascii_whitespace())
    }

    /// Skips the rest of a line that was begun.
    pub(super) fn skip_begun_line(&mut self) -> io::Result<()> {
        if self.place.column > 1 {
            self.skip_while(|byte| byte != b'\n')?;
        }
        Ok(())
    }

    /// Reads a text that is no object or array: up to the end of the line, or to one of `ends`
    /// outside of quotes.
    pub(super) fn plain(&mut self, ends: &[u8]) -> io::Result<Text> {
        let mut text = Vec::new();
        let mut quotes = Quotes::default();
        while let Some(byte) = self.peek()? {
            if byte == b'\n' || (!quotes.is_open && ends.contains(&byte)) {
                break;
            }
            if text.len() == MAX_ORDER {
                return Ok(Err(TooLarge));
            }
            quotes.pass(byte);
            text.push(byte);
            self.advance(byte);
        }
        text.truncate(text.trim_ascii_end().len());
        Ok(Ok(text))
    }

    /// Reads an object or array up to the bracket that closes it.
    ///
    /// A broken one must not swallow the orders after it. It therefore also ends where it cannot
    /// continue: at a line break inside of quotes, before a `]` that closes nothing, and before an
    /// unindented line for which `is_order` returns true.
    pub(super) fn nested(&mut self, is_order: impl Fn(&[u8]) -> bool) -> io::Result<Text> {
        let mut text = Vec::new();
        let mut quotes = Quotes::default();
        let mut open = Vec::new();
        // Where the last unindented line begins that begins with a brace.
        let mut line = None;
        loop {
            let next = self.peek()?;
            let closes_nothing = next == Some(b']') && !quotes.is_open && !open.contains(&b'[');
            if closes_nothing || matches!(next, None | Some(b'\n')) {
                let order = line.take().filter(|start| is_order(&text[*start..]));
                if let Some(start) = order {
                    self.unread_line(text.split_off(start));
                    break;
                }
                if closes_nothing || quotes.is_open {
                    break;
                }
            }
            let Some(byte) = next else { break };
            if text.len() == MAX_ORDER {
                return Ok(Err(TooLarge));
            }
            if byte == b'{' && text.last() == Some(&b'\n') {
                line = Some(text.len());
            }
            text.push(byte);
            self.advance(byte);
            if !quotes.pass(byte) {
                track(&mut open, byte);
                if open.is_empty() {
                    break;
                }
            }
        }
        text.truncate(text.trim_ascii_end().len());
        Ok(Ok(text))
    }

    /// Makes the next reads return `line`, the begin of the current line, once more.
    fn unread_line(&mut self, line: Vec<u8>) {
        self.again.extend(line.into_iter().rev());
        self.place.column = 1;
    }
}

/// Whether a byte is inside of quotes.
#[derive(Default)]
struct Quotes {
    is_open: bool,
    is_escaped: bool,
}

impl Quotes {
    /// Passes a byte. Returns whether it is a quote or inside of quotes.
    fn pass(&mut self, byte: u8) -> bool {
        let was_open = self.is_open;
        if self.is_escaped {
            self.is_escaped = false;
        } else if byte == b'"' {
            self.is_open = !self.is_open;
        } else {
            self.is_escaped = self.is_open && byte == b'\\';
        }
        was_open || self.is_open
    }
}

/// Updates the list of open brackets. A closing bracket also closes those that were opened after
/// its counterpart, which the text forgot to close.
fn track(open: &mut Vec<u8>, byte: u8) {
    let counterpart = match byte {
        b'{' | b'[' => return open.push(byte),
        b'}' => b'{',
        b']' => b'[',
        _ => return,
    };
    let index = open.iter().rposition(|bracket| *bracket == counterpart);
    open.truncate(index.unwrap_or_default());
}

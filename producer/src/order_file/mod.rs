//! Reads orders from a file: a JSON array, or one JSON document after another (NDJSON).

mod source;

use std::borrow::Cow;
use std::fmt;
use std::io::{self, BufRead, Chain, Cursor, Read};

use anyhow::{bail, ensure};
use serde::Deserialize;
use serde_json::value::RawValue;

use self::source::{Place, Source, TOO_LARGE, Text};

/// A place of the file that is not an order.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    place: Place,
    /// Number of the element, from 1, if the file is an array.
    element: Option<u64>,
    problem: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {} column {}", self.place.line, self.place.column)?;
        if let Some(element) = self.element {
            write!(f, " (element {element} of the array)")?;
        }
        write!(f, ": {}", self.problem)
    }
}

/// The bytes of a file without its byte order mark.
type Unmarked<R> = Chain<Cursor<Vec<u8>>, R>;

/// Reads the orders of a file one by one. It holds one order in memory.
pub(crate) struct OrderFile<R> {
    source: Source<Unmarked<R>>,
    layout: Layout,
}

enum Layout {
    /// One document after another, usually one per line.
    Documents,
    Array {
        next: Expected,
        /// Number of elements that were read.
        elements: u64,
    },
}

/// What an array continues with.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Expected {
    ElementOrEnd,
    Element,
    SeparatorOrEnd,
    /// The array is closed.
    Nothing,
    /// A fault behind the last element ended the file.
    End,
}

impl<R: BufRead> OrderFile<R> {
    /// Prepares to read the orders.
    ///
    /// # Errors
    /// If the file cannot be read, is empty, or is UTF-16 or UTF-32.
    pub(crate) fn new(mut reader: R) -> anyhow::Result<Self> {
        let mut start = Vec::new();
        reader.by_ref().take(4).read_to_end(&mut start)?;
        let start = without_byte_order_mark(&start)?.to_vec();
        let mut source = Source::new(Cursor::new(start).chain(reader));
        let layout = match source.skip_blanks()? {
            None => bail!("it is empty; expected a JSON array, or one order per line"),
            Some(b'[') => {
                source.advance(b'[');
                Layout::Array {
                    next: Expected::ElementOrEnd,
                    elements: 0,
                }
            }
            Some(_) => Layout::Documents,
        };
        Ok(Self { source, layout })
    }

    /// Number of bytes that were read.
    pub(crate) fn bytes_read(&self) -> u64 {
        self.source.bytes_read()
    }

    /// Returns the text of the next order, or the next fault; `None` at the end. After a fault it
    /// continues with the next order.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub(crate) fn next(&mut self) -> io::Result<Option<Result<Vec<u8>, Fault>>> {
        match &mut self.layout {
            Layout::Documents => next_document(&mut self.source),
            Layout::Array { next, elements } => next_element(&mut self.source, next, elements),
        }
    }
}

fn next_document<R: BufRead>(source: &mut Source<R>) -> io::Result<Option<Result<Vec<u8>, Fault>>> {
    let Some(byte) = source.skip_blanks()? else {
        return Ok(None);
    };
    let place = source.place();
    let text = match is_bracket(byte) {
        true => with_rest_of_line(source.nested(is_order)?, source)?,
        false => source.plain(&[])?,
    };
    let order = checked(text, place, None);
    if order.is_err() {
        source.skip_begun_line()?;
    }
    Ok(Some(order))
}

/// Adds what follows a document on its line, unless that is another document.
fn with_rest_of_line<R: BufRead>(mut text: Text, source: &mut Source<R>) -> io::Result<Text> {
    let is_blank = |byte: u8| byte != b'\n' && byte.is_ascii_whitespace();
    let next = source.skip_while(is_blank)?;
    let follows = next.is_some_and(|next| next != b'\n' && !is_bracket(next));
    if let Ok(document) = &mut text
        && follows
    {
        match source.plain(&[])? {
            Ok(rest) => document.extend(rest),
            Err(too_large) => text = Err(too_large),
        }
    }
    Ok(text)
}

fn next_element<R: BufRead>(
    source: &mut Source<R>,
    next: &mut Expected,
    elements: &mut u64,
) -> io::Result<Option<Result<Vec<u8>, Fault>>> {
    loop {
        let byte = source.skip_blanks()?;
        let place = source.place();
        let fault = |problem: &str| Fault {
            place,
            element: None,
            problem: problem.to_owned(),
        };
        let problem = match (*next, byte) {
            (Expected::End, _) | (Expected::Nothing, None) => return Ok(None),
            (Expected::Nothing, Some(_)) => {
                *next = Expected::End;
                "expected nothing after the array"
            }
            (_, None) => {
                *next = Expected::End;
                "the file ends inside of the array; expected `]`"
            }
            (Expected::SeparatorOrEnd, Some(b',')) => {
                source.advance(b',');
                *next = Expected::Element;
                continue;
            }
            (expected, Some(b']')) => {
                source.advance(b']');
                *next = Expected::Nothing;
                match expected {
                    Expected::Element => "expected an order after the comma",
                    _ => continue,
                }
            }
            (Expected::SeparatorOrEnd, Some(byte)) => {
                match is_bracket(byte) {
                    true => *next = Expected::Element,
                    false => drop(source.plain(b",]")?),
                }
                "expected `,` or `]`"
            }
            (Expected::ElementOrEnd | Expected::Element, Some(byte)) => {
                *next = Expected::SeparatorOrEnd;
                *elements += 1;
                let text = match is_bracket(byte) {
                    true => source.nested(is_order)?,
                    false => source.plain(b",]")?,
                };
                if text.is_err() {
                    source.skip_begun_line()?;
                }
                let order = checked(text, place, Some(*elements));
                // The text of a broken element may include the comma behind it.
                if order.is_err() && source.skip_blanks()?.is_some_and(is_bracket) {
                    *next = Expected::Element;
                }
                return Ok(Some(order));
            }
        };
        return Ok(Some(Err(fault(problem))));
    }
}

fn is_bracket(byte: u8) -> bool {
    byte == b'{' || byte == b'['
}

/// Whether a line is a whole order. In an array, a comma or the end of the array may follow.
fn is_order(line: &[u8]) -> bool {
    let line = line.trim_ascii_end();
    let line = line.strip_suffix(b"]").unwrap_or(line).trim_ascii_end();
    let line = line.strip_suffix(b",").unwrap_or(line).trim_ascii_end();
    uid_of(line).is_some()
}

/// Returns the uid of an order, which may be invalid in any other way.
pub(crate) fn uid_of(json: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Keyed<'a> {
        #[serde(borrow)]
        order_uid: Cow<'a, str>,
    }
    // A derived struct would also accept an array of its fields.
    let is_object = json.trim_ascii_start().starts_with(b"{");
    let keyed: Keyed<'_> = is_object.then(|| serde_json::from_slice(json).ok())??;
    Some(keyed.order_uid.into_owned())
}

/// Returns the text if it is one JSON value.
fn checked(text: Text, place: Place, element: Option<u64>) -> Result<Vec<u8>, Fault> {
    let fault = |place, problem: &str| Fault {
        place,
        element,
        problem: problem.to_owned(),
    };
    let text = text.map_err(|_| fault(place, TOO_LARGE))?;
    match serde_json::from_slice::<&RawValue>(&text) {
        Ok(_) => Ok(text),
        Err(error) => {
            let problem = error.to_string();
            // The line and column of the text are not those of the file.
            let problem = problem.split(" at line ").next().unwrap_or_default();
            Err(fault(place.plus(error.line(), error.column()), problem))
        }
    }
}

/// Strips the byte order mark that some editors write at the start of a UTF-8 file.
///
/// # Errors
/// If the file is UTF-16 or UTF-32, with or without a byte order mark. A zero byte reveals the
/// encoding, because every JSON document begins with an ASCII character.
pub(crate) fn without_byte_order_mark(start: &[u8]) -> anyhow::Result<&[u8]> {
    let is_wide = matches!(start, [0xff, 0xfe, ..] | [0xfe, 0xff, ..]) || start.contains(&0);
    ensure!(
        !is_wide,
        "expected UTF-8, found UTF-16 or UTF-32; convert the file: iconv -f UTF-16 -t UTF-8"
    );
    Ok(start.strip_prefix(b"\xef\xbb\xbf").unwrap_or(start))
}

#[cfg(test)]
mod tests;

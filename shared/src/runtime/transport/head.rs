//! Finds the end of a request head, and checks what hyper accepts or resolves silently although two
//! HTTP programs may read it differently (RFC 9112, sections 2.2, 5 and 6).

use std::mem;

use super::{
    super::request::MalformedRequest,
    limits::{HEAD_BYTES, HEADERS},
};

/// A whole request head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    /// Length, with the empty line at its end.
    pub(super) bytes: usize,
    /// What follows the head.
    pub(super) body: Body,
}

/// The body of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Body {
    /// This number of bytes, often zero.
    Bytes(u64),
    /// Chunks. hyper finds their end.
    Chunked,
}

/// Progress of the search in a head that arrives in pieces. Each byte is read once.
#[derive(Debug, Default)]
pub(super) struct HeadScan {
    /// Start of the first line that is not checked.
    line: usize,
    /// Bytes in which the end of that line was searched.
    searched: usize,
    /// Lines before it, without empty ones.
    lines: usize,
    length: Option<u64>,
    chunked: bool,
}

impl HeadScan {
    /// Continues the search in `bytes`: those of the last call, and what arrived after them.
    /// Returns the head once it is whole; the next call then begins a new one.
    ///
    /// # Errors
    /// If the head is malformed or larger than [`HEAD_BYTES`].
    pub(super) fn scan(&mut self, bytes: &[u8]) -> Result<Option<Head>, MalformedRequest> {
        while let Some(offset) = memchr::memchr(b'\n', &bytes[self.searched..]) {
            let end = self.searched + offset;
            let (start, next) = (self.line, end + 1);
            (self.line, self.searched) = (next, next);
            if next > HEAD_BYTES {
                return Err(MalformedRequest::HeadTooLarge);
            }
            let line = &bytes[start..end];
            let Some(line) = line.strip_suffix(b"\r") else {
                return Err(MalformedRequest::LineEnd);
            };
            match (line.is_empty(), self.lines) {
                // A client may send an empty line after the body of its last request.
                (true, 0) => {}
                (true, _) => return self.complete(next).map(Some),
                (false, 0) if !is_token(line[0]) => return Err(MalformedRequest::Method),
                (false, 0) => self.lines = 1,
                (false, _) => self.header(line)?,
            }
        }
        // Nothing more may follow what is no method: a TLS client, for example, waits.
        let first = bytes.get(self.line).filter(|_| self.lines == 0);
        if first.is_some_and(|byte| !is_token(*byte) && *byte != b'\r') {
            return Err(MalformedRequest::Method);
        }
        self.searched = bytes.len();
        match self.searched < HEAD_BYTES {
            true => Ok(None),
            false => Err(MalformedRequest::HeadTooLarge),
        }
    }

    fn header(&mut self, line: &[u8]) -> Result<(), MalformedRequest> {
        if self.lines > HEADERS {
            return Err(MalformedRequest::HeadTooLarge);
        }
        self.lines += 1;
        let end = line.iter().position(|byte| !is_token(*byte));
        let (name, rest) = line.split_at(end.unwrap_or(line.len()));
        // A line that begins with a space continued the one before it in older versions.
        let Some((b':', value)) = rest.split_first() else {
            return Err(MalformedRequest::Header);
        };
        match name.len() {
            0 => Err(MalformedRequest::Header),
            14 if name.eq_ignore_ascii_case(b"content-length") => self.set_length(value),
            17 if name.eq_ignore_ascii_case(b"transfer-encoding") => self.set_chunked(value),
            _ => Ok(()),
        }
    }

    fn set_length(&mut self, value: &[u8]) -> Result<(), MalformedRequest> {
        let length = length_of(trim(value)).ok_or(MalformedRequest::Length)?;
        match self.length.replace(length) {
            None if !self.chunked => Ok(()),
            _ => Err(MalformedRequest::Length),
        }
    }

    fn set_chunked(&mut self, value: &[u8]) -> Result<(), MalformedRequest> {
        let first = !mem::replace(&mut self.chunked, true);
        match first && trim(value).eq_ignore_ascii_case(b"chunked") {
            true if self.length.is_none() => Ok(()),
            true => Err(MalformedRequest::Length),
            false => Err(MalformedRequest::TransferEncoding),
        }
    }

    fn complete(&mut self, bytes: usize) -> Result<Head, MalformedRequest> {
        let scanned = mem::take(self);
        let body = match scanned.chunked {
            true => Body::Chunked,
            false => Body::Bytes(scanned.length.unwrap_or_default()),
        };
        Ok(Head { bytes, body })
    }
}

/// Removes the spaces and tabs around a value.
fn trim(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

/// Reads a length: digits without a sign, and without zeros in front, which some programs read as
/// an octal number.
fn length_of(digits: &[u8]) -> Option<u64> {
    let plain = match digits {
        [b'0'] => true,
        [b'0', ..] => false,
        _ => digits.iter().all(u8::is_ascii_digit),
    };
    let text = str::from_utf8(digits).ok().filter(|_| plain)?;
    text.parse().ok()
}

fn is_token(byte: u8) -> bool {
    TOKEN_BYTES[usize::from(byte)]
}

/// The bytes of `token` in RFC 9110, of which methods and the names of headers consist.
static TOKEN_BYTES: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < table.len() {
        table[byte] = matches!(
            byte as u8,
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'!' | b'#' | b'$' | b'%' | b'&' | b'\''
                | b'*' | b'+' | b'-' | b'.' | b'^' | b'_' | b'`' | b'|' | b'~'
        );
        byte += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::*;

    fn scan(head: &str) -> Result<Option<Head>, MalformedRequest> {
        HeadScan::default().scan(head.as_bytes())
    }

    /// Scans a request with these header lines, each without its end.
    fn scan_lines(lines: &[&str]) -> Result<Option<Head>, MalformedRequest> {
        scan(&request(lines))
    }

    fn request(lines: &[&str]) -> String {
        let lines: String = lines.iter().map(|line| format!("{line}\r\n")).collect();
        format!("POST / HTTP/1.1\r\n{lines}\r\n")
    }

    #[test]
    fn the_end_of_a_head_is_found_in_pieces_of_any_size() {
        let head = "\r\nPOST / HTTP/1.1\r\nHost: a\r\ncontent-LENGTH:\t 12 \r\n\r\n";
        let expected = Head {
            bytes: head.len(),
            body: Body::Bytes(12),
        };
        let bytes = [head.as_bytes(), b"GET / HTTP/1.1\r\n\r\n"].concat();
        for step in 1..=bytes.len() {
            let mut scan = HeadScan::default();
            let ends = (step..).step_by(step).map(|end| end.min(bytes.len()));
            let found = ends.map(|end| scan.scan(&bytes[..end]).unwrap());
            assert_eq!(found.flatten().next(), Some(expected), "step {step}");
            // A new head begins.
            let rest = scan.scan(&bytes[head.len()..]).unwrap().unwrap();
            assert_eq!((rest.bytes, rest.body), (18, Body::Bytes(0)));
        }
    }

    #[test]
    fn a_body_has_one_length_or_is_chunked() {
        for (lines, body) in [
            (&[][..], Body::Bytes(0)),
            (&["Content-Length: 0"], Body::Bytes(0)),
            (
                &["Content-Length:18446744073709551615"],
                Body::Bytes(u64::MAX),
            ),
            (&["Transfer-Encoding: Chunked"], Body::Chunked),
        ] {
            assert_eq!(scan_lines(lines).unwrap().unwrap().body, body, "{lines:?}");
        }
        for lines in [
            &["Content-Length: +5"][..],
            &["Content-Length: -5"],
            &["Content-Length: 05"],
            &["Content-Length: 00"],
            &["Content-Length:"],
            &["Content-Length: 5, 5"],
            &["Content-Length: 5 5"],
            &["Content-Length: 0x5"],
            &["Content-Length: 18446744073709551616"],
            &["Content-Length: 5", "Content-Length: 5"],
            &["Content-Length: 5", "content-length: 6"],
            &["Content-Length: 5", "Transfer-Encoding: chunked"],
            &["Transfer-Encoding: chunked", "Content-Length: 5"],
        ] {
            assert_eq!(
                scan_lines(lines),
                Err(MalformedRequest::Length),
                "{lines:?}"
            );
        }
        for lines in [
            &["Transfer-Encoding: xchunked"][..],
            &["Transfer-Encoding: chunked, identity"],
            &["Transfer-Encoding: gzip, chunked"],
            &["Transfer-Encoding:"],
            &["Transfer-Encoding: \"chunked\""],
            &["Transfer-Encoding: chunked", "Transfer-Encoding: chunked"],
            &["Transfer-Encoding: identity", "Content-Length: 5"],
        ] {
            let expected = Err(MalformedRequest::TransferEncoding);
            assert_eq!(scan_lines(lines), expected, "{lines:?}");
        }
    }

    #[test]
    fn a_header_line_begins_with_its_name_and_a_colon() {
        for line in ["X:", "X-!#$%&'*+.^_`|~9: \u{e9}", "Content-Lengths: +5"] {
            assert!(scan_lines(&[line]).unwrap().is_some(), "{line}");
        }
        for line in [
            " folded",
            "\tfolded",
            "Host : a",
            "Host\t: a",
            ": a",
            "Host",
            "H\u{e9}: a",
            "Ho\0st: a",
            "Transfer-Encoding : chunked",
            "(: a",
        ] {
            let lines = ["Host: a", line];
            assert_eq!(
                scan_lines(&lines),
                Err(MalformedRequest::Header),
                "{line:?}"
            );
        }
    }

    #[test]
    fn every_line_ends_with_a_carriage_return_and_a_line_feed() {
        for head in [
            "GET / HTTP/1.1\nHost: a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\n\n",
            "\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        ] {
            assert_eq!(scan(head), Err(MalformedRequest::LineEnd), "{head:?}");
        }
    }

    #[test]
    fn what_cannot_be_a_method_is_rejected_at_once() {
        for start in ["\u{16}\u{3}\u{1}", " GET", "\0", "(", "\r\n\r\n "] {
            assert_eq!(scan(start), Err(MalformedRequest::Method), "{start:?}");
        }
    }

    #[test]
    fn a_head_has_a_size_and_a_number_of_headers() {
        let frame = request(&["X: "]).len();
        let filled = |bytes: usize| request(&[&format!("X: {}", "x".repeat(bytes - frame))]);
        let whole = filled(HEAD_BYTES);
        assert_eq!(scan(&whole).unwrap().unwrap().bytes, HEAD_BYTES);
        assert_eq!(scan(&whole[..HEAD_BYTES - 1]), Ok(None));
        let too_large = Err(MalformedRequest::HeadTooLarge);
        assert_eq!(scan(&filled(HEAD_BYTES + 1)), too_large);
        assert_eq!(scan(&filled(HEAD_BYTES + 1)[..HEAD_BYTES]), too_large);
        assert_eq!(scan(&"\r\n".repeat(HEAD_BYTES / 2)), too_large);

        assert!(scan_lines(&["X: x"; HEADERS]).unwrap().is_some());
        assert_eq!(scan_lines(&["X: x"; HEADERS + 1]), too_large);
    }
}

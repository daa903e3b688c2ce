//! Checks of the request head that HTTP requires and hyper leaves to the server (RFC 9112, section
//! 3.2, and RFC 9113, section 8.3.1).

use std::net::Ipv6Addr;

use hyper::{HeaderMap, Method, StatusCode, Uri, Version, header, http::uri::Scheme};

/// A request that the server must reject. It then closes the connection, because it may have read
/// the end of the request elsewhere than the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MalformedRequest {
    /// `Host` is missing, repeated, not `host` or `host:port`, or not that of the target.
    Host,
    /// The method does not allow this request target.
    Target,
    /// The first byte of the request cannot begin a method.
    Method,
    /// A line of the head ends with a line feed alone.
    LineEnd,
    /// A header has no name, or something other than a colon follows the name.
    Header,
    /// `Content-Length` is repeated, not a plain number, or beside `Transfer-Encoding`.
    Length,
    /// `Transfer-Encoding` is repeated, or not `chunked`.
    TransferEncoding,
    /// The head has too many bytes or headers.
    HeadTooLarge,
}

impl MalformedRequest {
    /// Returns the status of the response.
    pub const fn status(self) -> StatusCode {
        match self {
            Self::HeadTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            _ => StatusCode::BAD_REQUEST,
        }
    }

    /// Returns what is expected, as text for the client.
    pub const fn detail(self) -> &'static str {
        match self {
            Self::Host => {
                "A request has one Host header with host or host:port, the same as in a target \
                 that is a URL."
            }
            Self::Target => "A request target is a path or an http URL, or * of OPTIONS.",
            Self::Method => {
                "This port speaks HTTP/1.1 without TLS; a request begins with a method."
            }
            Self::LineEnd => "Each line of a request head ends with CR and LF.",
            Self::Header => {
                "A header is a name, a colon without a space before it, and a value on one line."
            }
            Self::Length => {
                "A body has one Content-Length, digits without a sign or leading zeros, or one \
                 Transfer-Encoding."
            }
            Self::TransferEncoding => "A request has at most one Transfer-Encoding: chunked.",
            Self::HeadTooLarge => {
                "The request head has more than 16 KiB or 100 headers; send less."
            }
        }
    }
}

/// Checks `Host` and the form of the request target.
///
/// A target that is a URL has the same authority as `Host`: programs differ in which of the two
/// they use. In HTTP/2 the target always is one, and `Host` may be absent.
///
/// # Errors
/// If the request is malformed. HTTP/1.0 requests need no `Host`.
pub fn check(
    method: &Method,
    target: &Uri,
    version: Version,
    headers: &HeaderMap,
) -> Result<(), MalformedRequest> {
    let mut hosts = headers.get_all(header::HOST).iter();
    let host = match (hosts.next(), hosts.next()) {
        (Some(host), None) if is_authority(host.as_bytes()) => Some(host.as_bytes()),
        (None, _) if version < Version::HTTP_11 => None,
        (None, _) if version >= Version::HTTP_2 && target.authority().is_some() => None,
        _ => return Err(MalformedRequest::Host),
    };
    let fits = match (target.scheme(), target.authority()) {
        // `http::Uri` parses any text without a slash as an authority.
        (None, Some(_)) => *method == Method::CONNECT,
        (Some(scheme), Some(authority)) => {
            let authority = authority.as_str().as_bytes();
            (*scheme == Scheme::HTTP || *scheme == Scheme::HTTPS)
                && !matches!(authority, [] | [b':', ..])
                && is_authority(authority)
        }
        (_, None) if target.path() == "*" => *method == Method::OPTIONS,
        (_, None) => true,
    };
    if !fits {
        return Err(MalformedRequest::Target);
    }
    match (host, target.authority()) {
        (Some(host), Some(authority))
            if !host.eq_ignore_ascii_case(authority.as_str().as_bytes()) =>
        {
            Err(MalformedRequest::Host)
        }
        _ => Ok(()),
    }
}

/// Whether `text` is `host` or `host:port` without user information (RFC 3986, section 3.2). Both
/// parts may be empty.
fn is_authority(text: &[u8]) -> bool {
    let port = if let [b'[', rest @ ..] = text {
        let Some(end) = rest.iter().position(|byte| *byte == b']') else {
            return false;
        };
        let address = str::from_utf8(&rest[..end]).unwrap_or_default();
        if address.parse::<Ipv6Addr>().is_err() {
            return false;
        }
        &rest[end + 1..]
    } else {
        after_name(text)
    };
    match port {
        [] => true,
        [b':', digits @ ..] => digits.iter().all(u8::is_ascii_digit),
        _ => false,
    }
}

/// Returns the rest of `text` after the registered name or IPv4 address at its beginning.
fn after_name(mut text: &[u8]) -> &[u8] {
    loop {
        let end = text.iter().position(|byte| !NAME_BYTES[usize::from(*byte)]);
        text = &text[end.unwrap_or(text.len())..];
        match text {
            [b'%', high, low, rest @ ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                text = rest;
            }
            _ => return text,
        }
    }
}

/// The bytes that are `unreserved` or `sub-delims` in RFC 3986. A table is fast, and every request
/// is checked.
static NAME_BYTES: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < table.len() {
        table[byte] = matches!(
            byte as u8,
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~'
                | b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b';' | b'='
        );
        byte += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::*;

    fn check_head(head: &str, hosts: &[&str]) -> Result<(), MalformedRequest> {
        let parts: Vec<_> = head.split(' ').collect();
        let [method, target, version] = parts[..] else {
            panic!("{head}");
        };
        let mut headers = HeaderMap::new();
        for host in hosts {
            headers.append(header::HOST, host.parse().unwrap());
        }
        let version = match version {
            "1.0" => Version::HTTP_10,
            "2" => Version::HTTP_2,
            _ => Version::HTTP_11,
        };
        check(
            &method.parse().unwrap(),
            &target.parse().unwrap(),
            version,
            &headers,
        )
    }

    #[test]
    fn exactly_one_host_header_is_required() {
        assert_eq!(check_head("GET / 1.0", &[]), Ok(()));
        assert_eq!(check_head("GET / 1.1", &["a"]), Ok(()));
        for (head, hosts) in [
            ("GET / 1.1", &[][..]),
            ("GET http://a/ 1.1", &[]),
            ("OPTIONS * 1.1", &[]),
            ("GET / 1.1", &["a", "a"]),
            ("GET / 1.0", &["a", "b"]),
            ("GET http://a/ 1.1", &["a", "a"]),
            ("GET / 1.0", &["a b"]),
        ] {
            assert_eq!(
                check_head(head, hosts),
                Err(MalformedRequest::Host),
                "{head} {hosts:?}"
            );
        }
    }

    #[test]
    fn a_host_is_a_name_or_an_address() {
        for host in [
            "",
            "localhost",
            "a_b-c.example",
            "127.0.0.1:8080",
            "[::1]",
            "[fd00::1]:8081",
            "EXAMPLE.com:",
            "a%20b",
            "caf%C3%A9.example",
            "a:80000",
        ] {
            assert_eq!(check_head("GET / 1.1", &[host]), Ok(()), "{host}");
        }
        for host in [
            "a b",
            "a/b",
            "http://a",
            "user@a",
            "a:b",
            "a:80:80",
            "::1",
            "[::1",
            "::1]",
            "[]",
            "[a]",
            "[::1]a",
            "[::1]:a",
            "[fe80::1%25eth0]",
            "a%2",
            "a%zz",
            "a?b",
            "a#b",
            "a\\b",
            "<a>",
            "\"a\"",
            "a, b",
            "a\tb",
            "é",
        ] {
            assert_eq!(
                check_head("GET / 1.1", &[host]),
                Err(MalformedRequest::Host),
                "{host}"
            );
        }
    }

    #[test]
    fn a_target_and_a_host_name_the_same_authority() {
        for (head, host) in [
            ("GET http://shop.example/orders 1.1", "other"),
            ("GET http://shop.example/orders 1.1", ""),
            ("GET http://shop.example/orders 1.1", "shop.example:80"),
            ("CONNECT shop.example:443 1.1", "shop.example"),
        ] {
            let checked = check_head(head, &[host]);
            assert_eq!(checked, Err(MalformedRequest::Host), "{head} {host}");
        }
        assert_eq!(check_head("GET http://shop.example/ 1.0", &[]), Ok(()));
    }

    #[test]
    fn http_2_needs_an_authority_and_no_host() {
        assert_eq!(check_head("GET https://shop.example/ 2", &[]), Ok(()));
        for (head, hosts) in [
            ("GET / 2", &[][..]),
            ("GET https://shop.example/ 2", &["other"]),
        ] {
            let checked = check_head(head, hosts);
            assert_eq!(checked, Err(MalformedRequest::Host), "{head} {hosts:?}");
        }
    }

    #[test]
    fn a_target_must_match_its_method() {
        for (head, host) in [
            ("GET /order/a?nocache=1 1.1", "other"),
            ("GET /* 1.1", "other"),
            ("GET http://shop.example/orders 1.1", "SHOP.example"),
            ("GET https://[::1]:8080/ 1.1", "[::1]:8080"),
            ("OPTIONS http://shop.example 1.1", "shop.example"),
            ("OPTIONS * 1.1", "other"),
            ("CONNECT shop.example:443 1.1", "shop.example:443"),
        ] {
            assert_eq!(check_head(head, &[host]), Ok(()), "{head}");
        }
        for head in [
            "GET * 1.1",
            "HEAD * 1.1",
            "GET shop.example:80 1.1",
            "OPTIONS shop.example 1.1",
            "GET ftp://shop.example/ 1.1",
            "GET http://user@shop.example/ 1.1",
            "GET http://:80/ 1.1",
        ] {
            assert_eq!(
                check_head(head, &["a"]),
                Err(MalformedRequest::Target),
                "{head}"
            );
        }
    }
}

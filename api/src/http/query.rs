//! The query of a request: its names and values, and which names an operation accepts.
//!
//! A misspelt filter that the server ignores would return every order. So an unknown or repeated
//! parameter is an error on every operation.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;
use poem::{IntoResponse, Response};
use poem_openapi::registry::{MetaApi, MetaParamIn};

use super::problem::Problem;

/// Maximum characters of a parameter's name that an error repeats.
const QUOTED: usize = 64;

/// A name or a value that is not UTF-8 once it is decoded.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct NotUtf8;

impl From<NotUtf8> for Problem {
    fn from(_: NotUtf8) -> Self {
        Self::BadRequest("The query is not UTF-8; percent-encode names and values as UTF-8.")
    }
}

/// Splits a query into decoded names and values, as HTML forms encode them: `+` is a space.
pub(super) fn pairs(
    query: &str,
) -> impl Iterator<Item = Result<(Cow<'_, str>, Cow<'_, str>), NotUtf8>> {
    let parts = query.split('&').filter(|part| !part.is_empty());
    parts.map(|part| {
        let (name, value) = part.split_once('=').unwrap_or((part, ""));
        Ok((decoded(name)?, decoded(value)?))
    })
}

fn decoded(text: &str) -> Result<Cow<'_, str>, NotUtf8> {
    if !text.contains('+') {
        return percent_decode_str(text).decode_utf8().map_err(|_| NotUtf8);
    }
    let spaced = text.replace('+', " ");
    let decoded = percent_decode_str(&spaced).decode_utf8();
    Ok(Cow::Owned(decoded.map_err(|_| NotUtf8)?.into_owned()))
}

/// The query parameters that an operation accepts.
#[derive(Debug)]
pub(super) struct Parameters(Vec<String>);

/// A query that an operation does not accept.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum InvalidQuery {
    NotUtf8,
    /// The name, and the names that the operation accepts.
    Unknown(String, Vec<String>),
    Repeated(String),
}

impl Parameters {
    /// Reads the names from the description of an operation.
    pub(super) fn of(description: &[MetaApi]) -> Self {
        let paths = description.iter().flat_map(|api| &api.paths);
        let parameters = paths
            .flat_map(|path| &path.operations)
            .flat_map(|operation| &operation.params)
            .filter(|parameter| parameter.in_type == MetaParamIn::Query);
        Self(parameters.map(|parameter| parameter.name.clone()).collect())
    }

    /// Checks that `query` has only parameters of the operation, each at most once.
    ///
    /// # Errors
    /// Returns the first violation.
    pub(super) fn check(&self, query: &str) -> Result<(), InvalidQuery> {
        let mut seen = vec![false; self.0.len()];
        for pair in pairs(query) {
            let (name, _) = pair.map_err(|_| InvalidQuery::NotUtf8)?;
            let Some(index) = self.0.iter().position(|known| *known == name) else {
                return Err(InvalidQuery::Unknown(name.into_owned(), self.0.clone()));
            };
            if std::mem::replace(&mut seen[index], true) {
                return Err(InvalidQuery::Repeated(name.into_owned()));
            }
        }
        Ok(())
    }
}

impl IntoResponse for InvalidQuery {
    fn into_response(self) -> Response {
        match self {
            Self::NotUtf8 => Problem::from(NotUtf8).into_response(),
            Self::Unknown(name, known) => {
                let name = quoted(&name);
                let detail = match known.as_slice() {
                    [] => format!("{name} is unknown: this operation has no query parameters."),
                    known => format!("{name} is unknown; write one of {}.", known.join(", ")),
                };
                Problem::UnknownParameter.response_with(detail)
            }
            Self::Repeated(name) => {
                let detail = format!("{} appears more than once; write it once.", quoted(&name));
                Problem::RepeatedParameter.response_with(detail)
            }
        }
    }
}

/// Quotes a name that a client sent: shortened, and without characters that a terminal or a log
/// viewer could interpret.
fn quoted(name: &str) -> String {
    let mut text: String = name
        .chars()
        .take(QUOTED)
        .flat_map(char::escape_debug)
        .collect();
    if name.chars().nth(QUOTED).is_some() {
        text.push('…');
    }
    format!("\"{text}\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parameters() -> Parameters {
        Parameters(vec!["limit".to_owned(), "email".to_owned()])
    }

    fn unknown(name: &str) -> Result<(), InvalidQuery> {
        Err(InvalidQuery::Unknown(name.to_owned(), parameters().0))
    }

    fn repeated(name: &str) -> Result<(), InvalidQuery> {
        Err(InvalidQuery::Repeated(name.to_owned()))
    }

    #[test]
    fn only_known_parameters_are_accepted_each_once() {
        for (query, expected) in [
            ("", Ok(())),
            ("&&", Ok(())),
            ("limit=1", Ok(())),
            ("email=a&limit=1", Ok(())),
            ("l%69mit=1", Ok(())),
            ("email", Ok(())),
            ("limt=1", unknown("limt")),
            ("Limit=1", unknown("Limit")),
            ("limit%3D=1", unknown("limit=")),
            ("=1", unknown("")),
            ("limit =1", unknown("limit ")),
            ("limit+=1", unknown("limit ")),
            ("limit=1&x=2&limit=2", unknown("x")),
            ("limit=1&limit=1", repeated("limit")),
            ("%6cimit=1&limit=2", repeated("limit")),
            ("email=a&limit=1&email", repeated("email")),
            ("%ff=1", Err(InvalidQuery::NotUtf8)),
            ("limit=%ff", Err(InvalidQuery::NotUtf8)),
        ] {
            assert_eq!(parameters().check(query), expected, "{query}");
        }
    }

    #[test]
    fn values_are_decoded_as_forms_encode_them() {
        let pairs: Result<Vec<_>, _> = pairs("a=1%2B2+3&&b=%C3%A4&c=x=y&d=%zz").collect();
        let expected = [("a", "1+2 3"), ("b", "ä"), ("c", "x=y"), ("d", "%zz")];
        let expected = expected.map(|(name, value)| (name.into(), value.into()));
        assert_eq!(pairs, Ok(expected.to_vec()));
    }

    #[tokio::test]
    async fn an_error_names_the_parameter_and_never_its_value() {
        for (query, code, detail) in [
            (
                "limt=private",
                "unknown_parameter",
                "\"limt\" is unknown; write one of limit, email.",
            ),
            (
                "limit=private&limit=private",
                "repeated_parameter",
                "\"limit\" appears more than once; write it once.",
            ),
            (
                "a%0A%22%E2%80%AE%1B",
                "unknown_parameter",
                r#""a\n\"\u{202e}\u{1b}" is unknown; write one of limit, email."#,
            ),
        ] {
            let response = parameters().check(query).unwrap_err().into_response();
            assert_eq!(response.status().as_u16(), 400);
            let body: serde_json::Value = response.into_body().into_json().await.unwrap();
            assert_eq!(body["code"], code);
            assert_eq!(body["detail"], detail);
        }
    }

    #[test]
    fn a_long_name_is_shortened() {
        assert_eq!(quoted(&"ä".repeat(64)), format!("\"{}\"", "ä".repeat(64)));
        assert_eq!(quoted(&"ä".repeat(65)), format!("\"{}…\"", "ä".repeat(64)));
    }
}

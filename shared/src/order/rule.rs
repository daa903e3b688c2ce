//! The rules that a field of the order can have, as data: for the checks and for the OpenAPI
//! document.

use std::ops::RangeInclusive;

use serde_json::Value;
use validator::ValidateEmail;

use super::registry::{is_currency, is_language_tag};

/// An object of the order's document.
#[derive(Debug)]
pub struct Entity {
    /// Name of the Rust type, such as `Payment`.
    pub name: &'static str,
    /// What the object represents.
    pub doc: &'static str,
    /// Its fields in the order of the document. None may be null.
    pub fields: &'static [Field],
}

impl Entity {
    /// Returns an object of this kind in which every field satisfies its rule.
    pub fn example(&self) -> Value {
        self.fields
            .iter()
            .map(|field| (field.name.to_owned(), field.example()))
            .collect()
    }
}

/// A field of an [`Entity`].
#[derive(Debug)]
pub struct Field {
    /// Name in JSON.
    pub name: &'static str,
    /// What the field means.
    pub doc: &'static str,
    /// Whether a document may lack the field.
    pub optional: bool,
    /// The rule for values.
    pub rule: Rule,
    /// JSON text of a valid value, or `None` for a nested object, whose fields have their own
    /// examples.
    pub(super) example: Option<&'static str>,
}

impl Field {
    /// Returns a valid value.
    pub fn example(&self) -> Value {
        match (&self.rule, self.example) {
            (Rule::Object(entity), _) => entity.example(),
            (Rule::Objects(list), _) => Value::Array(vec![list.entity.example()]),
            (_, Some(json)) => serde_json::from_str(json).unwrap_or_default(),
            (_, None) => Value::Null,
        }
    }
}

/// A rule that spans several fields of a `T`.
#[derive(Debug)]
pub struct Relation<T> {
    /// Code of the rule in a rejection.
    pub code: &'static str,
    /// The rule in words.
    pub words: &'static str,
    /// Whether the rule holds for a value whose fields satisfy their own rules.
    pub holds: fn(&T) -> bool,
}

/// A rule for values, by JSON type.
#[derive(Debug)]
pub enum Rule {
    /// A string.
    Text(Text),
    /// A 32-bit integer.
    Int32(Range<i32>),
    /// A 64-bit integer.
    Int64(Range<i64>),
    /// A point in time as RFC 3339 text.
    DateTime(Years),
    /// A nested object.
    Object(&'static Entity),
    /// An array of objects.
    Objects(List),
}

impl Rule {
    /// Returns the JSON type: `string`, `integer`, `object` or `array`.
    pub const fn json_type(&self) -> &'static str {
        match self {
            Self::Text(_) | Self::DateTime(_) => "string",
            Self::Int32(_) | Self::Int64(_) => "integer",
            Self::Object(_) => "object",
            Self::Objects(_) => "array",
        }
    }

    /// Returns the OpenAPI format: `int32`, `int64`, `date-time` or `email`.
    pub const fn format(&self) -> Option<&'static str> {
        match self {
            Self::Text(text) => text.format,
            Self::Int32(_) => Some("int32"),
            Self::Int64(_) => Some("int64"),
            Self::DateTime(_) => Some("date-time"),
            Self::Object(_) | Self::Objects(_) => None,
        }
    }

    /// Minimum length of a string in characters.
    pub const fn min_length(&self) -> Option<usize> {
        match self {
            Self::Text(text) => Some(text.min_length),
            _ => None,
        }
    }

    /// Maximum length of a string in characters.
    pub const fn max_length(&self) -> Option<usize> {
        match self {
            Self::Text(text) => Some(text.max_length),
            _ => None,
        }
    }

    /// ECMA 262 pattern of a string.
    pub const fn pattern(&self) -> Option<&'static str> {
        match self {
            Self::Text(text) => text.pattern,
            _ => None,
        }
    }

    /// Minimum of an integer, or `None` if it equals the minimum of the format.
    pub fn minimum(&self) -> Option<i64> {
        match self {
            Self::Int32(range) => (range.min > i32::MIN).then_some(range.min.into()),
            Self::Int64(range) => (range.min > i64::MIN).then_some(range.min),
            _ => None,
        }
    }

    /// Maximum of an integer, or `None` if it equals the maximum of the format.
    pub fn maximum(&self) -> Option<i64> {
        match self {
            Self::Int32(range) => (range.max < i32::MAX).then_some(range.max.into()),
            Self::Int64(range) => (range.max < i64::MAX).then_some(range.max),
            _ => None,
        }
    }

    /// Minimum number of elements of an array.
    pub const fn min_items(&self) -> Option<usize> {
        match self {
            Self::Objects(list) => Some(list.min_items),
            _ => None,
        }
    }

    /// Maximum number of elements of an array.
    pub const fn max_items(&self) -> Option<usize> {
        match self {
            Self::Objects(list) => Some(list.max_items),
            _ => None,
        }
    }

    /// The nested object, or the object type of the elements of an array.
    pub const fn entity(&self) -> Option<&'static Entity> {
        match self {
            Self::Object(entity) => Some(entity),
            Self::Objects(list) => Some(list.entity),
            _ => None,
        }
    }
}

/// A rule for strings. Lengths are counted in characters.
#[derive(Debug)]
pub struct Text {
    /// Code of the rule in a rejection.
    pub code: &'static str,
    /// Minimum length in characters.
    pub min_length: usize,
    /// Maximum length in characters.
    pub max_length: usize,
    /// ECMA 262 pattern of the shape, if a pattern can describe it. Documentation only: the check
    /// does not use it.
    pub pattern: Option<&'static str>,
    /// OpenAPI format, if there is one.
    pub format: Option<&'static str>,
    /// The allowed content in words, which continue the length: `digits`.
    pub(super) content: &'static str,
    /// Checks the shape of a string that has a valid length.
    shape: fn(&str) -> bool,
}

impl Text {
    /// An identifier: 1 to 64 characters of `A-Z a-z 0-9 _ -`.
    pub const CODE: Self = Self {
        code: "code",
        min_length: 1,
        max_length: 64,
        pattern: Some("^[A-Za-z0-9_-]{1,64}$"),
        format: None,
        content: "letters, digits, dashes or underscores",
        // Checks every byte. Stopping at the first invalid byte would need a branch per byte, which
        // processors cannot predict in a mix of letters and digits.
        shape: |text| {
            text.bytes().fold(true, |fit, byte| {
                fit & (byte.is_ascii_alphanumeric() | matches!(byte, b'_' | b'-'))
            })
        },
    };

    /// A readable text: not blank, at most 256 characters, no control characters.
    pub const NAME: Self = Self::readable(256);

    /// Like [`Text::NAME`], but at most 512 characters.
    pub const ADDRESS: Self = Self::readable(512);

    /// A text of up to 256 characters, which may be empty. U+0000 is not allowed: Postgres cannot
    /// store it in a text.
    pub const OPTIONAL: Self = Self {
        code: "text",
        min_length: 0,
        max_length: 256,
        pattern: Some(r"^[^\x00]*$"),
        format: None,
        content: "characters, none of them U+0000",
        shape: |text| !text.as_bytes().contains(&0),
    };

    /// A shard number: 1 to 20 digits.
    pub const DIGITS: Self = Self {
        code: "digits",
        min_length: 1,
        max_length: 20,
        pattern: Some("^[0-9]{1,20}$"),
        format: None,
        content: "digits",
        shape: |text| text.bytes().all(|byte| byte.is_ascii_digit()),
    };

    /// A valid BCP 47 language tag: registered subtags, deprecated ones included.
    pub const LOCALE: Self = Self {
        code: "bcp47",
        min_length: 2,
        max_length: 256,
        pattern: Some("^[A-Za-z0-9-]+$"),
        format: None,
        content: "characters: a registered BCP 47 language tag such as en or pt-BR",
        shape: is_language_tag,
    };

    /// An ISO 4217 alphabetic code, current or historic, in capitals.
    pub const CURRENCY: Self = Self {
        code: "iso4217",
        min_length: 3,
        max_length: 3,
        pattern: Some("^[A-Z]{3}$"),
        format: None,
        content: "capital letters: an ISO 4217 currency code such as USD",
        shape: is_currency,
    };

    /// An E.164 number: `+` and 2 to 15 digits, of which the first is not 0.
    pub const PHONE: Self = Self {
        code: "e164",
        min_length: 3,
        max_length: 16,
        pattern: Some(r"^\+[1-9][0-9]{1,14}$"),
        format: None,
        content: "characters: an E.164 number such as +9720000000",
        shape: |text| match text.as_bytes() {
            [b'+', b'1'..=b'9', rest @ ..] => rest.iter().all(u8::is_ascii_digit),
            _ => false,
        },
    };

    /// A postal code: 1 to 16 ASCII letters, digits, spaces or dashes.
    pub const ZIP: Self = Self {
        code: "zip",
        min_length: 1,
        max_length: 16,
        pattern: Some("^[A-Za-z0-9 -]{1,16}$"),
        format: None,
        content: "letters, digits, spaces or dashes",
        shape: |text| {
            text.bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b' ' | b'-'))
        },
    };

    /// An e-mail address as HTML 5 defines it: up to 64 characters, `@`, up to 255 characters.
    pub const EMAIL: Self = Self {
        code: "email",
        min_length: 3,
        max_length: 320,
        pattern: None,
        format: Some("email"),
        content: "characters: an e-mail address such as name@example.com",
        shape: is_email,
    };

    const fn readable(max_length: usize) -> Self {
        Self {
            code: "text",
            min_length: 1,
            max_length,
            pattern: Some(r"^[^\x00-\x1f\x7f-\x9f]*[^\s\x00-\x1f\x7f-\x9f][^\x00-\x1f\x7f-\x9f]*$"),
            format: None,
            content: "characters, not only spaces, no control characters",
            shape: |text| {
                !text.chars().all(char::is_whitespace) && !text.chars().any(char::is_control)
            },
        }
    }

    /// Whether `text` satisfies the rule.
    pub fn holds(&self, text: &str) -> bool {
        self.has_length(text) && (self.shape)(text)
    }

    fn has_length(&self, text: &str) -> bool {
        // A character takes one to four bytes, so most texts need no counting.
        let bytes = text.len();
        if bytes > 4 * self.max_length {
            return false;
        }
        if bytes <= self.max_length && bytes >= 4 * self.min_length {
            return true;
        }
        (self.min_length..=self.max_length).contains(&text.chars().count())
    }
}

/// A closed range of integers.
#[derive(Debug)]
pub struct Range<N> {
    /// Smallest value.
    pub min: N,
    /// Largest value.
    pub max: N,
}

impl Range<i32> {
    /// Any value.
    pub const ANY: Self = Self::of(i32::MIN..=i32::MAX);
    /// Greater than 0.
    pub const POSITIVE: Self = Self::of(1..=i32::MAX);
    /// A percentage: 0 to 100.
    pub const PERCENT: Self = Self::of(0..=100);

    const fn of(range: RangeInclusive<i32>) -> Self {
        Self {
            min: *range.start(),
            max: *range.end(),
        }
    }
}

impl Range<i64> {
    /// Greater than 0.
    pub const POSITIVE: Self = Self {
        min: 1,
        max: i64::MAX,
    };
    /// 0 or more: an amount of money in minor units.
    pub const MONEY: Self = Self {
        min: 0,
        max: i64::MAX,
    };
}

impl<N> Range<N> {
    /// Code of the rule in a rejection.
    pub const CODE: &'static str = "range";
}

impl<N: PartialOrd> Range<N> {
    /// Whether `number` is in the range.
    pub fn holds(&self, number: &N) -> bool {
        self.min <= *number && *number <= self.max
    }
}

/// A range of calendar years (UTC), including both ends.
#[derive(Debug)]
pub struct Years {
    /// The first year.
    pub min: i32,
    /// The last year.
    pub max: i32,
}

impl Years {
    /// Code of the rule in a rejection.
    pub const CODE: &'static str = "rfc3339";

    /// The years that both RFC 3339 and Postgres can represent: RFC 3339 has four digits, and
    /// Postgres has no year 0.
    pub const COMMON_ERA: Self = Self { min: 1, max: 9999 };
}

/// An array of objects.
#[derive(Debug)]
pub struct List {
    /// Minimum number of elements.
    pub min_items: usize,
    /// Maximum number of elements.
    pub max_items: usize,
    /// Type of each element.
    pub entity: &'static Entity,
}

impl List {
    /// Code of the rule in a rejection.
    pub const CODE: &'static str = "count";

    /// 1 to 1000 objects.
    pub const fn lines(entity: &'static Entity) -> Self {
        Self {
            min_items: 1,
            max_items: 1000,
            entity,
        }
    }
}

/// Whether `text` is an address as HTML 5 defines it, or one with an internationalised domain or an
/// address literal.
fn is_email(text: &str) -> bool {
    let Some((user, domain)) = text.rsplit_once('@') else {
        return false;
    };
    // The crate looks for a literal such as `[127.0.0.1]` at the end of the domain and accepts any
    // text before it.
    let literal_alone = domain.starts_with('[') == domain.ends_with(']');
    is_plain_address(user, domain) || (literal_alone && text.validate_email())
}

/// Accepts most of the addresses that the crate accepts, without its two regular expressions. They
/// cost as much as all other rules together.
fn is_plain_address(user: &str, domain: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    (1..=64).contains(&user.len())
        && user
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'+' | b'-'))
        && domain.len() <= 255
        && domain.split('.').all(label)
}

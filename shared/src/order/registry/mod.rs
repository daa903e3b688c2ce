//! Registries of codes: ISO 4217 for currencies, IANA's subtags for BCP 47 language tags.
//!
//! Both are data files with a date. `scripts/update-registries` writes them. A code stays valid
//! after its withdrawal: the files contain historic currencies and deprecated subtags.
//!
//! | file | content |
//! |---|---|
//! | `currencies.txt` | ISO 4217 alphabetic codes, current and historic |
//! | `subtags.txt` | IANA language subtags, and the tags that predate them |
//! | `language` | validity of a language tag (RFC 5646, section 2.2.9) |

mod language;

use std::sync::LazyLock;

pub(super) use language::is_language_tag;

pub(super) const CURRENCIES_FILE: &str = include_str!("currencies.txt");
pub(super) const SUBTAGS_FILE: &str = include_str!("subtags.txt");

static CURRENCIES: LazyLock<Codes> = LazyLock::new(|| {
    let codes = ["current", "historic"].map(|name| section(CURRENCIES_FILE, name));
    Codes::new(codes.into_iter().flatten())
});

/// Whether `text` is an ISO 4217 alphabetic code, current or historic, in capitals.
pub(super) fn is_currency(text: &str) -> bool {
    CURRENCIES.contains(Code::exact(text))
}

/// Returns the lines of one section of a data file: those between its header, such as `[script]`,
/// and the next header.
pub(super) fn section(file: &'static str, name: &str) -> impl Iterator<Item = &'static str> {
    let header = format!("[{name}]");
    file.lines()
        .skip_while(move |line| *line != header)
        .skip(1)
        .take_while(|line| !line.starts_with('['))
        .filter(|line| !line.is_empty())
}

/// A code of 1 to 8 ASCII letters and digits, stored as a number because that compares faster than
/// text.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Code(u64);

impl Code {
    /// Converts `text`. Returns `None` if it is not a code.
    fn exact(text: &str) -> Option<Self> {
        Self::of(text.bytes())
    }

    /// Converts `text` in lower case. Returns `None` if it is not a code.
    fn lower(text: &str) -> Option<Self> {
        Self::of(text.bytes().map(|byte| byte.to_ascii_lowercase()))
    }

    fn of(bytes: impl ExactSizeIterator<Item = u8>) -> Option<Self> {
        if !(1..=8).contains(&bytes.len()) {
            return None;
        }
        let (number, fits) = bytes.fold((0, true), |(number, fits), byte| {
            let fits = fits & byte.is_ascii_alphanumeric();
            (number << 8 | u64::from(byte), fits)
        });
        fits.then_some(Self(number))
    }
}

/// A set of codes.
struct Codes(Vec<Code>);

impl Codes {
    fn new(codes: impl Iterator<Item = &'static str>) -> Self {
        let mut codes: Vec<_> = codes.filter_map(Code::exact).collect();
        codes.sort_unstable();
        Self(codes)
    }

    fn contains(&self, code: Option<Code>) -> bool {
        code.is_some_and(|code| self.0.binary_search(&code).is_ok())
    }
}

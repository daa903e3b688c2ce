//! Validity of a language tag: RFC 5646, section 2.2.9.
//!
//! A valid tag is well-formed, and its language, extended language, script, region and variants are
//! registered. The extended language follows its prefix. No variant and no extension occurs twice.
//! Extensions and private use subtags only need to be well-formed, because the registry does not
//! contain them.

use std::iter::Peekable;
use std::ops::RangeInclusive;
use std::sync::LazyLock;

use super::{Code, Codes, SUBTAGS_FILE, section};

/// The registry in lower case. Tags are case-insensitive.
struct Subtags {
    languages: Codes,
    /// Extended languages, each with its prefix: the only language that it may follow.
    extended: Vec<(Code, Code)>,
    scripts: Codes,
    regions: Codes,
    variants: Codes,
    /// Whole tags that predate the registry. Most do not follow the grammar.
    grandfathered: Vec<&'static str>,
}

static SUBTAGS: LazyLock<Subtags> = LazyLock::new(|| {
    let codes = |name| Codes::new(section(SUBTAGS_FILE, name));
    let mut extended: Vec<_> = section(SUBTAGS_FILE, "extlang")
        .filter_map(|line| {
            let (subtag, prefix) = line.split_once(' ')?;
            Code::exact(subtag).zip(Code::exact(prefix))
        })
        .collect();
    extended.sort_unstable();
    Subtags {
        languages: codes("language"),
        extended,
        scripts: codes("script"),
        regions: codes("region"),
        variants: codes("variant"),
        grandfathered: section(SUBTAGS_FILE, "grandfathered").collect(),
    }
});

/// Whether `tag` is a valid language tag.
pub(in crate::order) fn is_language_tag(tag: &str) -> bool {
    // Most orders have one of these. The registry contains them too, but that lookup takes ten
    // times as long.
    if matches!(tag, "de" | "en" | "es" | "fr" | "ru" | "tr" | "zh") {
        return true;
    }
    let subtags = &*SUBTAGS;
    let is_grandfathered = || {
        let mut known = subtags.grandfathered.iter();
        known.any(|known| known.eq_ignore_ascii_case(tag))
    };
    subtags.compose(tag) || is_grandfathered()
}

impl Subtags {
    /// Whether `tag` is composed of registered subtags, in the order of the grammar.
    fn compose(&self, tag: &str) -> bool {
        let mut subtags = tag.split('-').peekable();
        let language = Code::lower(subtags.peek().copied().unwrap_or_default());
        if !self.languages.contains(language) {
            // A tag without a language is private use as a whole.
            return is_private_use(&mut subtags);
        }
        subtags.next();
        subtags.next_if(|subtag| self.extends(language, Code::lower(subtag)));
        subtags.next_if(|subtag| self.scripts.contains(Code::lower(subtag)));
        subtags.next_if(|subtag| self.regions.contains(Code::lower(subtag)));
        let mut variants = Vec::new();
        while let Some(subtag) =
            subtags.next_if(|subtag| self.variants.contains(Code::lower(subtag)))
        {
            let variant = Code::lower(subtag);
            if variants.contains(&variant) {
                return false;
            }
            variants.push(variant);
        }
        // The rest must be extensions. An unregistered or misplaced subtag does not begin one.
        are_extensions(&mut subtags)
    }

    fn extends(&self, language: Option<Code>, subtag: Option<Code>) -> bool {
        let pair = subtag.zip(language);
        pair.is_some_and(|pair| self.extended.binary_search(&pair).is_ok())
    }
}

/// Whether `subtags` are zero or more extensions (each a singleton and its subtags), followed by
/// optional private use.
fn are_extensions<'a>(subtags: &mut Peekable<impl Iterator<Item = &'a str>>) -> bool {
    let mut singletons = Vec::new();
    while let Some(subtag) = subtags.peek() {
        if subtag.eq_ignore_ascii_case("x") {
            return is_private_use(subtags);
        }
        let singleton = Code::lower(subtag);
        if subtag.len() != 1 || singleton.is_none() || singletons.contains(&singleton) {
            return false;
        }
        singletons.push(singleton);
        subtags.next();
        if !skip(subtags, 2..=8) {
            return false;
        }
    }
    true
}

/// Whether `subtags` are `x` and at least one more subtag, each of 1 to 8 letters and digits.
fn is_private_use<'a>(subtags: &mut Peekable<impl Iterator<Item = &'a str>>) -> bool {
    let begins = subtags.next_if(|subtag| subtag.eq_ignore_ascii_case("x"));
    begins.is_some() && skip(subtags, 1..=8) && subtags.peek().is_none()
}

/// Skips subtags of this length. Returns false if there is none.
fn skip<'a>(
    subtags: &mut Peekable<impl Iterator<Item = &'a str>>,
    length: RangeInclusive<usize>,
) -> bool {
    let mut skipped = false;
    while subtags
        .next_if(|subtag| length.contains(&subtag.len()) && Code::lower(subtag).is_some())
        .is_some()
    {
        skipped = true;
    }
    skipped
}

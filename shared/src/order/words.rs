//! The rules in words, for people who read a rejection. They come from the same definitions as the
//! checks.

use super::model::Order;
use super::rule::{Entity, Field, Range, Rule, Text};

/// Returns a line `path: rule in words` for each field and rule that the detail of a
/// [`Rejection`](super::Rejection) names. Empty if it names none.
pub fn explain(detail: &str) -> Vec<String> {
    let mut lines: Vec<String> = detail.split(", ").filter_map(explain_part).collect();
    lines.dedup();
    lines
}

fn explain_part(part: &str) -> Option<String> {
    let (path, fault) = part.split_once(": ")?;
    if let Some(field) = field(path) {
        return Some(format!("{path}: {}", field.rule.words()));
    }
    let mut relations = Order::RELATIONS.iter();
    let relation = relations.find(|relation| path == "order" && relation.code == fault)?;
    Some(format!("{path}: {}", relation.words))
}

/// Returns the field at a path such as `items[3].price`.
fn field(path: &str) -> Option<&'static Field> {
    let mut entity: Option<&'static Entity> = Some(Order::ENTITY);
    let mut found = None;
    for step in path.split('.') {
        let name = step.split('[').next()?;
        let mut fields = entity?.fields.iter();
        let field = fields.find(|field| field.name == name)?;
        entity = field.rule.entity();
        found = Some(field);
    }
    found
}

impl Rule {
    /// Returns the rule in words, such as `1 to 16 letters, digits, spaces or dashes`.
    pub fn words(&self) -> String {
        match self {
            Self::Text(text) => text.words(),
            Self::Int32(range) => range.words(32, i32::MIN, i32::MAX),
            Self::Int64(range) => range.words(64, i64::MIN, i64::MAX),
            Self::DateTime(years) => format!(
                "an RFC 3339 time such as 2026-01-31T12:00:00Z, in the years {} to {}",
                years.min, years.max
            ),
            Self::Object(_) => "an object".to_owned(),
            Self::Objects(list) => format!("{} to {} objects", list.min_items, list.max_items),
        }
    }
}

impl Text {
    fn words(&self) -> String {
        let length = match (self.min_length, self.max_length) {
            (0, max) => format!("at most {max}"),
            (min, max) if min == max => format!("{min}"),
            (min, max) => format!("{min} to {max}"),
        };
        format!("{length} {}", self.content)
    }
}

impl<N: PartialEq + std::fmt::Display> Range<N> {
    fn words(&self, bits: u32, lowest: N, highest: N) -> String {
        let Self { min, max } = self;
        match (*min == lowest, *max == highest) {
            (true, true) => format!("a {bits}-bit integer"),
            (false, true) => format!("a {bits}-bit integer, {min} or more"),
            (true, false) => format!("a {bits}-bit integer, at most {max}"),
            (false, false) => format!("an integer from {min} to {max}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns every field of `entity`, each with its path in a rejection.
    fn fields(entity: &'static Entity, prefix: &str) -> Vec<(String, &'static Field)> {
        let mut found = Vec::new();
        for field in entity.fields {
            let path = format!("{prefix}{}", field.name);
            if let Some(inner) = field.rule.entity() {
                let index = if field.rule.max_items().is_some() {
                    "[3]"
                } else {
                    ""
                };
                found.extend(fields(inner, &format!("{path}{index}.")));
            }
            found.push((path, field));
        }
        found
    }

    #[test]
    fn every_rule_of_every_field_is_explained_with_its_limits() {
        let fields = fields(Order::ENTITY, "");
        assert!(fields.len() > 40, "{}", fields.len());
        for (path, field) in fields {
            let lines = explain(&format!("{path}: any, line 1 column 2"));
            let [line] = lines.as_slice() else {
                panic!("{path}: {lines:?}")
            };
            let words = line.strip_prefix(&format!("{path}: ")).unwrap();
            let rule = &field.rule;
            let lengths = [rule.min_length(), rule.max_length()];
            let counts = [rule.min_items(), rule.max_items()];
            let sizes = lengths.into_iter().chain(counts).flatten();
            let bounds = [rule.minimum(), rule.maximum()].into_iter().flatten();
            let numbers = sizes.filter(|size| *size > 0).map(|size| size.to_string());
            for number in numbers.chain(bounds.map(|bound| bound.to_string())) {
                let mut found = words.split([' ', ',']);
                assert!(found.any(|word| word == number), "{line}: {number}");
            }
        }
    }

    /// Whether the words of a rule allow `character`. None if they are not only a list of kinds.
    fn allowed_by(words: &str, character: char) -> Option<bool> {
        let mut allowed = false;
        for kind in words.split(", ").flat_map(|part| part.split(" or ")) {
            allowed |= match kind {
                "letters" => character.is_ascii_alphabetic(),
                "digits" => character.is_ascii_digit(),
                "spaces" => character == ' ',
                "dashes" => character == '-',
                "underscores" => character == '_',
                _ => return None,
            };
        }
        Some(allowed)
    }

    #[test]
    fn the_kinds_of_characters_are_those_of_the_check() {
        let mut lists = 0;
        for (path, field) in fields(Order::ENTITY, "") {
            let Rule::Text(text) = &field.rule else {
                continue;
            };
            for character in (0..=0x17f).filter_map(char::from_u32) {
                let Some(allowed) = allowed_by(text.content, character) else {
                    continue;
                };
                lists += 1;
                let value = character.to_string().repeat(text.min_length);
                assert_eq!(text.holds(&value), allowed, "{path}: {character:?}");
            }
        }
        assert!(lists >= 8 * 0x180, "{lists}");
    }

    #[test]
    fn examples_in_words_satisfy_their_rule() {
        let mut examples = 0;
        for (path, field) in fields(Order::ENTITY, "") {
            let Rule::Text(text) = &field.rule else {
                continue;
            };
            if let Some((_, list)) = text.content.split_once("such as ") {
                for example in list.split(" or ") {
                    examples += 1;
                    assert!(text.holds(example), "{path}: {example}");
                }
            }
        }
        assert!(examples >= 5, "{examples}");
    }

    #[test]
    fn a_detail_may_name_several_rules_or_none() {
        assert_eq!(
            explain("delivery.zip: zip, items[12].sale: range and 2 more"),
            [
                "delivery.zip: 1 to 16 letters, digits, spaces or dashes",
                "items[12].sale: an integer from 0 to 100"
            ]
        );
        for nothing in [
            "",
            "not JSON, line 1 column 2",
            "(unknown field): duplicated, line 1 column 2",
            "SQLSTATE 23514",
            "header replay-version: expected TIMESTAMP/OFFSET/PARTITION",
            "delivery.zip.code: zip",
        ] {
            assert_eq!(explain(nothing), Vec::<String>::new(), "{nothing}");
        }
    }
}

//! `worker dead-letters count`.

use std::{collections::BTreeMap, ops::ControlFlow};

use clap::{Args, ValueEnum};
use serde::Serialize;
use shared::{config::Kafka, runtime::output};

use super::{
    marks::Marks,
    open,
    row::Row,
    scan,
    selection::Selection,
    terminal::{Output, letters},
};

/// Groups that a count keeps apart. Further ones are counted as [`OTHERS`]: details of foreign
/// records may all differ.
const MAX_GROUPS: usize = 1000;
const OTHERS: &str = "(others)";

/// Counts dead letters.
#[derive(Debug, Args)]
pub struct Count {
    /// What to count by.
    #[arg(long, value_enum, default_value_t = By::Reason)]
    by: By,
    /// The dead letters to select.
    #[command(flatten)]
    selection: Selection,
    /// Print one JSON object per line.
    #[arg(long)]
    json: bool,
}

/// What dead letters are counted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum By {
    /// The reason, such as `invalid_order`.
    Reason,
    /// The broken rules without positions, such as `items[].price: range`.
    Rule,
    /// The partition of the dead letter topic.
    Partition,
    /// The source topic.
    Topic,
    /// The day (UTC) on which they were dead-lettered.
    Day,
}

impl By {
    fn name(self) -> String {
        let value = self.to_possible_value();
        value.map_or_else(String::new, |value| value.get_name().to_owned())
    }

    fn key(self, row: &Row) -> String {
        match self {
            Self::Reason => row.reason.clone(),
            Self::Rule => format!("{}: {}", row.reason, without_positions(&row.detail)),
            Self::Partition => row.partition.to_string(),
            Self::Topic => row.source_topic.clone().unwrap_or_else(|| "-".to_owned()),
            Self::Day => row.time.chars().take_while(|it| *it != 'T').collect(),
        }
    }
}

/// Returns a detail without the positions that differ from record to record: indexes, lines,
/// columns and bytes.
fn without_positions(detail: &str) -> String {
    let ends = [", line ", " at byte "].map(|position| detail.rfind(position));
    let end = ends.into_iter().flatten().min();
    let detail = &detail[..end.unwrap_or(detail.len())];
    let mut text = String::new();
    let mut parts = detail.split('[');
    text.extend(parts.next());
    for part in parts {
        text.push('[');
        text.push_str(part.trim_start_matches(|digit: char| digit.is_ascii_digit()));
    }
    text
}

/// The dead letters of one group.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
struct Group {
    count: u64,
    /// None if it is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    replayed: Option<u64>,
    oldest: String,
    newest: String,
}

impl Group {
    fn add(&mut self, row: &Row) {
        let is_first = self.count == 0;
        self.count += 1;
        let replayed = row.replayed_at.as_ref();
        let replayed = replayed.map(|at| u64::from(at.is_some()));
        self.replayed = match is_first {
            true => replayed,
            false => self.replayed.zip(replayed).map(|(sum, one)| sum + one),
        };
        if is_first || row.time < self.oldest {
            self.oldest.clone_from(&row.time);
        }
        if row.time > self.newest {
            self.newest.clone_from(&row.time);
        }
    }
}

impl Count {
    pub(super) fn run(&self, kafka: &Kafka) -> anyhow::Result<()> {
        let Some(reader) = open(kafka)? else {
            return Ok(());
        };
        let mut groups = Groups::default();
        let mut marks = Marks::new(reader.topic())?;
        scan::rows(&reader, &self.selection, &mut marks, |row| {
            groups.add(self.by.key(row), row);
            Ok(ControlFlow::Continue(()))
        })?;
        self.print(&groups)
    }

    fn print(&self, groups: &Groups) -> anyhow::Result<()> {
        let mut out = Output::new();
        let name = self.by.name();
        if !self.json && !groups.0.is_empty() {
            let heading = name.to_uppercase();
            let line = format!(
                "{:>9} {:>9}  {:<24}  {:<24}  {heading}",
                "COUNT", "REPLAYED", "OLDEST", "NEWEST"
            );
            out.line(&line)?;
        }
        for (key, group) in groups.largest_first() {
            let line = match self.json {
                true => json(&name, key, group)?,
                false => line(key, group),
            };
            out.line(&line)?;
        }
        out.flush()?;
        output::note(letters(groups.total()));
        Ok(())
    }
}

fn line(key: &str, group: &Group) -> String {
    let replayed = group.replayed.map_or("?".to_owned(), |it| it.to_string());
    format!(
        "{:>9} {replayed:>9}  {:<24}  {:<24}  {key}",
        group.count, group.oldest, group.newest
    )
}

fn json(name: &str, key: &str, group: &Group) -> anyhow::Result<String> {
    #[derive(Serialize)]
    struct Line<'a> {
        by: &'a str,
        key: &'a str,
        #[serde(flatten)]
        group: &'a Group,
    }
    let line = Line {
        by: name,
        key,
        group,
    };
    Ok(serde_json::to_string(&line)?)
}

#[derive(Default)]
struct Groups(BTreeMap<String, Group>);

impl Groups {
    fn add(&mut self, key: String, row: &Row) {
        let is_full = self.0.len() >= MAX_GROUPS && !self.0.contains_key(&key);
        let key = if is_full { OTHERS.to_owned() } else { key };
        self.0.entry(key).or_default().add(row);
    }

    fn largest_first(&self) -> Vec<(&str, &Group)> {
        let mut groups: Vec<_> = self.0.iter().map(|(key, group)| (&**key, group)).collect();
        groups.sort_by_key(|(_, group)| std::cmp::Reverse(group.count));
        groups
    }

    fn total(&self) -> u64 {
        self.0.values().map(|group| group.count).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{dead_letters::row::tests::letter, kafka::Timestamp};

    fn row(reason: &str, detail: &str, millis: i64, replayed: Option<bool>) -> Row {
        let mut letter = letter(reason, detail, b"{}");
        letter.record.timestamp = Timestamp::LogAppend(millis);
        let mut row = Row::of(&letter);
        row.replayed_at = replayed.map(|replayed| replayed.then(|| "then".to_owned()));
        row
    }

    #[test]
    fn positions_do_not_make_another_rule() {
        for (detail, expected) in [
            ("items[12].price: range", "items[].price: range"),
            (
                "items[0].sale: range, items[1].sale: range",
                "items[].sale: range, items[].sale: range",
            ),
            ("locale: missing, line 3 column 44", "locale: missing"),
            ("not JSON, line 1 column 2", "not JSON"),
            ("not UTF-8 at byte 12", "not UTF-8"),
            ("payment.currency: iso4217", "payment.currency: iso4217"),
            ("SQLSTATE 23514", "SQLSTATE 23514"),
            ("", ""),
        ] {
            assert_eq!(without_positions(detail), expected);
        }
    }

    #[test]
    fn the_largest_group_comes_first_with_its_ends() {
        let mut groups = Groups::default();
        for (detail, millis, replayed) in [
            ("items[1].sale: range", 3000, Some(true)),
            ("locale: bcp47", 2000, None),
            ("items[9].sale: range", 1000, Some(false)),
        ] {
            let row = row("invalid_order", detail, millis, replayed);
            groups.add(By::Rule.key(&row), &row);
        }
        let sorted = groups.largest_first();
        assert_eq!(sorted[0].0, "invalid_order: items[].sale: range");
        assert_eq!(
            json("rule", "k", sorted[0].1).unwrap(),
            r#"{"by":"rule","key":"k","count":2,"replayed":1,"#.to_owned()
                + r#""oldest":"1970-01-01T00:00:01.000Z","newest":"1970-01-01T00:00:03.000Z"}"#
        );
        assert_eq!(sorted[1].1.replayed, None, "it is not known");
        assert_eq!(groups.total(), 3);
    }

    #[test]
    fn each_way_to_count_has_its_key() {
        let row = row("too_large", "d", 86_400_000, None);
        for (by, expected) in [
            (By::Reason, "too_large"),
            (By::Rule, "too_large: d"),
            (By::Partition, "0"),
            (By::Topic, "orders"),
            (By::Day, "1970-01-02"),
        ] {
            assert_eq!(by.key(&row), expected);
        }
    }

    #[test]
    fn the_number_of_groups_is_limited() {
        let mut groups = Groups::default();
        for n in 0..MAX_GROUPS + 5 {
            groups.add(n.to_string(), &row("x", "d", 0, None));
        }
        assert_eq!(groups.0.len(), MAX_GROUPS + 1);
        assert_eq!(groups.0[OTHERS].count, 5);
        assert_eq!(groups.total(), MAX_GROUPS as u64 + 5);
    }
}

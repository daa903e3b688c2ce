//! `worker dead-letters purge`.

use std::{collections::BTreeMap, ops::ControlFlow};

use chrono::{DateTime, Utc};
use clap::Args;
use serde::Serialize;
use shared::{config::Kafka, runtime::output};

use super::{
    marks::Marks,
    open,
    row::Row,
    scan,
    selection::{self, Selection, check_partitions},
    terminal::{Output, letters},
};
use crate::{
    kafka::dead_letter::{Ranges, Reader, delete_below},
    moment,
};

/// Deletes the oldest dead letters from the topic.
#[derive(Debug, Args)]
pub struct Purge {
    /// Delete what was dead-lettered before this time: an RFC 3339 time such as
    /// 2026-01-31T12:00:00Z, or a duration before now, such as 14d.
    #[arg(long, value_name = "TIME", value_parser = moment::parse_past)]
    before: DateTime<Utc>,
    /// Only in this partition of the dead letter topic. Repeat it, or separate partitions by
    /// commas.
    #[arg(long, value_name = "P", value_delimiter = ',', value_parser = selection::partition)]
    partition: Vec<i32>,
    /// Do not ask before deleting.
    #[arg(long, short, conflicts_with = "dry_run")]
    yes: bool,
    /// Only print what would be deleted.
    #[arg(long)]
    dry_run: bool,
    /// Print one JSON object per line.
    #[arg(long)]
    json: bool,
}

/// What is deleted from one partition. The field names are those of the JSON output.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
struct Part {
    partition: i32,
    /// The first offset to delete.
    from: i64,
    /// The first offset to keep.
    to: i64,
    count: u64,
    /// How many of them were never replayed; none if it is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    never_replayed: Option<u64>,
}

impl Purge {
    pub(super) fn run(&self, kafka: &Kafka) -> anyhow::Result<()> {
        let Some(reader) = open(kafka)? else {
            return Ok(());
        };
        check_partitions(reader.topic(), reader.partitions(), &self.partition)?;
        let ranges = self.ranges(&reader)?;
        let mut marks = Marks::new(reader.topic())?;
        let parts = count(&reader, &ranges, &mut marks)?;
        // What is deleted does not depend on who reads the list.
        output::unless_closed(print(&parts, self.json))?;
        let total = parts.iter().map(|part| part.count).sum();
        match (total, self.dry_run) {
            (0, _) => output::note("no dead letters to delete"),
            (_, true) => output::note(format_args!("{} would be deleted", letters(total))),
            (_, false) => self.delete(kafka, &reader, &marks, &parts, total)?,
        }
        Ok(())
    }

    fn delete(
        &self,
        kafka: &Kafka,
        reader: &Reader,
        marks: &Marks,
        parts: &[Part],
        total: u64,
    ) -> anyhow::Result<()> {
        let topic = reader.topic();
        let action = format!("delete {} of topic {topic} for good", letters(total));
        output::confirm(self.yes, &action)?;
        let ends: Vec<(i32, i64)> = parts.iter().map(|part| (part.partition, part.to)).collect();
        marks.wait(delete_below(kafka, &ends))?;
        output::note(format_args!("deleted {}", letters(total)));
        marks.forget_below(&ends)
    }

    /// Returns the offsets to delete.
    fn ranges(&self, reader: &Reader) -> anyhow::Result<Ranges> {
        let firsts = reader.at_time(self.before.timestamp_millis())?;
        let selected = |partition| self.partition.is_empty() || self.partition.contains(partition);
        let parts = reader.partitions().iter().filter(|(key, _)| selected(key));
        // Without a record at or after the time, all that the reader found are older.
        let ranges = parts.map(|(partition, range)| {
            let end = firsts.get(partition).copied().unwrap_or(range.end);
            (*partition, range.start..end.min(range.end))
        });
        Ok(ranges.filter(|(_, range)| !range.is_empty()).collect())
    }
}

/// Reads what is to be deleted, and counts it.
fn count(reader: &Reader, ranges: &Ranges, marks: &mut Marks) -> anyhow::Result<Vec<Part>> {
    let part = |(partition, range): &(i32, std::ops::Range<i64>)| {
        let part = Part {
            partition: *partition,
            from: range.start,
            to: range.end,
            ..Part::default()
        };
        (*partition, part)
    };
    let mut parts: BTreeMap<i32, Part> = ranges.iter().map(part).collect();
    let (everything, keep) = (Selection::default(), |letter| (Row::of(&letter), 0));
    scan::in_chunks(
        reader,
        ranges,
        &everything,
        scan::CHUNK,
        keep,
        |mut rows| {
            marks.add_to(&mut rows);
            for row in &rows {
                if let Some(part) = parts.get_mut(&row.partition) {
                    part.add(row);
                }
            }
            Ok(ControlFlow::Continue(()))
        },
    )?;
    Ok(parts.into_values().collect())
}

impl Part {
    fn add(&mut self, row: &Row) {
        let before = match self.count {
            0 => Some(0),
            _ => self.never_replayed,
        };
        let never = row.replayed_at.as_ref();
        let never = never.map(|at| u64::from(at.is_none()));
        self.never_replayed = before.zip(never).map(|(sum, one)| sum + one);
        self.count += 1;
    }

    fn line(&self) -> String {
        let never = self.never_replayed;
        format!(
            "{:>9} {:>12} {:>12} {:>9} {:>15}",
            self.partition,
            self.from,
            self.to,
            self.count,
            never.map_or("?".to_owned(), |count| count.to_string())
        )
    }
}

fn print(parts: &[Part], as_json: bool) -> anyhow::Result<()> {
    let mut out = Output::new();
    if !as_json && !parts.is_empty() {
        out.line("PARTITION         FROM    KEEP FROM     COUNT  NEVER REPLAYED")?;
    }
    for part in parts {
        out.line(&match as_json {
            true => serde_json::to_string(part)?,
            false => part.line(),
        })?;
    }
    out.flush()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dead_letters::row::tests::letter;

    fn part(replayed: &[Option<bool>]) -> Part {
        let mut part = Part::default();
        for replayed in replayed {
            let mut row = Row::of(&letter("invalid_order", "", b"{}"));
            row.replayed_at = replayed.map(|replayed| replayed.then(|| "then".to_owned()));
            part.add(&row);
        }
        part
    }

    #[test]
    fn what_was_never_replayed_is_counted() {
        let counted = part(&[Some(true), Some(false), Some(false)]);
        assert_eq!((counted.count, counted.never_replayed), (3, Some(2)));
        let unknown = part(&[Some(false), None, Some(false)]);
        assert_eq!((unknown.count, unknown.never_replayed), (3, None));
    }

    #[test]
    fn the_json_has_stable_names() {
        let json = serde_json::to_string(&part(&[Some(false)])).unwrap();
        assert_eq!(
            json,
            r#"{"partition":0,"from":0,"to":0,"count":1,"never_replayed":1}"#
        );
    }
}

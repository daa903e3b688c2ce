//! The filters of the commands, and the offsets that they need.

use std::{collections::HashMap, ops::Range};

use chrono::{DateTime, Utc};
use clap::{Args, builder::PossibleValuesParser};
use shared::{
    order::{OrderUid, Reason},
    runtime::{command, output::Usage},
};

use super::row::UNKNOWN;
use crate::{
    kafka::dead_letter::{DeadLetter, Ranges, Reader},
    moment,
};

/// The dead letters to select: those that satisfy every filter.
#[derive(Clone, Debug, Default, Args)]
pub(super) struct Selection {
    /// Only dead letters with this reason. Repeat it, or separate reasons by commas.
    #[arg(long, value_name = "REASON", value_delimiter = ',', value_parser = reasons())]
    pub(super) reason: Vec<String>,
    /// Only dead letters of this order: its uid is the key, or the `order_uid` of the value.
    #[arg(long)]
    pub(super) uid: Option<OrderUid>,
    /// Only dead letters in this partition of the dead letter topic. Repeat it, or separate
    /// partitions by commas.
    #[arg(long, value_name = "P", value_delimiter = ',', value_parser = partition)]
    pub(super) partition: Vec<i32>,
    /// Only the dead letter at this offset of the partition.
    #[arg(long, value_name = "O", requires = "partition", value_parser = offset)]
    pub(super) offset: Option<i64>,
    /// Only records that were dead-lettered at or after this time: an RFC 3339 time such as
    /// 2026-01-31T12:00:00Z, or a duration before now, such as 2h. It is the time of the record in
    /// the dead letter topic, not that of the original record.
    #[arg(long, value_name = "TIME", value_parser = moment::parse_past)]
    pub(super) since: Option<DateTime<Utc>>,
    /// Only records that were dead-lettered before this time.
    #[arg(long, value_name = "TIME", value_parser = moment::parse_past)]
    pub(super) until: Option<DateTime<Utc>>,
    /// Maximum number of dead letters, oldest first in each partition.
    #[arg(long, value_name = "N", value_parser = command::number::<u64>)]
    pub(super) limit: Option<u64>,
}

/// Parses the number of a partition.
pub(super) fn partition(text: &str) -> Result<i32, String> {
    let number: Option<i32> = text.parse().ok();
    number
        .filter(|number| *number >= 0)
        .ok_or_else(|| "not the number of a partition; write 0, 1, 2 and so on".to_owned())
}

/// Parses an offset.
pub(super) fn offset(text: &str) -> Result<i64, String> {
    let number: Option<i64> = text.parse().ok();
    number
        .filter(|number| *number >= 0)
        .ok_or_else(|| "not an offset; write 0, 1, 2 and so on".to_owned())
}

fn reasons() -> PossibleValuesParser {
    let known = Reason::ALL.map(Reason::as_str);
    PossibleValuesParser::new(known.into_iter().chain([UNKNOWN]))
}

impl Selection {
    /// Returns whether the selection has no filter. A limit is none: it does not say which ones.
    pub(super) fn is_everything(&self) -> bool {
        self.reason.is_empty()
            && self.uid.is_none()
            && self.partition.is_empty()
            && self.since.is_none()
            && self.until.is_none()
    }

    /// Returns whether `count` dead letters reach the limit.
    pub(super) fn is_reached(&self, count: u64) -> bool {
        self.limit.is_some_and(|limit| count >= limit)
    }

    /// Returns whether `letter` satisfies every filter.
    pub(super) fn takes(&self, letter: &DeadLetter) -> bool {
        let record = &letter.record;
        let time = record.timestamp.millis();
        let is_one_of = |reasons: &[String]| {
            let mut reasons = reasons.iter();
            reasons.any(|reason| reason == letter.reason())
        };
        (self.reason.is_empty() || is_one_of(&self.reason))
            && (self.partition.is_empty() || self.partition.contains(&record.partition))
            && self.offset.is_none_or(|offset| offset == record.offset)
            && self
                .since
                .is_none_or(|since| time >= since.timestamp_millis())
            && self
                .until
                .is_none_or(|until| time < until.timestamp_millis())
            && self
                .uid
                .is_none_or(|uid| letter.key_uid() == Some(uid) || letter.value_uid() == Some(uid))
    }

    /// Returns the offsets that may hold selected dead letters.
    ///
    /// # Errors
    /// When no time satisfies both `--since` and `--until`, a partition does not exist, or a broker
    /// does not answer.
    pub(super) fn ranges(&self, reader: &Reader) -> anyhow::Result<Ranges> {
        self.check_times()?;
        let firsts = match self.since {
            Some(since) => Some(reader.at_time(since.timestamp_millis())?),
            None => None,
        };
        self.ranges_of(reader.topic(), reader.partitions(), firsts.as_ref())
    }

    /// Checks that `--since` is before `--until`. Both may be durations before now, and then the
    /// longer one is earlier.
    fn check_times(&self) -> Result<(), Usage> {
        match (self.since, self.until) {
            (Some(since), Some(until)) if since >= until => Err(Usage(format!(
                "--since {} is not before --until {}; exchange them",
                moment::text(since),
                moment::text(until)
            ))),
            _ => Ok(()),
        }
    }

    /// Returns the part of `partitions` that may hold selected dead letters. `firsts` has the first
    /// offset at or after `--since` of each partition that has one.
    fn ranges_of(
        &self,
        topic: &str,
        partitions: &[(i32, Range<i64>)],
        firsts: Option<&HashMap<i32, i64>>,
    ) -> anyhow::Result<Ranges> {
        check_partitions(topic, partitions, &self.partition)?;
        let selected = |partition| self.partition.is_empty() || self.partition.contains(partition);
        let part = |(partition, range): &(i32, Range<i64>)| {
            let mut part = range.clone();
            if let Some(firsts) = firsts {
                let first = firsts.get(partition).copied().unwrap_or(range.end);
                part.start = part.start.max(first);
            }
            if let Some(offset) = self.offset {
                part.start = part.start.max(offset);
                part.end = part.end.min(offset.saturating_add(1));
            }
            (*partition, part)
        };
        let parts = partitions
            .iter()
            .filter(|(partition, _)| selected(partition));
        Ok(parts
            .map(part)
            .filter(|(_, range)| !range.is_empty())
            .collect())
    }
}

/// Checks that the topic has each of `wanted`.
///
/// # Errors
/// Names the first partition that it lacks, and those that it has.
pub(super) fn check_partitions(
    topic: &str,
    partitions: &[(i32, Range<i64>)],
    wanted: &[i32],
) -> anyhow::Result<()> {
    let exists = |wanted: &&i32| partitions.iter().any(|(partition, _)| partition == *wanted);
    if let Some(unknown) = wanted.iter().find(|wanted| !exists(wanted)) {
        let last = partitions.iter().map(|(partition, _)| *partition).max();
        anyhow::bail!(
            "--partition {unknown}: topic {topic} has the partitions 0 to {}",
            last.unwrap_or_default()
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::{Parser, error::ErrorKind};

    use super::*;
    use crate::{dead_letters::row::tests::letter, kafka::Timestamp};

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        selection: Selection,
    }

    fn parse(arguments: &[&str]) -> Result<Selection, clap::Error> {
        let line = [&["list"], arguments].concat();
        Line::try_parse_from(line).map(|line| line.selection)
    }

    #[test]
    fn an_unknown_reason_is_an_error_that_lists_the_valid_ones() {
        let error = parse(&["--reason", "invalid_ordr"]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidValue);
        let text = error.to_string();
        for reason in Reason::ALL {
            assert!(text.contains(reason.as_str()), "{text}");
        }
        let both = parse(&["--reason", "too_large,unknown", "--reason", "invalid_order"]);
        assert_eq!(
            both.unwrap().reason,
            ["too_large", "unknown", "invalid_order"]
        );
    }

    #[test]
    fn an_unknown_partition_is_an_error_that_names_the_valid_ones() {
        let selection = parse(&["--partition", "1,6"]).unwrap();
        let partitions: Ranges = (0..6).map(|partition| (partition, 0..9)).collect();
        let error = selection
            .ranges_of("orders-dlq", &partitions, None)
            .unwrap_err();
        assert_eq!(
            error.to_string(),
            "--partition 6: topic orders-dlq has the partitions 0 to 5"
        );
        assert!(parse(&["--offset", "3"]).is_err(), "of which partition?");
    }

    #[test]
    fn only_the_offsets_that_may_match_are_read() {
        let partitions = [(0, 2..10), (1, 0..10), (2, 5..5)];
        let ranges = |arguments: &[&str], firsts: Option<&[(i32, i64)]>| {
            let firsts = firsts.map(|firsts| firsts.iter().copied().collect());
            let selection = parse(arguments).unwrap();
            let ranges = selection.ranges_of("t", &partitions, firsts.as_ref());
            ranges.unwrap()
        };
        assert_eq!(ranges(&[], None), [(0, 2..10), (1, 0..10)]);
        assert_eq!(ranges(&["--partition", "1"], None), [(1, 0..10)]);
        assert_eq!(
            ranges(&["--partition", "1", "--offset", "4"], None),
            [(1, 4..5)]
        );
        assert_eq!(ranges(&["--partition", "0", "--offset", "1"], None), []);
        // Partition 1 has no dead letter since then.
        assert_eq!(ranges(&[], Some(&[(0, 7)])), [(0, 7..10)]);
    }

    #[test]
    fn every_filter_must_match() {
        let mut letter = letter("invalid_order", "rule", br#"{"order_uid":"inner"}"#);
        letter.record.timestamp = Timestamp::LogAppend(1_769_860_800_000);
        letter.record.partition = 2;
        for (arguments, expected) in [
            (&[][..], true),
            (&["--reason", "invalid_order"], true),
            (&["--reason", "too_large"], false),
            (&["--uid", "key"], true),
            (&["--uid", "inner"], true),
            (&["--uid", "other"], false),
            (&["--partition", "2"], true),
            (&["--partition", "1"], false),
            (&["--since", "2026-01-31T12:00:00Z"], true),
            (&["--since", "2026-01-31T12:00:00.001Z"], false),
            (&["--until", "2026-01-31T12:00:00.001Z"], true),
            (&["--until", "2026-01-31T12:00:00Z"], false),
            (&["--reason", "invalid_order", "--uid", "other"], false),
        ] {
            let selection = parse(arguments).unwrap();
            assert_eq!(selection.takes(&letter), expected, "{arguments:?}");
        }
    }

    #[test]
    fn a_number_that_is_none_is_an_error_that_says_what_to_write() {
        for (arguments, expected) in [
            (&["--partition", "x"][..], "write 0, 1, 2"),
            (&["--partition=-1"], "write 0, 1, 2"),
            (&["--partition", "0", "--offset", "1.5"], "write 0, 1, 2"),
            (&["--limit", "many"], "write digits only"),
        ] {
            let text = parse(arguments).unwrap_err().to_string();
            assert!(text.contains(expected), "{arguments:?}: {text}");
        }
    }

    #[test]
    fn a_period_without_time_is_an_error() {
        let check = |since, until| {
            let selection = parse(&["--since", since, "--until", until]).unwrap();
            selection.check_times().map_err(|Usage(text)| text)
        };
        assert_eq!(check("2h", "1h"), Ok(()));
        let text = check("2026-01-31T13:00:00Z", "2026-01-31T12:00:00Z").unwrap_err();
        assert_eq!(
            text,
            "--since 2026-01-31T13:00:00.000Z is not before --until 2026-01-31T12:00:00.000Z; \
             exchange them"
        );
        assert!(check("1h", "2h").is_err());
    }

    #[test]
    fn a_limit_is_no_filter() {
        assert!(parse(&["--limit", "3"]).unwrap().is_everything());
        for filter in [
            ["--reason", "too_large"],
            ["--uid", "a"],
            ["--partition", "0"],
            ["--since", "2h"],
            ["--until", "2h"],
        ] {
            assert!(!parse(&filter).unwrap().is_everything(), "{filter:?}");
        }
    }
}

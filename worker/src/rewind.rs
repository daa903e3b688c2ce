//! `worker rewind`: sets the group's offsets back in time, so that workers read again what a
//! restored Postgres lacks.

use std::collections::HashMap;

use anyhow::Context;
use chrono::{DateTime, Utc};
use clap::Args;
use serde::Serialize;
use shared::{
    config::{self, Kafka},
    runtime::output,
};

use crate::{
    kafka::{self, Offsets, PartitionOffsets},
    moment,
};

/// How far back to set the offsets.
#[derive(Debug, Args)]
pub struct Rewind {
    /// Read each partition again from its first record at or after this time: an RFC 3339 time such
    /// as 2026-01-31T12:00:00Z, or a duration before now, such as 2h.
    ///
    /// An earlier time only takes longer: Postgres rejects versions that it already holds. No
    /// partition is moved forward, because that would skip records.
    #[arg(long, value_name = "TIME", value_parser = moment::parse_past)]
    to: DateTime<Utc>,
    /// Print the new offsets without setting them.
    #[arg(long)]
    dry_run: bool,
    /// Print one JSON object per partition instead of the table: `partition`, `from`, `to`,
    /// `records`.
    #[arg(long)]
    json: bool,
}

/// Runs `worker rewind`.
///
/// # Errors
/// When no broker answers, or the group has members: they would continue at their own offsets and
/// commit those.
pub fn run(rewind: &Rewind) -> anyhow::Result<()> {
    let kafka: Kafka = config::load("KAFKA_")?;
    kafka::check(&kafka)?;
    let offsets = Offsets::new(&kafka)?;
    let members = offsets
        .members()
        .with_context(|| format!("brokers {} (KAFKA_BROKERS)", kafka.brokers))?;
    if members > 0 {
        let problem = format!(
            "the group {} has {members} active member{}; stop every worker first (a killed \
             worker counts until its session times out, {:?})",
            kafka.group_id,
            if members == 1 { "" } else { "s" },
            kafka.session_timeout
        );
        anyhow::ensure!(rewind.dry_run, problem);
        output::warn(problem);
    }
    let partitions = offsets.partitions()?;
    let at = offsets.at_time(
        partitions.iter().map(|offsets| offsets.partition),
        rewind.to.timestamp_millis(),
    )?;
    let steps: Vec<Step> = partitions
        .into_iter()
        .map(|offsets| Step {
            offsets,
            at: at.get(&offsets.partition).copied(),
        })
        .collect();
    // The offsets are set even if the reader of the output is gone.
    output::unless_closed(print(&kafka, rewind, &steps))?;
    warn_about_deleted_records(&offsets, &steps, rewind.to)?;
    let targets: Vec<(i32, i64)> = steps
        .iter()
        .filter_map(|step| Some((step.offsets.partition, step.target()?)))
        .collect();
    let outcome = match (targets.is_empty(), rewind.dry_run) {
        (true, _) => "no offset to move back",
        (false, true) => "dry run: no offset moved",
        (false, false) => {
            offsets.commit(targets)?;
            "offsets moved; workers that start now read from there"
        }
    };
    match rewind.json {
        true => output::note(outcome),
        false => output::unless_closed(output::line(outcome))?,
    }
    Ok(())
}

/// A partition and its new offset.
struct Step {
    offsets: PartitionOffsets,
    /// The offset of its first record at or after the time.
    at: Option<i64>,
}

impl Step {
    /// Returns the offset to set; none if the partition stays where it is.
    fn target(&self) -> Option<i64> {
        self.at.filter(|at| Some(*at) < self.offsets.committed)
    }

    fn again(&self) -> i64 {
        match (self.offsets.committed, self.target()) {
            (Some(committed), Some(target)) => committed - target,
            _ => 0,
        }
    }

    /// Returns whether Kafka may have deleted records that were sent at or after the time: the log
    /// begins with a record that is not older, and it did not always begin there.
    fn begins_too_late(&self) -> bool {
        let PartitionOffsets { log_start, end, .. } = self.offsets;
        log_start > 0 && self.at.unwrap_or(end) == log_start
    }
}

/// A line of the output with `--json`.
#[derive(Serialize)]
struct Line {
    partition: i32,
    /// The committed offset; null if there is none.
    from: Option<i64>,
    /// The offset after the command.
    to: Option<i64>,
    /// Number of records to be read again.
    records: i64,
}

impl From<&Step> for Line {
    fn from(step: &Step) -> Self {
        let from = step.offsets.committed;
        Self {
            partition: step.offsets.partition,
            from,
            to: step.target().or(from),
            records: step.again(),
        }
    }
}

fn print(kafka: &Kafka, rewind: &Rewind, steps: &[Step]) -> anyhow::Result<()> {
    let lines = steps.iter().map(Line::from);
    if rewind.json {
        return lines.into_iter().try_for_each(|line| output::json(&line));
    }
    let to = moment::text(rewind.to);
    output::line(format_args!(
        "group {}, topic {}, back to {to}",
        kafka.group_id, kafka.topic
    ))?;
    output::line("PARTITION         FROM           TO        AGAIN")?;
    let shown =
        |offset: Option<i64>| offset.map_or_else(|| "-".to_owned(), |offset| offset.to_string());
    for line in lines {
        output::line(format_args!(
            "{:>9} {:>12} {:>12} {:>12}",
            line.partition,
            shown(line.from),
            shown(line.to),
            line.records
        ))?;
    }
    let again: i64 = steps.iter().map(Step::again).sum();
    output::line(format_args!("{again} records to be read again"))
}

/// Prints a warning for each partition with deleted records, which cannot be read again. The
/// warning names the time from which the partition is complete.
fn warn_about_deleted_records(
    offsets: &Offsets,
    steps: &[Step],
    to: DateTime<Utc>,
) -> anyhow::Result<()> {
    let late: Vec<&PartitionOffsets> = steps
        .iter()
        .filter(|step| step.begins_too_late())
        .map(|step| &step.offsets)
        .collect();
    let ranges: HashMap<_, _> = late
        .iter()
        .filter(|offsets| offsets.log_start < offsets.end)
        .map(|offsets| (offsets.partition, offsets.log_start..offsets.log_start + 1))
        .collect();
    let mut firsts = HashMap::new();
    offsets.read(&ranges, |record| {
        firsts.insert(record.partition, record.timestamp.millis());
    })?;
    for PartitionOffsets {
        partition,
        log_start,
        ..
    } in late
    {
        let until = match firsts.get(partition) {
            Some(millis) => DateTime::from_timestamp_millis(*millis)
                .map(moment::text)
                .context("a record has a timestamp out of range")?,
            None => "now".to_owned(),
        };
        output::warn(format_args!(
            "partition {partition}: Kafka deleted the {log_start} records below offset \
             {log_start}; those sent between {} and {until} cannot be read again",
            moment::text(to)
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(log_start: i64, end: i64, committed: Option<i64>, at: Option<i64>) -> Step {
        let offsets = PartitionOffsets {
            partition: 0,
            log_start,
            end,
            committed,
        };
        Step { offsets, at }
    }

    #[test]
    fn rewind_moves_a_partition_back_and_never_forward() {
        for (committed, at, target, again) in [
            (Some(80), Some(30), Some(30), 50),
            (Some(80), Some(80), None, 0),
            (Some(80), Some(90), None, 0),
            // No record was sent since.
            (Some(80), None, None, 0),
            // Without a committed offset, the group starts at the first record anyway.
            (None, Some(30), None, 0),
        ] {
            let step = step(0, 100, committed, at);
            assert_eq!(
                (step.target(), step.again()),
                (target, again),
                "{committed:?} {at:?}"
            );
        }
    }

    #[test]
    fn a_log_that_begins_after_the_time_may_lack_records() {
        assert!(step(20, 100, Some(80), Some(20)).begins_too_late());
        // Every record was deleted.
        assert!(step(100, 100, Some(100), None).begins_too_late());
        assert!(!step(20, 100, Some(80), Some(21)).begins_too_late());
        assert!(!step(20, 100, Some(100), None).begins_too_late());
        assert!(!step(0, 100, Some(80), Some(0)).begins_too_late());
    }
}

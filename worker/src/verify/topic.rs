//! Compares the topic with Postgres: which finished records Postgres lacks.
//!
//! A record below the committed offset is stored in its version or a newer one, or it was
//! dead-lettered. So each valid record needs one look at its row and no memory of other records.

use std::{
    collections::{HashMap, HashSet},
    ops::{ControlFlow, Range},
    time::SystemTime,
};

use anyhow::Context;
use shared::{
    config::Kafka,
    order::{OrderUid, UnknownFields, Version},
    storage::Postgres,
};
use tokio::sync::mpsc;

use super::{
    persistently,
    record::{Lost, TopicCounts, ValidRecord},
    report::Report,
    sample::Sample,
};
use crate::{
    kafka::{
        self, Offsets, PartitionOffsets, Record,
        dead_letter::{DeadLetter, Reader},
    },
    pipeline::decode::decode_record,
};

/// Records per look at Postgres.
const CHUNK: usize = 1000;
/// Missing records after which the dead letter topic is read.
const SUSPECTS: usize = 1000;

/// A comparison of the topic with Postgres.
pub(super) struct TopicCheck<'c> {
    pub(super) kafka: &'c Kafka,
    pub(super) fields: UnknownFields,
    pub(super) postgres: &'c Postgres,
    pub(super) sample: &'c Sample,
    /// Number of differences at which the comparison stops.
    pub(super) limit: u64,
    pub(super) counts: TopicCounts,
}

impl TopicCheck<'_> {
    /// Reads the records that the topic holds now. Returns `Break` at the limit.
    ///
    /// # Errors
    /// When Kafka or Postgres does not answer.
    pub(super) async fn run(&mut self, report: &mut Report) -> anyhow::Result<ControlFlow<()>> {
        let (sender, mut records) = mpsc::channel(CHUNK);
        let reader = TopicReader {
            kafka: self.kafka.clone(),
            fields: self.fields,
            sample: self.sample.clone(),
            sender,
        };
        let reading = tokio::spawn(kafka::blocking(move || reader.read()));
        let (mut chunk, mut suspects) = (Vec::with_capacity(CHUNK), Vec::new());
        while let Some(record) = records.recv().await {
            chunk.push(record);
            if chunk.len() < CHUNK {
                continue;
            }
            suspects.extend(self.missing(&chunk).await?);
            chunk.clear();
            report.records(self.counts.records);
            if suspects.len() >= SUSPECTS {
                self.report_lost(std::mem::take(&mut suspects), report)
                    .await?;
                if report.differences() >= self.limit {
                    return Ok(ControlFlow::Break(()));
                }
            }
        }
        // The channel closes at the end of the topic, or after an error.
        self.counts.rejected = reading.await??;
        suspects.extend(self.missing(&chunk).await?);
        self.report_lost(suspects, report).await?;
        Ok(match report.differences() >= self.limit {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        })
    }

    /// Counts `records`. Returns the greatest finished version of each order that Postgres lacks.
    async fn missing(&mut self, records: &[ValidRecord]) -> anyhow::Result<Vec<ValidRecord>> {
        let newest = newest_finished(records);
        self.counts.records += records.len() as u64;
        self.counts.waiting += records.iter().filter(|record| !record.finished).count() as u64;
        Ok(self
            .lacking(newest)
            .await?
            .into_iter()
            .map(|lost| lost.record)
            .collect())
    }

    /// Returns those of `records` that Postgres lacks.
    async fn lacking(&self, records: Vec<ValidRecord>) -> anyhow::Result<Vec<Lost>> {
        if records.is_empty() {
            return Ok(Vec::new());
        }
        let uids: Vec<OrderUid> = records.iter().map(|record| record.uid).collect();
        let rows = persistently(async || self.postgres.versions(&uids).await).await?;
        Ok(lacking(records, &rows.into_iter().collect()))
    }

    /// Reports those of `suspects` that are neither in the dead letter topic nor, by now, in
    /// Postgres.
    async fn report_lost(
        &mut self,
        suspects: Vec<ValidRecord>,
        report: &mut Report,
    ) -> anyhow::Result<()> {
        if suspects.is_empty() {
            return Ok(());
        }
        let places: HashSet<(i32, i64)> = suspects
            .iter()
            .map(|record| (record.partition, record.offset))
            .collect();
        let kafka = self.kafka.clone();
        let dead = kafka::blocking(move || dead_lettered(&kafka, &places)).await?;
        let left = suspects
            .into_iter()
            .filter(|record| !dead.contains(&(record.partition, record.offset)));
        for lost in self.lacking(left.collect()).await? {
            self.counts.lost += 1;
            report.lost(&lost)?;
        }
        Ok(())
    }
}

/// Returns the finished record with the greatest version of each order.
fn newest_finished(records: &[ValidRecord]) -> Vec<ValidRecord> {
    let mut newest: HashMap<OrderUid, ValidRecord> = HashMap::new();
    for record in records.iter().filter(|record| record.finished) {
        let held = newest.entry(record.uid).or_insert(*record);
        if held.version < record.version {
            *held = *record;
        }
    }
    newest.into_values().collect()
}

/// Returns those of `records` that have no row, or an older one.
fn lacking(records: Vec<ValidRecord>, rows: &HashMap<OrderUid, Version>) -> Vec<Lost> {
    records
        .into_iter()
        .map(|record| Lost {
            row: rows.get(&record.uid).copied(),
            record,
        })
        .filter(|lost| lost.row < Some(lost.record.version))
        .collect()
}

/// Reads the topic on a thread of its own.
struct TopicReader {
    kafka: Kafka,
    fields: UnknownFields,
    sample: Sample,
    sender: mpsc::Sender<ValidRecord>,
}

impl TopicReader {
    /// Sends the valid records of the sample. Returns the number of other records that the worker
    /// rejects. Ends early if no one receives.
    fn read(self) -> anyhow::Result<u64> {
        let offsets = Offsets::new(&self.kafka)?;
        // Read before the first row, so each finished record is in Postgres by now.
        let partitions = offsets.partitions()?;
        let committed: HashMap<i32, i64> = partitions
            .iter()
            .filter_map(|offsets| Some((offsets.partition, offsets.committed?)))
            .collect();
        let range = |offsets: PartitionOffsets| -> (i32, Range<i64>) {
            (offsets.partition, offsets.log_start..offsets.end)
        };
        let ranges = partitions.into_iter().map(range).collect();
        let (now, mut rejected) = (SystemTime::now(), 0);
        offsets.read_until(&ranges, |record| {
            let Some(mut valid) = self.valid(&record, now) else {
                rejected += 1;
                return ControlFlow::Continue(());
            };
            valid.finished = committed
                .get(&valid.partition)
                .is_some_and(|next| valid.offset < *next);
            let is_of_sample = self.sample.takes(&valid.uid);
            match is_of_sample && self.sender.blocking_send(valid).is_err() {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            }
        })?;
        Ok(rejected)
    }

    /// Decodes a record as a worker does; none if a worker rejects it.
    fn valid(&self, record: &Record, now: SystemTime) -> Option<ValidRecord> {
        let change = decode_record(record, self.fields, now).ok()?.change;
        Some(ValidRecord {
            uid: change.uid,
            version: change.version,
            partition: record.partition,
            offset: record.offset,
            finished: false,
        })
    }
}

/// Returns which of `places` in the topic are of dead letters.
fn dead_lettered(
    kafka: &Kafka,
    places: &HashSet<(i32, i64)>,
) -> anyhow::Result<HashSet<(i32, i64)>> {
    let mut dead = HashSet::new();
    let place = |letter: &DeadLetter| {
        let version = letter.source_version()?;
        (letter.source_topic() == Some(&kafka.topic)).then_some((version.partition, version.offset))
    };
    // Without the topic there are no dead letters.
    if let Some(reader) = Reader::find(kafka).context("cannot read the dead letter topic")? {
        let _all_were_read = reader.for_each(reader.partitions(), |letter| {
            dead.extend(place(&letter).filter(|place| places.contains(place)));
            Ok(ControlFlow::Continue(()))
        })?;
    }
    Ok(dead)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(uid: &str, offset: i64, finished: bool) -> ValidRecord {
        ValidRecord {
            uid: OrderUid::parse(uid).unwrap(),
            version: Version::new(1, offset, 0),
            partition: 0,
            offset,
            finished,
        }
    }

    #[test]
    fn only_finished_records_must_be_in_postgres() {
        let records = [
            record("a", 1, true),
            record("a", 3, true),
            record("a", 2, true),
            record("b", 4, true),
            // Not finished.
            record("b", 5, false),
            record("c", 6, false),
        ];
        let mut newest: Vec<(String, i64)> = newest_finished(&records)
            .iter()
            .map(|record| (record.uid.to_string(), record.offset))
            .collect();
        newest.sort();
        assert_eq!(newest, [("a".to_owned(), 3), ("b".to_owned(), 4)]);
    }

    #[test]
    fn a_record_is_lost_if_its_row_is_older_or_missing() {
        let rows: HashMap<OrderUid, Version> = [("same", 2), ("newer", 3), ("older", 1)]
            .map(|(uid, offset)| (OrderUid::parse(uid).unwrap(), Version::new(1, offset, 0)))
            .into();
        let records = ["same", "newer", "older", "none"].map(|uid| record(uid, 2, true));
        let lost = lacking(records.to_vec(), &rows);
        let lost: Vec<&str> = lost.iter().map(|lost| lost.record.uid.as_str()).collect();
        assert_eq!(lost, ["older", "none"]);
    }
}

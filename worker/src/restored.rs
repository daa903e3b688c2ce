//! Detects a Postgres that was restored from a backup: it lacks records that the group has
//! finished.
//!
//! Every record below a committed offset is in Postgres, in that version or a newer one, unless it
//! was dead-lettered. So the worker takes the newest valid orders and erasures of each partition
//! and looks up their uids. Each lookup uses an index, so its cost does not depend on the size of
//! the tables. Several in a row must be missing, because Postgres may have rejected a single one.

use std::collections::{BTreeMap, HashMap};

use shared::{
    config::Kafka,
    order::{OrderUid, UnknownFields, Version, decode},
    runtime::backoff::Backoff,
    storage::{ListFilter, Postgres},
    telemetry,
};

use crate::kafka::{self, Offsets, Record, dead_letter::REPLAY_VERSION};

/// Number of newest finished records that the worker reads in each partition.
const NEWEST: i64 = 20;
/// Number of valid records in a row that must be missing; all of them, if there are fewer.
const MISSING: usize = 3;

/// Checks once, retrying until Kafka and Postgres answer. Logs an error if Postgres lacks what the
/// group has finished.
pub async fn check(kafka: &Kafka, postgres: &Postgres, fields: UnknownFields) {
    let mut backoff = Backoff::default();
    let partitions = loop {
        match missing(kafka, postgres, fields).await {
            Ok(partitions) => break partitions,
            Err(error) if backoff.is_to_log() => tracing::warn!(
                error = format!("{error:#}"),
                "checking Postgres for finished records failed; retrying"
            ),
            Err(_) => {}
        }
        backoff.wait().await;
    };
    if partitions.is_empty() {
        tracing::debug!("Postgres holds the newest records that this group has finished");
        return;
    }
    let newest = postgres.list(&ListFilter::default(), 1).await.ok();
    let newest_stored =
        newest.and_then(|orders| Some(orders.first()?.position.created_at.to_rfc3339()));
    tracing::error!(
        partitions = telemetry::listed(&partitions),
        newest_stored = newest_stored.as_deref().unwrap_or("-"),
        doc = "docs/operations.md#when-step-3-was-skipped",
        "Postgres lacks records that this group has finished; restored from a backup?"
    );
}

/// The newest finished versions of each partition, lowest offset first.
type Finished = BTreeMap<i32, Vec<(OrderUid, Version)>>;

/// Returns the partitions whose newest finished records are missing in Postgres.
async fn missing(
    kafka: &Kafka,
    postgres: &Postgres,
    fields: UnknownFields,
) -> anyhow::Result<Vec<i32>> {
    let kafka = kafka.clone();
    let finished = kafka::blocking(move || newest_finished(&kafka, fields)).await?;
    let uids: Vec<OrderUid> = finished.values().flatten().map(|(uid, _)| *uid).collect();
    let stored: HashMap<OrderUid, Version> = postgres
        .read_many(&uids)
        .await?
        .into_iter()
        .map(|revision| (revision.uid, revision.version))
        .collect();
    Ok(lacking(&finished, &stored))
}

fn newest_finished(kafka: &Kafka, fields: UnknownFields) -> anyhow::Result<Finished> {
    let offsets = Offsets::new(kafka)?;
    let ranges = offsets
        .partitions()?
        .into_iter()
        .filter_map(|offsets| {
            // An offset beyond the end means that the topic was recreated. The group then starts
            // from its beginning anyway.
            let end = offsets.committed.filter(|end| *end <= offsets.end)?;
            let start = (end - NEWEST).max(offsets.log_start);
            Some((offsets.partition, start..end))
        })
        .collect();
    let mut finished = Finished::new();
    offsets.read(&ranges, |record| {
        if let Some(version) = version_of(&record, fields) {
            let newest = finished.entry(record.partition).or_default();
            if newest.len() == MISSING {
                newest.remove(0);
            }
            newest.push(version);
        }
    })?;
    Ok(finished)
}

/// Returns the version that the record gave to its order. None if it is not an order or was
/// replayed, because a replay may carry the version of another record.
fn version_of(record: &Record, fields: UnknownFields) -> Option<(OrderUid, Version)> {
    if record.header(REPLAY_VERSION).is_some() {
        return None;
    }
    let uid = match &record.value {
        Some(value) => OrderUid::parse(&decode(value, fields).ok()?.order.order_uid),
        None => OrderUid::from_bytes(record.key.as_deref()?),
    };
    let version = Version::new(record.timestamp.millis(), record.offset, record.partition);
    Some((uid.ok()?, version))
}

fn lacking(finished: &Finished, stored: &HashMap<OrderUid, Version>) -> Vec<i32> {
    let is_missing =
        |(uid, version): &(OrderUid, Version)| stored.get(uid).is_none_or(|held| held < version);
    finished
        .iter()
        .filter(|(_, newest)| newest.iter().all(is_missing))
        .map(|(partition, _)| *partition)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uid(text: &str) -> OrderUid {
        OrderUid::parse(text).unwrap()
    }

    fn version(offset: i64) -> Version {
        Version::new(1, offset, 0)
    }

    #[test]
    fn a_partition_is_reported_if_all_its_newest_versions_are_missing() {
        let finished = |offsets: &[i64]| {
            let newest = offsets
                .iter()
                .map(|offset| (uid(&format!("u{offset}")), version(*offset)))
                .collect();
            Finished::from([(0, newest)])
        };
        let stored = HashMap::from([
            (uid("u1"), version(1)),
            // Changed since the record.
            (uid("u2"), version(9)),
            // As it was at the time of the backup.
            (uid("u3"), version(0)),
        ]);
        for (offsets, expected) in [
            (&[3, 4, 5][..], &[0][..]),
            // Postgres may have rejected record 4.
            (&[1, 2, 4], &[]),
            (&[1, 4, 5], &[]),
            (&[2], &[]),
            (&[4], &[0]),
        ] {
            assert_eq!(
                lacking(&finished(offsets), &stored),
                expected,
                "{offsets:?}"
            );
        }
    }
}

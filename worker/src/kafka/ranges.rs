//! Reads a range of a topic, outside any group.

use std::{
    collections::HashMap,
    ops::{ControlFlow, Range},
    thread,
    time::{Duration, Instant},
};

use anyhow::Context;
use rdkafka::{
    Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    error::{KafkaError, KafkaResult, RDKafkaErrorCode},
};

use super::{client::Reporting, error_log, record::Record};

/// Limit for one request to the brokers.
pub(super) const ANSWER: Duration = Duration::from_secs(10);

/// Pause between two attempts while leaders are elected.
const ELECTION: Duration = Duration::from_millis(50);

/// Partitions, each with a range of offsets.
pub type Ranges = Vec<(i32, Range<i64>)>;

/// Returns the partitions of a topic in ascending order. Each has the range from its first readable
/// offset to the offset after its last record. None if the topic does not exist.
///
/// # Errors
/// When a broker does not answer within ten seconds, or does not let us read the topic.
pub(super) fn find(
    consumer: &BaseConsumer<Reporting>,
    topic: &str,
) -> anyhow::Result<Option<Ranges>> {
    let deadline = Instant::now() + ANSWER;
    let metadata = consumer
        .fetch_metadata(Some(topic), ANSWER)
        .context("no broker of KAFKA_BROKERS answers")?;
    let mut partitions = Vec::new();
    for found in metadata
        .topics()
        .iter()
        .filter(|found| found.name() == topic)
    {
        let code = found.error().map(RDKafkaErrorCode::from);
        if code.is_none_or(error_log::is_election) {
            partitions.extend(found.partitions().iter().map(|partition| partition.id()));
        } else if let Some(code) = code {
            return Err(KafkaError::MetadataFetch(code))
                .with_context(|| format!("cannot read topic {topic}"));
        }
    }
    if partitions.is_empty() {
        return Ok(None);
    }
    partitions.sort_unstable();
    let range = |partition| {
        let fetch = || consumer.fetch_watermarks(topic, partition, ANSWER);
        let (start, end) =
            after_election(deadline, fetch).context("cannot fetch the offsets of the topic")?;
        Ok((partition, start..end))
    };
    partitions
        .into_iter()
        .map(range)
        .collect::<anyhow::Result<_>>()
        .map(Some)
}

/// Returns the same as [`find`] for a topic that must exist.
///
/// # Errors
/// When the topic does not exist, or as [`find`].
pub(super) fn of(consumer: &BaseConsumer<Reporting>, topic: &str) -> anyhow::Result<Ranges> {
    find(consumer, topic)?.with_context(|| format!("topic {topic} does not exist"))
}

/// Returns the offset of the first record at or after `time_ms` (ms since 1970), for each of
/// `partitions` that has one.
///
/// # Errors
/// When a broker does not answer within ten seconds.
pub(super) fn at_time(
    consumer: &BaseConsumer<Reporting>,
    topic: &str,
    partitions: impl IntoIterator<Item = i32>,
    time_ms: i64,
) -> anyhow::Result<HashMap<i32, i64>> {
    let times = partitions.into_iter().map(|partition| (partition, time_ms));
    let found = consumer
        .offsets_for_times(list(topic, times)?, ANSWER)
        .context("cannot fetch the offsets at that time")?;
    by_partition(&found)
}

/// Returns a list of `offsets` of a topic.
pub(super) fn list(
    topic: &str,
    offsets: impl IntoIterator<Item = (i32, i64)>,
) -> anyhow::Result<TopicPartitionList> {
    let mut list = TopicPartitionList::new();
    for (partition, offset) in offsets {
        list.add_partition_offset(topic, partition, Offset::Offset(offset))?;
    }
    Ok(list)
}

/// Returns the offset of each partition that has one.
pub(super) fn by_partition(list: &TopicPartitionList) -> anyhow::Result<HashMap<i32, i64>> {
    let mut offsets = HashMap::new();
    for element in list.elements() {
        element
            .error()
            .with_context(|| format!("partition {}", element.partition()))?;
        if let Offset::Offset(offset) = element.offset() {
            offsets.insert(element.partition(), offset);
        }
    }
    Ok(offsets)
}

/// Calls `fetch`, and retries until `deadline` while the partition has no leader, for example just
/// after its topic was created.
fn after_election<T>(deadline: Instant, fetch: impl Fn() -> KafkaResult<T>) -> KafkaResult<T> {
    loop {
        let answer = fetch();
        let code = answer
            .as_ref()
            .err()
            .and_then(KafkaError::rdkafka_error_code);
        if !code.is_some_and(error_log::is_election) || Instant::now() >= deadline {
            return answer;
        }
        thread::sleep(ELECTION);
    }
}

/// Calls `each` with every record in `ranges`, in offset order within each partition, until `each`
/// returns `Break`. Returns `Break` in that case.
///
/// # Errors
/// When a broker stops answering for ten seconds, or `each` fails.
pub(super) fn read(
    consumer: &BaseConsumer<Reporting>,
    topic: &str,
    ranges: &HashMap<i32, Range<i64>>,
    mut each: impl FnMut(Record) -> anyhow::Result<ControlFlow<()>>,
) -> anyhow::Result<ControlFlow<()>> {
    let filled = || ranges.iter().filter(|(_, range)| !range.is_empty());
    let mut open: HashMap<i32, i64> = filled().map(|(key, range)| (*key, range.end)).collect();
    let starts = filled().map(|(partition, range)| (*partition, range.start));
    consumer.assign(&list(topic, starts)?)?;
    let name = topic.into();
    while !open.is_empty() {
        let message = match consumer.poll(ANSWER) {
            Some(Ok(message)) => message,
            // The last offsets may hold nothing that the consumer returns, for example control
            // records.
            Some(Err(KafkaError::PartitionEOF(partition))) => {
                open.remove(&partition);
                continue;
            }
            Some(Err(error)) => {
                return Err(error).with_context(|| format!("cannot read topic {topic}"));
            }
            None => anyhow::bail!("no answer from the brokers within {ANSWER:?}"),
        };
        let record = Record::copy(&message, &name);
        let Some(end) = open.get(&record.partition).copied() else {
            continue;
        };
        if record.offset + 1 >= end {
            open.remove(&record.partition);
        }
        if record.offset < end && each(record)?.is_break() {
            return Ok(ControlFlow::Break(()));
        }
    }
    Ok(ControlFlow::Continue(()))
}

/// Calls `each` with every record from the offsets `starts` on, and with none when no record came
/// for `idle`, until `each` returns `Break`. An outage of the brokers does not end it.
///
/// # Errors
/// When the topic cannot be read, or `each` fails.
pub(super) fn follow(
    consumer: &BaseConsumer<Reporting>,
    topic: &str,
    starts: impl IntoIterator<Item = (i32, i64)>,
    idle: Duration,
    mut each: impl FnMut(Option<Record>) -> anyhow::Result<ControlFlow<()>>,
) -> anyhow::Result<()> {
    consumer.assign(&list(topic, starts)?)?;
    let name = topic.into();
    loop {
        let record = match consumer.poll(idle) {
            Some(Ok(message)) => Some(Record::copy(&message, &name)),
            Some(Err(KafkaError::PartitionEOF(_))) => continue,
            Some(Err(error)) if error.rdkafka_error_code().is_some_and(error_log::is_outage) => {
                continue;
            }
            Some(Err(error)) => {
                return Err(error).with_context(|| format!("cannot read topic {topic}"));
            }
            None => None,
        };
        if each(record)?.is_break() {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    /// Returns the number of attempts, and the result, when the first two attempts fail with
    /// `code`.
    fn attempts(code: RDKafkaErrorCode) -> (usize, KafkaResult<()>) {
        let calls = Cell::new(0);
        let answer = after_election(Instant::now() + ANSWER, || {
            calls.set(calls.get() + 1);
            match calls.get() {
                1 | 2 => Err(KafkaError::MetadataFetch(code)),
                _ => Ok(()),
            }
        });
        (calls.get(), answer)
    }

    #[test]
    fn only_an_election_is_retried() {
        for code in [
            RDKafkaErrorCode::NotLeaderForPartition,
            RDKafkaErrorCode::LeaderNotAvailable,
            RDKafkaErrorCode::UnknownTopicOrPartition,
        ] {
            assert_eq!(attempts(code), (3, Ok(())));
        }
        let code = RDKafkaErrorCode::TopicAuthorizationFailed;
        assert_eq!(attempts(code), (1, Err(KafkaError::MetadataFetch(code))));
    }

    #[test]
    fn an_endless_election_is_an_error() {
        let error = KafkaError::MetadataFetch(RDKafkaErrorCode::LeaderNotAvailable);
        let answer: KafkaResult<()> = after_election(Instant::now(), || Err(error.clone()));
        assert_eq!(answer, Err(error));
    }
}

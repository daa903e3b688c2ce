//! Which dead letters were sent back to their topics. Kafka cannot mark a record, and a marker
//! record would be one more dead letter for every reader of the topic.

use chrono::{DateTime, Utc};

use super::{Postgres, StorageError};

/// The place of a dead letter in the dead letter topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LetterPlace {
    /// Its partition.
    pub partition: i32,
    /// Its offset.
    pub offset: i64,
    /// Its timestamp in ms since 1970: in a recreated topic, another record has this offset.
    pub timestamp_ms: i64,
}

/// When and how a dead letter was last sent back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Replayed {
    /// When it was last sent back.
    pub at: DateTime<Utc>,
    /// Whether it was ever sent as a new record.
    pub as_new: bool,
}

const MARK: &str = "\
    INSERT INTO dead_letter_replays AS r (topic, partition, record_offset, timestamp_ms, as_new) \
    SELECT DISTINCT ON (u.partition, u.record_offset) \
           $1, u.partition, u.record_offset, u.timestamp_ms, $5 \
    FROM unnest($2::int4[], $3::int8[], $4::int8[]) AS u (partition, record_offset, timestamp_ms) \
    ORDER BY u.partition, u.record_offset \
    ON CONFLICT (topic, partition, record_offset) DO UPDATE SET \
        as_new = EXCLUDED.as_new OR (r.as_new AND r.timestamp_ms = EXCLUDED.timestamp_ms), \
        timestamp_ms = EXCLUDED.timestamp_ms, \
        replayed_at = EXCLUDED.replayed_at";

const FIND: &str = "\
    SELECT r.replayed_at::timestamptz, r.as_new::bool \
    FROM unnest($2::int4[], $3::int8[], $4::int8[]) WITH ORDINALITY \
         AS u (partition, record_offset, timestamp_ms, line) \
    LEFT JOIN dead_letter_replays r ON r.topic = $1 AND r.partition = u.partition \
         AND r.record_offset = u.record_offset AND r.timestamp_ms = u.timestamp_ms \
    ORDER BY u.line";

const FORGET: &str = "\
    DELETE FROM dead_letter_replays r \
    USING unnest($2::int4[], $3::int8[]) AS u (partition, first_offset) \
    WHERE r.topic = $1 AND r.partition = u.partition AND r.record_offset < u.first_offset";

impl Postgres {
    /// Records that the dead letters at `places` of `topic` were sent back now.
    ///
    /// # Errors
    /// When the marks may not be stored.
    pub async fn mark_replayed(
        &self,
        topic: &str,
        places: &[LetterPlace],
        as_new: bool,
    ) -> Result<(), StorageError> {
        let (partitions, offsets, times) = columns(places);
        let statement = sqlx::query(MARK)
            .bind(topic)
            .bind(partitions)
            .bind(offsets)
            .bind(times)
            .bind(as_new);
        self.run("mark_replayed", async |connection| {
            statement.execute(connection).await
        })
        .await
        .map(drop)
    }

    /// Returns for each of `places` when the dead letter was last sent back; none if it never was.
    ///
    /// # Errors
    /// When Postgres does not answer.
    pub async fn replayed(
        &self,
        topic: &str,
        places: &[LetterPlace],
    ) -> Result<Vec<Option<Replayed>>, StorageError> {
        let (partitions, offsets, times) = columns(places);
        let statement = sqlx::query_as(FIND)
            .bind(topic)
            .bind(partitions)
            .bind(offsets)
            .bind(times);
        let rows: Vec<(Option<DateTime<Utc>>, Option<bool>)> = self
            .run("replayed", async |connection| {
                statement.fetch_all(connection).await
            })
            .await?;
        let replayed = |(at, as_new): (Option<_>, Option<_>)| {
            at.zip(as_new).map(|(at, as_new)| Replayed { at, as_new })
        };
        Ok(rows.into_iter().map(replayed).collect())
    }

    /// Removes the marks below the first offset of each partition: Kafka has deleted those dead
    /// letters.
    ///
    /// # Errors
    /// When the marks may still exist.
    pub async fn forget_replays(
        &self,
        topic: &str,
        firsts: &[(i32, i64)],
    ) -> Result<(), StorageError> {
        let (partitions, offsets): (Vec<i32>, Vec<i64>) = firsts.iter().copied().unzip();
        let statement = sqlx::query(FORGET)
            .bind(topic)
            .bind(partitions)
            .bind(offsets);
        self.run("forget_replays", async |connection| {
            statement.execute(connection).await
        })
        .await
        .map(drop)
    }
}

fn columns(places: &[LetterPlace]) -> (Vec<i32>, Vec<i64>, Vec<i64>) {
    let column = |value: fn(&LetterPlace) -> i64| places.iter().map(value).collect();
    (
        places.iter().map(|place| place.partition).collect(),
        column(|place| place.offset),
        column(|place| place.timestamp_ms),
    )
}

//! What a list shows of one dead letter. It holds no value, so many rows need little memory.

use serde::Serialize;
use shared::storage::{LetterPlace, Replayed};

use super::terminal::safe;
use crate::{kafka::dead_letter::DeadLetter, moment};

/// The reason of a record without a valid `dlq-reason` header, as in [`DeadLetter::reason`].
pub(super) const UNKNOWN: &str = "unknown";

/// A dead letter without its value. Its field names are those of the JSON output, and stable.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Row {
    pub(super) partition: i32,
    pub(super) offset: i64,
    /// When the record was dead-lettered.
    pub(super) time: String,
    pub(super) reason: String,
    pub(super) detail: String,
    /// The uid of the order: the key, or else the `order_uid` of the value.
    pub(super) uid: Option<String>,
    pub(super) source_topic: Option<String>,
    pub(super) source_partition: Option<i32>,
    pub(super) source_offset: Option<i64>,
    pub(super) source_time: Option<String>,
    pub(super) worker: Option<String>,
    pub(super) key_bytes: Option<usize>,
    pub(super) value_bytes: Option<usize>,
    /// When the dead letter was last replayed. Absent if that could not be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) replayed_at: Option<Option<String>>,
    #[serde(skip)]
    pub(super) place: LetterPlace,
}

impl Row {
    pub(super) fn of(letter: &DeadLetter) -> Self {
        let record = &letter.record;
        let timestamp_ms = record.timestamp.millis();
        let source = letter.source_version();
        let uid = letter.key_uid().or_else(|| letter.value_uid());
        Self {
            partition: record.partition,
            offset: record.offset,
            time: moment::of_millis(timestamp_ms),
            reason: safe(letter.reason()),
            detail: safe(letter.detail()),
            uid: uid.map(|uid| uid.as_str().to_owned()),
            source_topic: letter.source_topic().map(safe),
            source_partition: source.map(|source| source.partition),
            source_offset: source.map(|source| source.offset),
            source_time: source.map(|source| moment::of_millis(source.timestamp_ms)),
            worker: letter.worker().map(safe),
            key_bytes: record.key.as_ref().map(Vec::len),
            value_bytes: record.value.as_ref().map(Vec::len),
            replayed_at: None,
            place: LetterPlace {
                partition: record.partition,
                offset: record.offset,
                timestamp_ms,
            },
        }
    }

    /// Adds what is known about replays of this dead letter.
    pub(super) fn set_replayed(&mut self, replayed: Option<Replayed>) {
        self.replayed_at = Some(replayed.map(|replayed| moment::text(replayed.at)));
    }

    /// Returns the time of the last replay, `-` if there was none, `?` if it is not known.
    pub(super) fn replayed(&self) -> &str {
        match &self.replayed_at {
            Some(Some(at)) => at,
            Some(None) => "-",
            None => "?",
        }
    }

    /// Returns `TOPIC/PARTITION/OFFSET` of the original record.
    pub(super) fn source(&self) -> String {
        match (
            &self.source_topic,
            self.source_partition,
            self.source_offset,
        ) {
            (Some(topic), Some(partition), Some(offset)) => format!("{topic}/{partition}/{offset}"),
            _ => "-".to_owned(),
        }
    }

    /// Returns the line of a list.
    pub(super) fn line(&self) -> String {
        // A key that is not a uid may be personal data, such as an address.
        let uid = match (&self.uid, self.key_bytes) {
            (Some(uid), _) => uid.clone(),
            (None, Some(bytes)) => format!("({bytes} bytes)"),
            (None, None) => "-".to_owned(),
        };
        columns([
            &format!("{}/{}", self.partition, self.offset),
            &self.time,
            &self.reason,
            &self.source(),
            self.replayed(),
            &uid,
            &self.detail,
        ])
    }

    /// Returns the row as one line of JSON.
    ///
    /// # Errors
    /// Never: texts and numbers can always be written.
    pub(super) fn json(&self) -> anyhow::Result<String> {
        Ok(serde_json::to_string(self)?)
    }
}

/// Returns the headings above [`Row::line`].
pub(super) fn headings() -> String {
    columns([
        "PARTITION/OFFSET",
        "DEAD-LETTERED",
        "REASON",
        "SOURCE",
        "REPLAYED",
        "UID",
        "DETAIL",
    ])
}

fn columns([place, time, reason, source, replayed, uid, detail]: [&str; 7]) -> String {
    format!("{place:<16}  {time:<24}  {reason:<20}  {source:<24}  {replayed:<24}  {uid}  {detail}")
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::kafka::{Header, Record, Timestamp};

    /// Returns a dead letter in the worker's format, with the key `key`.
    pub(in crate::dead_letters) fn letter(reason: &str, detail: &str, value: &[u8]) -> DeadLetter {
        let headers = [
            ("dlq-reason", reason),
            ("dlq-detail", detail),
            ("dlq-topic", "orders"),
            ("dlq-partition", "3"),
            ("dlq-offset", "42"),
            ("dlq-timestamp", "1700000000000"),
            ("dlq-worker", "host-7"),
        ];
        let header = |(name, value): (&str, &str)| Header {
            name: name.to_owned(),
            value: Some(value.as_bytes().to_vec()),
        };
        let record = Record {
            topic: "orders-dlq".into(),
            partition: 0,
            offset: 5,
            timestamp: Timestamp::LogAppend(1_700_000_001_000),
            key: Some(b"key".to_vec()),
            value: Some(value.to_vec()),
            headers: headers.map(header).to_vec(),
        };
        DeadLetter { record }
    }

    #[test]
    fn the_json_has_stable_names() {
        let mut row = Row::of(&letter("invalid_order", "delivery.zip: zip", b"{}"));
        row.set_replayed(None);
        assert_eq!(
            row.json().unwrap(),
            r#"{"partition":0,"offset":5,"time":"2023-11-14T22:13:21.000Z","#.to_owned()
                + r#""reason":"invalid_order","detail":"delivery.zip: zip","uid":"key","#
                + r#""source_topic":"orders","source_partition":3,"source_offset":42,"#
                + r#""source_time":"2023-11-14T22:13:20.000Z","worker":"host-7","#
                + r#""key_bytes":3,"value_bytes":2,"replayed_at":null}"#
        );
        row.replayed_at = None;
        assert!(!row.json().unwrap().contains("replayed_at"));
    }

    #[test]
    fn a_line_shows_no_key_that_is_not_a_uid() {
        let mut letter = letter("invalid_order", "rule", b"[]");
        letter.record.key = Some(b"Mira 15".to_vec());
        let line = Row::of(&letter).line();
        assert!(
            !line.contains("Mira") && line.contains("(7 bytes)"),
            "{line}"
        );
        letter.record.value = Some(br#"{"order_uid":"inner"}"#.to_vec());
        assert!(Row::of(&letter).line().contains("inner"));
    }

    #[test]
    fn a_forged_header_cannot_control_the_terminal() {
        let row = Row::of(&letter("x\u{1b}[2J", "a\nb\u{202e}", b"{}"));
        assert!(!row.line().contains(['\u{1b}', '\n', '\u{202e}']));
    }
}

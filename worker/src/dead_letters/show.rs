//! `worker dead-letters show`.

use std::{
    io::{self, IsTerminal},
    ops::ControlFlow,
};

use clap::{Args, ValueEnum};
use serde::Serialize;
use shared::{
    config::{self, Kafka},
    order::{self, UnknownFields},
};

use super::{
    forecast,
    marks::Marks,
    row::Row,
    selection::{self, check_partitions},
    terminal::{Output, safe, safe_lines},
};
use crate::{
    config::Worker,
    kafka::{
        Header,
        dead_letter::{DeadLetter, Reader},
    },
};

/// The place of one dead letter.
#[derive(Clone, Copy, Debug, Args)]
pub(super) struct Place {
    /// Partition of the dead letter topic.
    #[arg(long, value_name = "P", value_parser = selection::partition)]
    partition: i32,
    /// Offset in the partition.
    #[arg(long, value_name = "O", value_parser = selection::offset)]
    offset: i64,
}

impl Place {
    /// Reads the dead letter.
    ///
    /// # Errors
    /// When it does not exist; the error names the offsets that do.
    pub(super) fn read(self, reader: &Reader) -> anyhow::Result<DeadLetter> {
        let Self { partition, offset } = self;
        check_partitions(reader.topic(), reader.partitions(), &[partition])?;
        let mut partitions = reader.partitions().iter();
        let held = partitions.find(|(key, _)| *key == partition);
        let held = held.map_or(0..0, |(_, range)| range.clone());
        let mut found = None;
        if held.contains(&offset) {
            let range = [(partition, offset..offset + 1)];
            // Whether it stopped early says nothing more than `found`.
            let _ = reader.for_each(&range, |letter| {
                found = Some(letter);
                Ok(ControlFlow::Break(()))
            })?;
        }
        found.ok_or_else(|| {
            let held = match held.is_empty() {
                true => "holds no dead letters".to_owned(),
                false => format!("holds the offsets {} to {}", held.start, held.end - 1),
            };
            anyhow::anyhow!("--offset {offset}: not found; partition {partition} {held}")
        })
    }
}

/// Shows one dead letter.
#[derive(Debug, Args)]
pub struct Show {
    #[command(flatten)]
    place: Place,
    /// Also print the value, which may be personal data: with control characters escaped, or as it
    /// is, and then alone, to a file or pipe.
    #[arg(
        long,
        value_enum,
        value_name = "FORM",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "safe"
    )]
    payload: Option<Payload>,
    /// Print one JSON object.
    #[arg(long, conflicts_with = "payload")]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Payload {
    /// Control characters are escaped.
    Safe,
    /// The bytes as they are, and nothing else.
    Raw,
}

impl Show {
    pub(super) fn run(&self, kafka: &Kafka) -> anyhow::Result<()> {
        anyhow::ensure!(
            self.payload != Some(Payload::Raw) || !io::stdout().is_terminal(),
            "--payload=raw could control the terminal; write it to a file or pipe, or use --payload"
        );
        let reader = Reader::open(kafka)?;
        let letter = self.place.read(&reader)?;
        let mut out = Output::new();
        if self.payload == Some(Payload::Raw) {
            let value = letter.record.value.as_deref().unwrap_or_default();
            out.bytes(value)?;
        } else {
            let worker: Worker = config::load("WORKER_")?;
            let mut marks = Marks::new(reader.topic())?;
            let details = Details::of(&letter, &mut marks, worker.unknown_fields());
            let text = match self.json {
                true => serde_json::to_string(&details)?,
                false => details.text(reader.topic()),
            };
            out.line(&text)?;
            if self.payload.is_some() {
                out.line(&format!("value\n{}", value_text(&letter)))?;
            }
        }
        out.flush()
    }
}

fn value_text(letter: &DeadLetter) -> String {
    match letter.record.value.as_deref() {
        None => "(null: it erases the order)".to_owned(),
        Some(b"") => "(empty)".to_owned(),
        Some(value) => safe_lines(value),
    }
}

/// All that `show` knows of a dead letter but its value.
#[derive(Serialize)]
struct Details {
    #[serde(flatten)]
    row: Row,
    /// The broken rules in words.
    rules: Vec<String>,
    /// What a replay would do.
    replay: String,
    headers: Vec<ShownHeader>,
}

#[derive(Serialize)]
struct ShownHeader {
    name: String,
    value: Option<String>,
}

impl Details {
    fn of(letter: &DeadLetter, marks: &mut Marks, fields: UnknownFields) -> Self {
        let mut rows = [Row::of(letter)];
        marks.add_to(&mut rows);
        let [row] = rows;
        Self {
            rules: order::explain(letter.detail()),
            replay: replay(letter, marks, fields),
            headers: letter.record.headers.iter().map(shown).collect(),
            row,
        }
    }

    fn text(&self, topic: &str) -> String {
        let row = &self.row;
        let bytes = |size: Option<usize>| match size {
            Some(bytes) => format!("{bytes} bytes"),
            None => "null".to_owned(),
        };
        let or_none = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
        let source_time = row.source_time.iter().map(|time| format!(" at {time}"));
        let mut lines = vec![
            format!("dead letter    {topic}/{}/{}", row.partition, row.offset),
            format!("dead-lettered  {} by {}", row.time, or_none(&row.worker)),
            format!("reason         {}", row.reason),
            format!("detail         {}", row.detail),
        ];
        lines.extend(
            self.rules
                .iter()
                .map(|rule| format!("rule           {rule}")),
        );
        lines.extend([
            format!(
                "source         {}{}",
                row.source(),
                source_time.collect::<String>()
            ),
            format!("uid            {}", or_none(&row.uid)),
            format!("key            {}", bytes(row.key_bytes)),
            format!("value          {}", bytes(row.value_bytes)),
            format!("replayed       {}", row.replayed()),
            format!("a replay       {}", self.replay),
            "headers".to_owned(),
        ]);
        lines.extend(self.headers.iter().map(|header| {
            let value = header.value.as_deref().unwrap_or("(null)");
            format!("  {} = {value}", header.name)
        }));
        lines.join("\n")
    }
}

/// Returns what a replay with the original version would do.
fn replay(letter: &DeadLetter, marks: &Marks, fields: UnknownFields) -> String {
    if let Some(obstacle) = letter.obstacle(false) {
        return format!("is not possible: {}", obstacle.words());
    }
    match forecast::check(letter, false, fields) {
        Err(rejection) => {
            let rejection = safe(&rejection.to_string());
            format!("becomes a dead letter again: {rejection}")
        }
        Ok(accepted) => marks.wait(forecast::against(marks.postgres(), accepted)),
    }
}

/// Returns a header as text. A value that is not UTF-8 appears in hexadecimal digits.
fn shown(header: &Header) -> ShownHeader {
    let value = header.value.as_deref();
    let value = value.map(|value| match str::from_utf8(value) {
        Ok(text) => safe(text),
        Err(_) => {
            let digits = value.iter().map(|byte| format!("{byte:02x}"));
            format!("0x{}", digits.collect::<String>())
        }
    });
    ShownHeader {
        name: safe(&header.name),
        value,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dead_letters::row::tests::letter;

    #[test]
    fn headers_are_readable_and_harmless() {
        let header = |name: &str, value: Option<&[u8]>| {
            let header = Header {
                name: name.to_owned(),
                value: value.map(<[u8]>::to_vec),
            };
            let shown = shown(&header);
            (shown.name, shown.value)
        };
        let text = |text: &str| Some(text.to_owned());
        assert_eq!(
            header("a", Some("ü".as_bytes())),
            ("a".to_owned(), text("ü"))
        );
        assert_eq!(header("a\n", None), ("a\\n".to_owned(), None));
        assert_eq!(header("a", Some(&[0xff, 1])).1, text("0xff01"));
        assert_eq!(header("a", Some(b"\x1b[2J")).1, text("\\u{1b}[2J"));
    }

    #[test]
    fn the_text_has_the_rule_in_words_and_no_value() {
        let letter = letter("invalid_order", "delivery.zip: zip", b"{\"secret\":1}");
        let details = Details {
            rules: order::explain(letter.detail()),
            replay: "stores it".to_owned(),
            headers: letter.record.headers.iter().map(shown).collect(),
            row: Row::of(&letter),
        };
        let text = details.text("orders-dlq");
        for expected in [
            "dead letter    orders-dlq/0/5\n",
            "rule           delivery.zip: 1 to 16 letters, digits, spaces or dashes\n",
            "source         orders/3/42 at 2023-11-14T22:13:20.000Z\n",
            "value          12 bytes\n",
            "a replay       stores it\n",
            "  dlq-worker = host-7",
        ] {
            assert!(text.contains(expected), "{expected}\n{text}");
        }
        assert!(!text.contains("secret"), "{text}");
    }
}

//! `worker dead-letters`: lists dead letters, or sends them back to their source topics.

use std::ops::ControlFlow;

use chrono::{DateTime, SecondsFormat};
use clap::{Args, Subcommand};
use shared::{
    config::{self, Kafka},
    order::OrderUid,
};

use crate::kafka::dead_letter::{DeadLetter, Reader, Replay};

/// What to do with dead letters.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Print one line per dead letter: its position, its reason and its source.
    List {
        /// The dead letters to select.
        #[command(flatten)]
        selection: Selection,
    },
    /// Send dead letters back to their source topics.
    ///
    /// They keep their versions, so they never overwrite newer data. They also stay in the dead
    /// letter topic.
    Replay {
        /// The dead letters to select.
        #[command(flatten)]
        selection: Selection,
        /// Send them as new records: the old record then wins over newer data.
        #[arg(long)]
        as_new: bool,
        /// Only print what would be sent.
        #[arg(long)]
        dry_run: bool,
    },
}

/// The dead letters to select.
#[derive(Debug, Args)]
pub struct Selection {
    /// Only dead letters with this reason, such as `rejected_by_database`.
    #[arg(long)]
    reason: Option<String>,
    /// Only dead letters in this partition of the dead letter topic.
    #[arg(long)]
    partition: Option<i32>,
    /// Only the dead letter at this offset (of each partition).
    #[arg(long)]
    offset: Option<i64>,
    /// Maximum number of dead letters.
    #[arg(long)]
    limit: Option<u64>,
}

impl Selection {
    fn takes(&self, letter: &DeadLetter) -> bool {
        self.reason
            .as_deref()
            .is_none_or(|reason| reason == letter.reason())
            && self
                .partition
                .is_none_or(|partition| partition == letter.record.partition)
            && self
                .offset
                .is_none_or(|offset| offset == letter.record.offset)
    }

    fn is_reached(&self, count: u64) -> bool {
        self.limit.is_some_and(|limit| count >= limit)
    }
}

/// Runs `command`.
///
/// # Errors
/// When no broker answers, or a record was not acknowledged.
pub async fn run(command: Command) -> anyhow::Result<()> {
    let kafka: Kafka = config::load("KAFKA_")?;
    // Reading blocks its thread, and sending needs the runtime.
    tokio::task::spawn_blocking(move || match command {
        Command::List { selection } => list(&kafka, &selection),
        Command::Replay {
            selection,
            as_new,
            dry_run,
        } => replay(&kafka, &selection, as_new, dry_run),
    })
    .await?
}

fn list(kafka: &Kafka, selection: &Selection) -> anyhow::Result<()> {
    let mut count = 0;
    each(kafka, selection, |letter| {
        if count == 0 {
            println!("{HEADINGS}");
        }
        count += 1;
        println!("{}", line(letter));
        Ok(())
    })?;
    eprintln!("{count} dead letters");
    Ok(())
}

fn replay(kafka: &Kafka, selection: &Selection, as_new: bool, dry_run: bool) -> anyhow::Result<()> {
    let sender = Replay::new(kafka)?;
    let runtime = tokio::runtime::Handle::current();
    let (mut sent, mut failed) = (0, 0);
    each(kafka, selection, |letter| {
        if dry_run {
            println!("{}", line(letter));
            sent += 1;
            return Ok(());
        }
        match runtime.block_on(sender.send(letter, as_new)) {
            Ok(()) => sent += 1,
            Err(error) => {
                failed += 1;
                eprintln!(
                    "{}/{}: {error:#}",
                    letter.record.partition, letter.record.offset
                );
            }
        }
        Ok(())
    })?;
    println!(
        "{sent} dead letters {}",
        if dry_run {
            "would be sent back"
        } else {
            "were sent back"
        }
    );
    anyhow::ensure!(failed == 0, "{failed} dead letters were not sent back");
    Ok(())
}

/// Calls `action` with each selected dead letter.
fn each(
    kafka: &Kafka,
    selection: &Selection,
    mut action: impl FnMut(&DeadLetter) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let mut count = 0;
    Reader::open(kafka)?.for_each(|letter| {
        if selection.is_reached(count) {
            return Ok(ControlFlow::Break(()));
        }
        if selection.takes(&letter) {
            count += 1;
            action(&letter)?;
        }
        Ok(ControlFlow::Continue(()))
    })
}

const HEADINGS: &str = "PARTITION/OFFSET  REASON                FROM                      \
                        TIME                      KEY  DETAIL";

fn line(letter: &DeadLetter) -> String {
    let record = &letter.record;
    let (from, time) = match (letter.source_topic(), letter.source_version()) {
        (Some(topic), Some(version)) => {
            let time = DateTime::from_timestamp_millis(version.timestamp_ms).unwrap_or_default();
            (
                format!("{topic}/{}/{}", version.partition, version.offset),
                time.to_rfc3339_opts(SecondsFormat::Millis, true),
            )
        }
        _ => ("-".to_owned(), "-".to_owned()),
    };
    // Do not print a key that is not a uid: it may hold personal data, such as an address.
    let key = match record.key.as_deref() {
        None => "-".to_owned(),
        Some(key) => match str::from_utf8(key).map(OrderUid::parse) {
            Ok(Ok(uid)) => uid.as_str().to_owned(),
            _ => format!("({} bytes)", key.len()),
        },
    };
    format!(
        "{:<16}  {:<20}  {from:<24}  {time:<24}  {key}  {}",
        format!("{}/{}", record.partition, record.offset),
        letter.reason(),
        letter.detail()
    )
}

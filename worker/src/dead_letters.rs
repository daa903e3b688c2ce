//! `worker dead-letters`: look at the dead letter topic, or send its records back to where they came from.

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
    /// Print one line for each dead letter: where it stands, why, and where it came from.
    List {
        /// Which of them.
        #[command(flatten)]
        selection: Selection,
    },
    /// Send dead letters back to the topics that they came from. They keep their versions, so that nothing that came
    /// later is overwritten; and they stay in the dead letter topic.
    Replay {
        /// Which of them.
        #[command(flatten)]
        selection: Selection,
        /// Give them the version of a new record: the old record wins.
        #[arg(long)]
        as_new: bool,
        /// Only say what would be sent.
        #[arg(long)]
        dry_run: bool,
    },
}

/// Which dead letters.
#[derive(Debug, Args)]
pub struct Selection {
    /// Only those with this reason, such as `rejected_by_database`.
    #[arg(long)]
    reason: Option<String>,
    /// Only those in this partition of the dead letter topic.
    #[arg(long)]
    partition: Option<i32>,
    /// Only the one at this offset (of each partition).
    #[arg(long)]
    offset: Option<i64>,
    /// At most so many.
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

/// Does what the command line says.
///
/// # Errors
/// When no broker answers, or a record was not acknowledged.
pub async fn run(command: Command) -> anyhow::Result<()> {
    let kafka: Kafka = config::load("KAFKA_")?;
    // Reading blocks its thread; sending needs the runtime.
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

const HEADINGS: &str = "PARTITION/OFFSET  REASON                FROM                      TIME                      KEY  DETAIL";

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
    // A key that is no uid may be anything, also somebody's address.
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

//! `worker dead-letters`: lists, shows, edits, replays and purges dead letters.
//!
//! | module | responsibility |
//! |---|---|
//! | `selection` | the filters, and the offsets that they need |
//! | `row` | what a list shows of one dead letter |
//! | `marks` | which dead letters were replayed, from Postgres |
//! | `scan` | reads selected dead letters in chunks of bounded memory |
//! | `list`, `count`, `show` | commands that only read |
//! | `replay`, `fate` | sends dead letters back; which ones are sent |
//! | `edit`, `editor` | sends a changed value; the editor and its private file |
//! | `purge` | deletes the oldest dead letters |
//! | `forecast` | what a worker would do with a replay |
//! | `terminal` | buffered output, and text that cannot control the terminal |

mod count;
mod edit;
mod editor;
mod fate;
mod forecast;
mod list;
mod marks;
mod purge;
mod replay;
mod row;
mod scan;
mod selection;
mod show;
mod terminal;

use clap::Subcommand;
use shared::{
    config::{self, Kafka},
    runtime::output,
};

use crate::kafka::dead_letter::Reader;

/// What to do with dead letters.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Print one line per dead letter: its place, its reason, its source and when it was replayed.
    List(list::List),
    /// Count dead letters by reason, rule, partition, topic or day.
    Count(count::Count),
    /// Show one dead letter: its headers, the broken rules in words, and what a replay would do.
    Show(show::Show),
    /// Send dead letters back to their source topics.
    ///
    /// They keep their versions, so they never overwrite newer data. They also stay in the dead
    /// letter topic. Postgres records what was sent: `list` shows it, and a later replay skips it.
    /// So an interrupted replay continues where it stopped.
    Replay(replay::Replay),
    /// Edit the value of one dead letter in $VISUAL or $EDITOR, and send the result back.
    ///
    /// The worker's own checks run before anything is sent. Key, headers and version stay the same.
    /// Nothing is sent if the value did not change.
    Edit(edit::Edit),
    /// Delete the oldest dead letters from the topic, for good.
    ///
    /// Kafka deletes only from the beginning of a partition on. So there is no filter by reason or
    /// order, and what was never replayed is deleted, too: the list says how many there are.
    Purge(purge::Purge),
}

/// Runs `command`.
///
/// # Errors
/// When no broker answers, the selection is invalid, or a record was not acknowledged.
pub async fn run(command: Command) -> anyhow::Result<()> {
    let kafka: Kafka = config::load("KAFKA_")?;
    // Reading blocks its thread, and sending needs the runtime.
    tokio::task::spawn_blocking(move || match command {
        Command::List(list) => list.run(&kafka),
        Command::Count(count) => count.run(&kafka),
        Command::Show(show) => show.run(&kafka),
        Command::Replay(replay) => replay.run(&kafka),
        Command::Edit(edit) => edit.run(&kafka),
        Command::Purge(purge) => purge.run(&kafka),
    })
    .await?
}

/// Opens the dead letter topic. If it does not exist, says so and returns none.
fn open(kafka: &Kafka) -> anyhow::Result<Option<Reader>> {
    let reader = Reader::find(kafka)?;
    if reader.is_none() {
        let topic = &kafka.dead_letter_topic;
        output::note(format_args!(
            "no dead letters: topic {topic} does not exist (KAFKA_DEAD_LETTER_TOPIC)"
        ));
    }
    Ok(reader)
}

//! `worker dead-letters replay`.

use std::{
    ops::ControlFlow,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use clap::Args;
use futures_util::future::join_all;
use shared::{
    config::Kafka,
    order::OrderUid,
    runtime::output::{self, Usage},
    storage::{LetterPlace, Replayed},
};
use tokio::signal::unix::{SignalKind, signal};

use super::{
    fate::{Candidate, Fate, Options, Plan},
    marks::Marks,
    open,
    row::headings,
    scan::{CHUNK, in_chunks},
    selection::Selection,
    terminal::{Output, letters},
};
use crate::kafka::dead_letter::{self, DeadLetter, Ranges, Reader};

/// Rejected dead letters that are listed one by one.
const LISTED: u64 = 20;

/// Sends dead letters back to their source topics.
#[derive(Debug, Args)]
pub struct Replay {
    /// The dead letters to select. A limit counts those that are sent.
    #[command(flatten)]
    selection: Selection,
    /// Send every dead letter of the topic.
    #[arg(long, conflicts_with_all = ["reason", "uid", "partition", "since", "until"])]
    all: bool,
    #[command(flatten)]
    how: How,
    /// Also send dead letters that were replayed before.
    #[arg(long)]
    again: bool,
    /// Do not ask before sending.
    #[arg(long, short, conflicts_with = "dry_run")]
    yes: bool,
    /// Only print what would be sent.
    #[arg(long)]
    dry_run: bool,
    /// With --dry-run, print one JSON object per line.
    #[arg(long, requires = "dry_run")]
    json: bool,
}

/// The version that a replay gives the record.
#[derive(Clone, Copy, Debug, Args)]
pub(super) struct How {
    /// Send a new record instead of one with the original version: it then wins over newer data.
    /// Orders that were erased are rejected.
    #[arg(long)]
    pub(super) as_new: bool,
    /// With --as-new, bring back orders that were erased.
    #[arg(long, requires = "as_new")]
    pub(super) force: bool,
}

impl Replay {
    pub(super) fn run(&self, kafka: &Kafka) -> anyhow::Result<()> {
        // A dry run shows what there is.
        if self.selection.is_everything() && !self.all && !self.dry_run {
            let problem = "replay needs a filter: --reason, --uid, --partition, --since or \
                           --until; to send every dead letter back, write --all";
            return Err(Usage(problem.to_owned()).into());
        }
        let Some(reader) = open(kafka)? else {
            return Ok(());
        };
        let job = Job {
            ranges: self.selection.ranges(&reader)?,
            marks: Marks::new(reader.topic())?,
            selection: &self.selection,
            options: Options {
                as_new: self.how.as_new,
                force: self.how.force,
                again: self.again,
            },
            reader,
        };
        let plan = job.plan(self.dry_run.then_some(self.json))?;
        if plan.replayed > 0 {
            let replayed = letters(plan.replayed);
            output::note(format_args!(
                "{replayed} skipped: replayed before; to send them too, add --again"
            ));
        }
        if self.dry_run {
            output::note(format_args!("{} would be sent back", letters(plan.count())));
        } else if plan.count() > 0 {
            self.send(kafka, &job, &plan)?;
        } else {
            report(0)?;
        }
        anyhow::ensure!(
            plan.rejected == 0,
            "{} rejected; {} listed above",
            letters(plan.rejected),
            if plan.rejected > LISTED {
                "the first ones are"
            } else {
                "each is"
            }
        );
        Ok(())
    }

    fn send(&self, kafka: &Kafka, job: &Job<'_>, plan: &Plan) -> anyhow::Result<()> {
        let version = match self.how.as_new {
            true => "as new records, which win over newer data",
            false => "with their original versions",
        };
        let (count, reasons) = (letters(plan.count()), plan.reasons());
        let action = format!("send {count} back ({reasons}) {version}");
        output::confirm(self.yes, &action)?;
        let sender = dead_letter::Replay::new(kafka)?;
        let sent = job.send(&sender, &stop_on_signal())?;
        report(sent)?;
        let firsts = job.reader.partitions().iter();
        let firsts: Vec<_> = firsts.map(|(key, range)| (*key, range.start)).collect();
        job.marks.forget_below(&firsts)?;
        anyhow::ensure!(
            sent >= plan.count(),
            "{} of {} were sent; run the command again to continue",
            sent,
            plan.count()
        );
        Ok(())
    }
}

/// The dead letters of one replay.
struct Job<'a> {
    reader: Reader,
    ranges: Ranges,
    selection: &'a Selection,
    options: Options,
    marks: Marks,
}

impl Job<'_> {
    /// Decides what to send, and prints what is rejected. If `list` is set, prints what would be
    /// sent, as JSON or as lines.
    fn plan(&self, list: Option<bool>) -> anyhow::Result<Plan> {
        let mut plan = Plan::default();
        let mut out = Output::new();
        let keep = |letter: DeadLetter| ((Candidate::of(&letter, self.options), ()), 0);
        in_chunks(
            &self.reader,
            &self.ranges,
            self.selection,
            CHUNK,
            keep,
            |chunk| {
                for ((mut candidate, ()), replayed, fate) in self.with_fates(chunk)? {
                    if self.selection.is_reached(plan.count()) {
                        return Ok(ControlFlow::Break(()));
                    }
                    if let Some(problem) = fate.rejection().filter(|_| plan.rejected < LISTED) {
                        let place = candidate.row.place;
                        let (partition, offset) = (place.partition, place.offset);
                        output::note(format_args!("{partition}/{offset}: {problem}"));
                    }
                    if let (Fate::Send, Some(as_json)) = (fate, list) {
                        candidate.row.set_replayed(replayed);
                        let is_first = plan.count() == 0;
                        print(&mut out, &candidate, as_json, is_first)?;
                    }
                    plan.add(&candidate, fate);
                }
                Ok(ControlFlow::Continue(()))
            },
        )?;
        out.flush()?;
        Ok(plan)
    }

    /// Sends the dead letters chunk by chunk, and records in Postgres which ones were acknowledged.
    /// Returns their number. If the process is killed, at most one chunk is sent and not recorded.
    fn send(&self, sender: &dead_letter::Replay, stop: &AtomicBool) -> anyhow::Result<u64> {
        let mut sent = 0;
        let keep = |letter: DeadLetter| {
            let bytes = letter.record.size();
            ((Candidate::of(&letter, self.options), letter), bytes)
        };
        in_chunks(
            &self.reader,
            &self.ranges,
            self.selection,
            CHUNK,
            keep,
            |chunk| {
                if stop.load(Ordering::Relaxed) {
                    return Ok(ControlFlow::Break(()));
                }
                let mut due = self.with_fates(chunk)?;
                due.retain(|(_, _, fate)| *fate == Fate::Send);
                if let Some(limit) = self.selection.limit {
                    due.truncate(usize::try_from(limit - sent)?);
                }
                if due.is_empty() {
                    return Ok(ControlFlow::Continue(()));
                }
                let sends = due.iter();
                let sends = sends.map(|((_, letter), ..)| sender.send(letter, self.options.as_new));
                let results = self.marks.wait(join_all(sends));
                let mut acknowledged: Vec<LetterPlace> = Vec::new();
                let mut failure = None;
                for (((candidate, _), ..), result) in due.iter().zip(results) {
                    match result {
                        Ok(()) => acknowledged.push(candidate.row.place),
                        Err(error) => failure = Some(error),
                    }
                }
                self.marks.set(&acknowledged, self.options.as_new)?;
                sent += acknowledged.len() as u64;
                match failure {
                    Some(error) => Err(error.context(format!(
                        "sent {} back before a failure; run the command again to continue",
                        letters(sent)
                    ))),
                    None if self.selection.is_reached(sent) => Ok(ControlFlow::Break(())),
                    None => Ok(ControlFlow::Continue(())),
                }
            },
        )?;
        Ok(sent)
    }

    /// Adds to each candidate when it was replayed, and what to do with it now.
    fn with_fates<T>(&self, chunk: Vec<(Candidate, T)>) -> anyhow::Result<Vec<WithFate<T>>> {
        let candidates = || chunk.iter().map(|(candidate, _)| candidate);
        let places: Vec<LetterPlace> = candidates().map(|it| it.row.place).collect();
        let replayed = self.marks.of(&places)?;
        let orders: Vec<OrderUid> = candidates().flat_map(|it| it.orders.clone()).collect();
        let erased = self.marks.erased(&orders)?;
        let chunk = chunk.into_iter().zip(replayed);
        Ok(chunk
            .map(|(entry, replayed)| {
                let fate = entry.0.fate(replayed, &erased, self.options);
                (entry, replayed, fate)
            })
            .collect())
    }
}

type WithFate<T> = ((Candidate, T), Option<Replayed>, Fate);

fn print(
    out: &mut Output,
    candidate: &Candidate,
    as_json: bool,
    is_first: bool,
) -> anyhow::Result<()> {
    if as_json {
        return out.line(&candidate.row.json()?);
    }
    if is_first {
        out.line(&headings())?;
    }
    out.line(&candidate.row.line())
}

/// Prints how many dead letters were sent. They were, even if the reader of the output is gone.
fn report(sent: u64) -> anyhow::Result<()> {
    output::unless_closed(output::line(format_args!("sent {} back", letters(sent))))
}

/// Returns a flag that the first SIGINT or SIGTERM sets, so that what was sent is also recorded. A
/// second signal ends the process.
fn stop_on_signal() -> Arc<AtomicBool> {
    let stop = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&stop);
    tokio::spawn(async move {
        let signals = [SignalKind::interrupt(), SignalKind::terminate()].map(signal);
        let [Ok(mut interrupt), Ok(mut terminate)] = signals else {
            return;
        };
        for is_first in [true, false] {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            if is_first {
                flag.store(true, Ordering::Relaxed);
                output::note("stopping once the records under way are recorded");
            }
        }
        std::process::exit(130);
    });
    stop
}

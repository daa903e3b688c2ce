//! `worker dead-letters list`.

use std::ops::ControlFlow;

use anyhow::ensure;
use clap::Args;
use shared::{config::Kafka, runtime::output};

use super::{
    marks::Marks,
    open,
    row::{Row, headings},
    scan,
    selection::Selection,
    terminal::{Output, letters},
};
use crate::kafka::dead_letter::Reader;

/// Prints one line per dead letter.
#[derive(Debug, Args)]
pub struct List {
    /// The dead letters to select.
    #[command(flatten)]
    selection: Selection,
    /// Keep running, and print each new dead letter as it arrives.
    #[arg(long, short, conflicts_with_all = ["until", "offset"])]
    follow: bool,
    /// Print one JSON object per line.
    #[arg(long)]
    json: bool,
}

impl List {
    pub(super) fn run(&self, kafka: &Kafka) -> anyhow::Result<()> {
        let Some(reader) = open(kafka)? else {
            // A pipe must not take the end for the last dead letter.
            ensure!(!self.follow, "cannot follow a topic that does not exist");
            return Ok(());
        };
        let mut printer = Printer::new(self.json);
        let mut marks = Marks::new(reader.topic())?;
        scan::rows(&reader, &self.selection, &mut marks, |row| {
            printer.print(row)?;
            Ok(ControlFlow::Continue(()))
        })?;
        printer.out.flush()?;
        if self.follow && !self.selection.is_reached(printer.count) {
            return self.follow(&reader, &mut printer);
        }
        output::note(letters(printer.count));
        Ok(())
    }

    fn follow(&self, reader: &Reader, printer: &mut Printer) -> anyhow::Result<()> {
        reader.follow(|letter| {
            let Some(letter) = letter.filter(|letter| self.selection.takes(letter)) else {
                return Ok(ControlFlow::Continue(()));
            };
            let mut row = Row::of(&letter);
            // It is too new to have been replayed.
            row.set_replayed(None);
            printer.print(&row)?;
            printer.out.flush()?;
            Ok(match self.selection.is_reached(printer.count) {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            })
        })
    }
}

/// Prints rows, after their headings.
struct Printer {
    out: Output,
    json: bool,
    count: u64,
}

impl Printer {
    fn new(json: bool) -> Self {
        Self {
            out: Output::new(),
            json,
            count: 0,
        }
    }

    fn print(&mut self, row: &Row) -> anyhow::Result<()> {
        let is_first = self.count == 0;
        self.count += 1;
        if self.json {
            return self.out.line(&row.json()?);
        }
        if is_first {
            self.out.line(&headings())?;
        }
        self.out.line(&row.line())
    }
}

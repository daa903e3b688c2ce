//! `producer erase`: sends a record with a null value for each order, and waits until the api no
//! longer returns them.

use std::process::ExitCode;

use anyhow::{Context, ensure};
use shared::order::OrderUid;
use shared::runtime::output::{self, Usage};

use crate::cli;
use crate::input::{Input, is_dash};
use crate::interrupt::Interrupt;
use crate::send::{Job, Pace};
use crate::source::{BadRecords, RecordSource};
use crate::uids::{Uids, read_uids};
use crate::verify::{Expected, Verify};

/// The confirmed erasure of a list of orders.
pub(crate) struct Erasure {
    uids: Vec<OrderUid>,
    config: shared::config::Kafka,
    verify: Option<Verify>,
    options: cli::Erase,
}

/// Reads the uids, all of them before the first record is sent, and asks whether to erase the
/// orders.
///
/// # Errors
/// If a file cannot be read or holds a line that is not a uid, if there is no uid, or if the answer
/// is not yes.
pub(crate) fn prepare(options: &cli::Erase) -> anyhow::Result<Erasure> {
    let config = options.kafka.config()?;
    let verify = Verify::new(&options.verify, Expected::Erased, options.kafka.timeout)?;
    let uids = uids(options)?;
    let (count, topic, brokers) = (uids.len(), &config.topic, &config.brokers);
    let orders = if count == 1 { "order" } else { "orders" };
    let action = format!("erase {count} {orders} (topic {topic} at {brokers})");
    output::confirm(options.yes, &action)?;
    Ok(Erasure {
        uids,
        config,
        verify,
        options: options.clone(),
    })
}

fn uids(options: &cli::Erase) -> anyhow::Result<Vec<OrderUid>> {
    let mut uids = Uids::default();
    let mut read = |path: &std::path::Path| {
        // No signal is handled yet, so it ends the program.
        let input = Input::open(path, &Interrupt::default())?;
        read_uids(input.reader, |uid| uids.add(uid)).with_context(|| input.name)
    };
    let dashes = options.uids.iter().filter(|uid| uid.is_stdin()).count();
    let file_is_stdin = options.file.as_deref().is_some_and(is_dash);
    if dashes + usize::from(file_is_stdin) > 1 {
        let problem = "standard input can be read once; write `-` once";
        return Err(Usage(problem.to_owned()).into());
    }
    let reads_stdin = dashes == 1 || file_is_stdin;
    if reads_stdin && !options.yes {
        let problem = "standard input holds the uids and cannot answer a question; add --yes";
        return Err(Usage(problem.to_owned()).into());
    }
    if let Some(path) = &options.file {
        read(path)?;
    }
    if dashes == 1 {
        read("-".as_ref())?;
    }
    for uid in options.uids.iter().filter_map(cli::UidOrStdin::uid) {
        uids.add(uid)?;
    }
    let uids = uids.into_list();
    ensure!(
        !uids.is_empty(),
        "no order to erase: the input is empty; write one uid per line"
    );
    Ok(uids)
}

impl Erasure {
    /// Sends the erasures. The exit code is 1 if a record was not acknowledged.
    ///
    /// # Errors
    /// If no broker responds, or the api still returns an order.
    pub(crate) fn run(self, interrupt: &Interrupt) -> anyhow::Result<ExitCode> {
        let job = Job {
            config: &self.config,
            kafka: &self.options.kafka,
            pace: Pace::default(),
            interrupt,
            skip_bad: false,
            verify: self.verify,
            json: self.options.json,
            seed: None,
        };
        job.run(RecordSource::Erase(self.uids), BadRecords::new(0, 0))
    }
}

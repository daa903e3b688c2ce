//! Sends records at a given rate and waits for their acknowledgement.

use std::fmt::Display;
use std::ops::ControlFlow;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{anyhow, bail};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, PurgeConfig};
use shared::runtime::output;

use crate::cli;
use crate::generate::Orders;
use crate::input::Input;
use crate::interrupt::Interrupt;
use crate::kafka::{self, Reports};
use crate::order_file::Fault;
use crate::progress::{Counts, Progress, Summary};
use crate::source::{BadRecords, Kind, Record, RecordSource};
use crate::verify::{Expected, MAX_ORDERS, Verify};

/// Longest single wait for librdkafka, so that interrupts and progress are handled in between.
const TICK: Duration = Duration::from_millis(20);
/// Timeout of one metadata request.
const METADATA_TIMEOUT: Duration = Duration::from_secs(2);
/// Time between two metadata requests.
const TOPIC_INTERVAL: Duration = Duration::from_millis(200);

/// Exit code of a run that sent all orders, except for the parts of the file that it skipped.
const SKIPPED: u8 = 3;
/// Number of skipped places that are reported one by one.
const MAX_REPORTED: u64 = 20;

/// Runs `producer send`. The exit code is 1 if a record was not acknowledged, and 3 if `--skip-bad`
/// skipped a part of the file.
///
/// # Errors
/// If the options contradict each other, the file cannot be read, no broker responds, or the api
/// does not return an order.
pub(crate) fn run(options: &cli::Send, interrupt: &Interrupt) -> anyhow::Result<ExitCode> {
    let config = options.kafka.config()?;
    let verify = Verify::new(&options.verify, Expected::Stored, options.kafka.timeout)?;
    let mut job = Job {
        config: &config,
        kafka: &options.kafka,
        pace: Pace::new(options.rps, options.interval),
        interrupt,
        skip_bad: options.skip_bad,
        verify,
        json: options.json,
        seed: None,
    };
    let source = match (&options.source.file, options.source.num_orders) {
        (Some(path), _) => RecordSource::File(Input::open(path, interrupt)?),
        (None, count) => {
            let orders = Orders::new(count.unwrap_or_default(), &options.variety)?;
            job.seed = Some(orders.seed());
            job.print(format_args!("seed {}", orders.seed()))?;
            RecordSource::Orders(Box::new(orders))
        }
    };
    job.run(
        source,
        BadRecords::new(options.invalid_json, options.gibberish),
    )
}

/// How to send records, and what to report.
pub(crate) struct Job<'a> {
    pub(crate) config: &'a shared::config::Kafka,
    pub(crate) kafka: &'a cli::Kafka,
    pub(crate) pace: Pace,
    pub(crate) interrupt: &'a Interrupt,
    /// Whether to continue after a part of a file that is not an order.
    pub(crate) skip_bad: bool,
    pub(crate) verify: Option<Verify>,
    /// Whether the summary is JSON.
    pub(crate) json: bool,
    /// Seed of generated orders, for the summary.
    pub(crate) seed: Option<u64>,
}

impl Job<'_> {
    /// Sends the records, waits for their acknowledgements and prints the summary. Returns the exit
    /// code.
    ///
    /// # Errors
    /// If the file cannot be read, no broker responds, or the api does not show what was sent.
    pub(crate) fn run(
        self,
        source: RecordSource,
        bad_records: BadRecords,
    ) -> anyhow::Result<ExitCode> {
        let mut sender = Sender::connect(&self)?;
        let outcome = sender.send_all(source, bad_records);
        let seconds = sender.progress.elapsed().as_secs_f64();
        let mut summary = Summary {
            topic: &self.config.topic,
            sent: sender.counts.sent(),
            counts: &sender.counts,
            seconds,
            seed: self.seed,
            verified: None,
        };
        self.print(&summary)?;
        let verified = match &self.verify {
            Some(verify) if sender.has_sent_all() && outcome.is_ok() => {
                verify.wait_for(&sender.uids, self.interrupt).map(Some)
            }
            _ => Ok(None),
        };
        if let (Some(verify), Ok(Some(count))) = (&self.verify, &verified) {
            summary.verified = Some(*count);
            self.print(verify.describe(*count))?;
        }
        if self.json {
            output::unless_closed(output::json(&summary))?;
        }
        outcome?;
        verified?;
        Ok(sender.exit_code())
    }

    /// Prints a line for a person. The work is done even if the reader is gone.
    fn print(&self, line: impl Display) -> anyhow::Result<()> {
        match self.json {
            true => Ok(()),
            false => output::unless_closed(output::line(line)),
        }
    }
}

struct Sender<'a> {
    producer: BaseProducer<Reports>,
    job: &'a Job<'a>,
    pace: Pace,
    counts: Counts,
    progress: Progress,
    /// Uids of the sent orders, if `--verify` needs them.
    uids: Vec<String>,
}

impl<'a> Sender<'a> {
    /// Creates the producer and waits until a broker responds and has the topic.
    fn connect(job: &'a Job<'a>) -> anyhow::Result<Self> {
        let producer = kafka::producer(job.config, job.kafka)?;
        wait_for_topic(&producer, job.config, job.kafka.timeout, job.interrupt)?;
        Ok(Self {
            producer,
            job,
            pace: job.pace,
            counts: Counts::default(),
            progress: Progress::start(),
            uids: Vec::new(),
        })
    }

    /// Sends all records and waits for their acknowledgements.
    fn send_all(
        &mut self,
        source: RecordSource,
        mut bad_records: BadRecords,
    ) -> anyhow::Result<()> {
        let name = match &source {
            RecordSource::File(input) => input.name.clone(),
            _ => String::new(),
        };
        let mut fault = None;
        let mut outcome = source.for_each(|found, done| {
            match found {
                Ok(record) => self.send(&record, done)?,
                Err(_) if self.job.interrupt.exit_code().is_some() => return ControlFlow::Break(()),
                Err(found) if self.job.skip_bad => return self.skip(&name, &found),
                Err(found) => {
                    fault = Some(found);
                    return ControlFlow::Break(());
                }
            }
            match bad_records.after_order() {
                Some(bad) => self.send(&bad, done),
                None => ControlFlow::Continue(()),
            }
        });
        if let Some(fault) = fault {
            outcome = Err(anyhow!(
                "cannot read orders from {name}: {fault}; correct the file, or skip this with \
                 --skip-bad"
            ));
        }
        if outcome.is_ok() {
            let _stopped = bad_records.try_for_each(|bad| self.send(&bad, Some(1.0)));
        }
        self.drain();
        self.progress.finish();
        if self.counts.skipped > MAX_REPORTED {
            output::warn(format_args!(
                "{name}: skipped {} more places, not listed",
                self.counts.skipped - MAX_REPORTED
            ));
        }
        outcome
    }

    /// Counts a part of the file that is not an order, and reports it.
    fn skip(&mut self, name: &str, fault: &Fault) -> ControlFlow<()> {
        self.counts.skipped += 1;
        if self.counts.skipped <= MAX_REPORTED {
            self.progress.warn(format_args!("{name}: skipped {fault}"));
        }
        ControlFlow::Continue(())
    }

    /// Whether each record that the source holds was sent and acknowledged.
    fn has_sent_all(&self) -> bool {
        self.counts.failed == 0 && self.job.interrupt.exit_code().is_none()
    }

    /// Returns the exit code of the run. Prints the first error of a record.
    fn exit_code(&self) -> ExitCode {
        let mut exit_code = match self.counts.skipped {
            0 => ExitCode::SUCCESS,
            _ => ExitCode::from(SKIPPED),
        };
        if let Some(error) = self.producer.context().first_failure() {
            output::error(format_args!(
                "{} did not acknowledge {} records; first error: {error}",
                self.job.config.brokers, self.counts.failed
            ));
            exit_code = ExitCode::FAILURE;
        }
        (self.job.interrupt.exit_code()).map_or(exit_code, ExitCode::from)
    }

    /// Passes a record to librdkafka when it is due. Waits while the queue is full. Breaks when
    /// sending must stop.
    fn send(&mut self, record: &Record, done: Option<f64>) -> ControlFlow<()> {
        while let Some(wait) = self.pace.wait(self.counts.sent()) {
            self.serve(wait.min(TICK), done)?;
        }
        self.serve(Duration::ZERO, done)?;
        let topic = &self.job.config.topic;
        let mut unsent = BaseRecord::<str, [u8]>::to(topic);
        unsent.key = record.key.as_deref();
        unsent.payload = record.value.as_deref();
        unsent.headers = kafka::headers_for(topic);
        loop {
            match self.producer.send(unsent) {
                Ok(()) => break,
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                    unsent = back;
                    self.serve(TICK, done)?;
                }
                Err((error, _)) => {
                    self.producer.context().record_failure(error);
                    break;
                }
            }
        }
        self.counts.add(record.kind, record.size());
        let is_verified = matches!(record.kind, Kind::Order | Kind::Erasure);
        if let Some(uid) = record.key.as_ref().filter(|_| is_verified)
            && self.job.verify.is_some()
            && self.uids.len() < MAX_ORDERS
        {
            self.uids.push(uid.clone());
        }
        ControlFlow::Continue(())
    }

    /// Processes delivery reports for `time` and shows the progress. Breaks on an interrupt, or on
    /// an error that later records will also get.
    fn serve(&mut self, time: Duration, done: Option<f64>) -> ControlFlow<()> {
        kafka::serve(&self.producer, time);
        self.counts.acknowledged = self.producer.context().acknowledged();
        self.counts.failed = self.producer.context().failed();
        self.progress.show(&self.counts, done);
        if self.producer.context().is_permanent() || self.job.interrupt.exit_code().is_some() {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    }

    /// Waits until each record is acknowledged or has failed. A record fails after
    /// `message.timeout.ms` at the latest.
    fn drain(&mut self) {
        while self.producer.in_flight_count() > 0 {
            let _continues = self.serve(TICK, Some(1.0));
            if self.producer.context().is_permanent() {
                self.producer
                    .purge(PurgeConfig::default().queue().inflight());
            }
        }
        let _continues = self.serve(Duration::ZERO, Some(1.0));
    }
}

/// Waits until a broker responds and has the topic.
///
/// # Errors
/// If that does not happen within `timeout`.
fn wait_for_topic(
    producer: &BaseProducer<Reports>,
    config: &shared::config::Kafka,
    timeout: Duration,
    interrupt: &Interrupt,
) -> anyhow::Result<()> {
    let deadline = Instant::now() + timeout;
    // An interrupt ends the wait without an error. The first record then sees the same interrupt.
    while interrupt.exit_code().is_none() {
        let found = kafka::has_topic(producer, &config.topic, METADATA_TIMEOUT);
        if found == Ok(true) {
            break;
        }
        if Instant::now() >= deadline {
            let (brokers, seconds) = (&config.brokers, timeout.as_secs_f64());
            match found {
                Ok(_) => bail!(
                    "{brokers}: no topic {} after {seconds} s; check --topic or KAFKA_TOPIC, or \
                     start a worker, which creates it",
                    config.topic
                ),
                Err(error) => bail!(
                    "{brokers}: no broker responded within {seconds} s: {}; check --brokers or \
                     KAFKA_BROKERS",
                    (producer.context().connection_error(config)).unwrap_or(error.to_string())
                ),
            }
        }
        // Processes connection errors during the wait.
        producer.poll(TOPIC_INTERVAL);
    }
    Ok(())
}

/// Schedule of the records.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Pace {
    /// Time from one record to the next; zero disables waiting.
    gap: Duration,
    started: Option<Instant>,
}

impl Pace {
    /// Schedules `rps` records per second (0: as fast as possible), or one per `interval`.
    pub(crate) fn new(rps: u32, interval: Option<Duration>) -> Self {
        let gap = match (interval, rps) {
            (Some(interval), _) => interval,
            (None, 0) => Duration::ZERO,
            (None, rps) => Duration::from_secs(1) / rps,
        };
        Self { gap, started: None }
    }

    /// Time to wait before the next record, when `sent` records precede it. Measured from the first
    /// record, so that delays do not accumulate.
    fn wait(&mut self, sent: u64) -> Option<Duration> {
        if self.gap.is_zero() {
            return None;
        }
        let now = Instant::now();
        let started = *self.started.get_or_insert(now);
        wait_at(self.gap, sent, now - started)
    }
}

/// Time to wait before the next record, when `sent` records precede it and `elapsed` has passed
/// since the first.
fn wait_at(gap: Duration, sent: u64, elapsed: Duration) -> Option<Duration> {
    let due = Duration::try_from_secs_f64(gap.as_secs_f64() * sent as f64).unwrap_or(Duration::MAX);
    due.checked_sub(elapsed).filter(|wait| !wait.is_zero())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_due_one_gap_apart() {
        let gap = Duration::from_millis(10);
        assert_eq!(wait_at(gap, 0, Duration::ZERO), None);
        assert_eq!(wait_at(gap, 1, Duration::ZERO), Some(gap));
        assert_eq!(
            wait_at(gap, 3, Duration::from_millis(25)),
            Some(Duration::from_millis(5))
        );
        assert_eq!(wait_at(gap, 3, Duration::from_millis(30)), None);
        // A late record does not delay the next ones.
        assert_eq!(wait_at(gap, 4, Duration::from_millis(90)), None);
        assert!(wait_at(Duration::MAX, u64::MAX, Duration::ZERO).is_some());
    }

    #[test]
    fn rate_and_interval_set_the_same_gap() {
        assert_eq!(Pace::new(50, None).gap, Duration::from_millis(20));
        assert_eq!(
            Pace::new(0, Some(Duration::from_millis(20))).gap,
            Duration::from_millis(20)
        );
        assert_eq!(Pace::new(0, None).wait(1_000_000), None);
    }
}

//! Sends records at a given rate and waits for their acknowledgement.

use std::ops::ControlFlow;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::bail;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, PurgeConfig};

use crate::cli;
use crate::generate::Orders;
use crate::interrupt::Interrupt;
use crate::kafka::{self, Reports};
use crate::progress::{Counts, Progress, Summary};
use crate::source::{BadRecords, Kind, Record, RecordSource};
use crate::verify::Verify;

/// Longest single wait for librdkafka, so that interrupts and progress are handled in between.
const TICK: Duration = Duration::from_millis(20);
/// Timeout of one metadata request.
const METADATA_TIMEOUT: Duration = Duration::from_secs(2);
/// Time between two metadata requests.
const TOPIC_INTERVAL: Duration = Duration::from_millis(200);

/// Runs `producer send`. The exit code is 1 if a record was not acknowledged.
///
/// # Errors
/// If the options contradict each other, the file cannot be read, no broker responds, or the api
/// does not return an order.
pub(crate) fn orders(options: cli::Send, interrupt: &Interrupt) -> anyhow::Result<ExitCode> {
    let source = match (options.source.file, options.source.num_orders) {
        (Some(path), _) => RecordSource::open(path)?,
        (None, count) => {
            let orders = Orders::new(count.unwrap_or_default(), &options.variety)?;
            println!("seed {}", orders.seed());
            RecordSource::Orders(Box::new(orders))
        }
    };
    let bad_records = BadRecords::new(options.invalid_json, options.gibberish);
    let pace = Pace::new(options.rps, options.interval);
    let config = options.kafka.config()?;
    let verify = Verify::new(&options.verify, options.kafka.timeout)?;
    let mut sender = Sender::connect(&config, &options.kafka, pace, interrupt)?;
    sender.uids = verify.is_some().then(Vec::new);
    let exit_code = sender.send_all(source, bad_records)?;
    if let Some(verify) = verify
        && exit_code == ExitCode::SUCCESS
    {
        verify.wait_for(&sender.uids.unwrap_or_default(), interrupt)?;
    }
    Ok(exit_code)
}

/// Runs `producer erase`. The exit code is 1 if a record was not acknowledged.
///
/// # Errors
/// If no broker responds.
pub(crate) fn erasures(options: cli::Erase, interrupt: &Interrupt) -> anyhow::Result<ExitCode> {
    let config = options.kafka.config()?;
    Sender::connect(&config, &options.kafka, Pace::default(), interrupt)?
        .send_all(RecordSource::Erase(options.uids), BadRecords::new(0, 0))
}

struct Sender<'a> {
    producer: BaseProducer<Reports>,
    config: &'a shared::config::Kafka,
    pace: Pace,
    interrupt: &'a Interrupt,
    counts: Counts,
    progress: Progress,
    /// Uids of the sent orders; `None` unless `--verify` needs them.
    uids: Option<Vec<String>>,
}

impl<'a> Sender<'a> {
    /// Creates the producer and waits until a broker responds and has the topic.
    fn connect(
        config: &'a shared::config::Kafka,
        options: &cli::Kafka,
        pace: Pace,
        interrupt: &'a Interrupt,
    ) -> anyhow::Result<Self> {
        let producer = kafka::producer(config, options)?;
        wait_for_topic(&producer, config, options.timeout, interrupt)?;
        Ok(Self {
            producer,
            config,
            pace,
            interrupt,
            counts: Counts::default(),
            progress: Progress::start(),
            uids: None,
        })
    }

    fn send_all(
        &mut self,
        source: RecordSource,
        mut bad_records: BadRecords,
    ) -> anyhow::Result<ExitCode> {
        let outcome = source.for_each(|record, done| {
            self.send(&record, done)?;
            match bad_records.after_order() {
                Some(bad) => self.send(&bad, done),
                None => ControlFlow::Continue(()),
            }
        });
        if outcome.is_ok() {
            let _stopped = bad_records.try_for_each(|bad| self.send(&bad, 1.0));
        }
        self.drain();
        self.progress.finish();
        let summary = Summary {
            topic: &self.config.topic,
            counts: &self.counts,
            elapsed: self.progress.elapsed(),
        };
        println!("{summary}");
        outcome?;
        let mut exit_code = ExitCode::SUCCESS;
        if let Some(error) = self.producer.context().first_failure() {
            eprintln!(
                "error: {} did not acknowledge {} records; first error: {error}",
                self.config.brokers, self.counts.failed
            );
            exit_code = ExitCode::FAILURE;
        }
        Ok(self.interrupt.exit_code().map_or(exit_code, ExitCode::from))
    }

    /// Passes a record to librdkafka when it is due. Waits while the queue is full. Breaks when
    /// sending must stop.
    fn send(&mut self, record: &Record, done: f64) -> ControlFlow<()> {
        while let Some(wait) = self.pace.wait(self.counts.sent()) {
            self.serve(wait.min(TICK), done)?;
        }
        self.serve(Duration::ZERO, done)?;
        let topic = &self.config.topic;
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
        if let (Some(uids), Kind::Order, Some(uid)) = (&mut self.uids, record.kind, &record.key) {
            uids.push(uid.clone());
        }
        ControlFlow::Continue(())
    }

    /// Processes delivery reports for `time` and shows the progress. Breaks on an interrupt, or on
    /// an error that later records will also get.
    fn serve(&mut self, time: Duration, done: f64) -> ControlFlow<()> {
        kafka::serve(&self.producer, time);
        self.counts.acknowledged = self.producer.context().acknowledged();
        self.counts.failed = self.producer.context().failed();
        self.progress.show(&self.counts, done);
        if self.producer.context().is_permanent() || self.interrupt.exit_code().is_some() {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    }

    /// Waits until each record is acknowledged or has failed. A record fails after
    /// `message.timeout.ms` at the latest.
    fn drain(&mut self) {
        while self.producer.in_flight_count() > 0 {
            let _continues = self.serve(TICK, 1.0);
            if self.producer.context().is_permanent() {
                self.producer
                    .purge(PurgeConfig::default().queue().inflight());
            }
        }
        let _continues = self.serve(Duration::ZERO, 1.0);
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
                    "{brokers}: no topic {} after {seconds} s; start a worker, which creates it",
                    config.topic
                ),
                Err(error) => bail!(
                    "{brokers}: no broker responded within {seconds} s: {}",
                    (producer.context().connection_error()).unwrap_or(error.to_string())
                ),
            }
        }
        // Processes connection errors during the wait.
        producer.poll(TOPIC_INTERVAL);
    }
    Ok(())
}

/// Schedule of the records.
#[derive(Debug, Default)]
struct Pace {
    /// Time from one record to the next; zero disables waiting.
    gap: Duration,
    started: Option<Instant>,
}

impl Pace {
    /// Schedules `rps` records per second (0: as fast as possible), or one per `interval`.
    fn new(rps: u32, interval: Option<Duration>) -> Self {
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

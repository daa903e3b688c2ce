//! Progress and summary for the user: a bar on a terminal, else a line every few seconds.

use std::fmt;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::source::Kind;

/// Length of the bar.
const WHOLE: u64 = 1000;
/// Interval between lines if standard error is not a terminal.
const LINE_INTERVAL: Duration = Duration::from_secs(5);

/// Number of records by kind and by outcome.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Counts {
    pub(crate) orders: u64,
    pub(crate) invalid_json: u64,
    pub(crate) gibberish: u64,
    pub(crate) erasures: u64,
    pub(crate) acknowledged: u64,
    pub(crate) failed: u64,
    pub(crate) bytes: u64,
}

impl Counts {
    /// Counts a record of `bytes` bytes.
    pub(crate) fn add(&mut self, kind: Kind, bytes: usize) {
        *match kind {
            Kind::Order => &mut self.orders,
            Kind::InvalidJson => &mut self.invalid_json,
            Kind::Gibberish => &mut self.gibberish,
            Kind::Erasure => &mut self.erasures,
        } += 1;
        self.bytes += bytes as u64;
    }

    /// Number of all records.
    pub(crate) fn sent(&self) -> u64 {
        self.orders + self.invalid_json + self.gibberish + self.erasures
    }
}

/// Progress display.
pub(crate) struct Progress {
    bar: ProgressBar,
    started: Instant,
    last_line: Instant,
}

impl Progress {
    /// Starts the display. The bar is hidden if standard error is not a terminal.
    pub(crate) fn start() -> Self {
        let style = ProgressStyle::with_template("{wide_bar} {percent:>3} %  {msg}");
        let bar = ProgressBar::new(WHOLE)
            .with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        let now = Instant::now();
        Self {
            bar,
            started: now,
            last_line: now,
        }
    }

    /// Time since the start.
    pub(crate) fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// Updates the display. `done` is the finished share of the work, from 0 to 1.
    pub(crate) fn show(&mut self, counts: &Counts, done: f64) {
        if !self.bar.is_hidden() {
            self.bar.set_position((done * WHOLE as f64) as u64);
            self.bar.set_message(self.line(counts));
        } else if self.last_line.elapsed() >= LINE_INTERVAL {
            self.last_line = Instant::now();
            eprintln!("{:.0} %, {}", 100.0 * done, self.line(counts));
        }
    }

    /// Removes the bar.
    pub(crate) fn finish(&self) {
        self.bar.finish_and_clear();
    }

    fn line(&self, counts: &Counts) -> String {
        let mut line = format!("{} of {} acknowledged", counts.acknowledged, counts.sent());
        if counts.failed > 0 {
            line += &format!(", {} failed", counts.failed);
        }
        line
    }
}

/// Summary of a run, printed at its end.
pub(crate) struct Summary<'a> {
    pub(crate) topic: &'a str,
    pub(crate) counts: &'a Counts,
    pub(crate) elapsed: Duration,
}

impl fmt::Display for Summary<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Counts {
            orders,
            invalid_json,
            gibberish,
            erasures,
            acknowledged,
            failed,
            bytes,
        } = *self.counts;
        let seconds = self.elapsed.as_secs_f64();
        write!(f, "topic {}: sent {} (", self.topic, self.counts.sent())?;
        if erasures > 0 {
            write!(f, "{erasures} erasures")?;
        } else {
            write!(
                f,
                "{orders} orders, {invalid_json} invalid JSON, {gibberish} gibberish"
            )?;
        }
        write!(
            f,
            "), acknowledged {acknowledged}, failed {failed}, {seconds:.2} s, \
             {:.0} records/s, {bytes} bytes",
            self.counts.sent() as f64 / seconds.max(f64::MIN_POSITIVE)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn summary_shows_every_count() {
        let mut counts = Counts {
            acknowledged: 3,
            failed: 1,
            ..Counts::default()
        };
        for (kind, bytes) in [
            (Kind::Order, 10),
            (Kind::Order, 20),
            (Kind::InvalidJson, 3),
            (Kind::Gibberish, 4),
        ] {
            counts.add(kind, bytes);
        }
        let summary = |counts| {
            let elapsed = Duration::from_millis(500);
            Summary {
                topic: "orders",
                counts,
                elapsed,
            }
            .to_string()
        };
        assert_eq!(
            summary(&counts),
            "topic orders: sent 4 (2 orders, 1 invalid JSON, 1 gibberish), acknowledged 3, \
             failed 1, 0.50 s, 8 records/s, 37 bytes"
        );
        let mut counts = Counts {
            acknowledged: 1,
            ..Counts::default()
        };
        counts.add(Kind::Erasure, 5);
        assert!(summary(&counts).contains("sent 1 (1 erasures), acknowledged 1, failed 0"));
    }
}

//! What the user sees: a bar on the terminal (or a line now and then), and the summary.

use std::fmt;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::source::Kind;

/// Where the bar ends.
const WHOLE: u64 = 1000;
/// How often a line appears where there is no terminal for a bar.
const LINE_INTERVAL: Duration = Duration::from_secs(5);

/// How many records were sent, and what became of them.
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
    /// Counts a record with so many bytes.
    pub(crate) fn add(&mut self, kind: Kind, bytes: usize) {
        *match kind {
            Kind::Order => &mut self.orders,
            Kind::InvalidJson => &mut self.invalid_json,
            Kind::Gibberish => &mut self.gibberish,
            Kind::Erasure => &mut self.erasures,
        } += 1;
        self.bytes += bytes as u64;
    }

    /// All records.
    pub(crate) fn sent(&self) -> u64 {
        self.orders + self.invalid_json + self.gibberish + self.erasures
    }
}

/// Shows how far it is.
pub(crate) struct Progress {
    bar: ProgressBar,
    started: Instant,
    last_line: Instant,
}

impl Progress {
    /// Begins to show; the bar hides itself where standard error is no terminal.
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

    /// How long it takes so far.
    pub(crate) fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// Shows the counts; `done` is the share of the work that is behind.
    pub(crate) fn show(&mut self, counts: &Counts, done: f64) {
        if !self.bar.is_hidden() {
            self.bar.set_position((done * WHOLE as f64) as u64);
            self.bar.set_message(self.line(counts));
        } else if self.last_line.elapsed() >= LINE_INTERVAL {
            self.last_line = Instant::now();
            eprintln!("{:.0} %, {}", 100.0 * done, self.line(counts));
        }
    }

    /// Takes the bar away.
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

/// The end of it.
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
            "), acknowledged {acknowledged}, failed {failed}, {seconds:.2} s, {:.0} records/s, {bytes} bytes",
            self.counts.sent() as f64 / seconds.max(f64::MIN_POSITIVE)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn summary_names_every_figure() {
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
            "topic orders: sent 4 (2 orders, 1 invalid JSON, 1 gibberish), acknowledged 3, failed 1, 0.50 s, 8 records/s, \
             37 bytes"
        );
        let mut counts = Counts {
            acknowledged: 1,
            ..Counts::default()
        };
        counts.add(Kind::Erasure, 5);
        assert!(summary(&counts).contains("sent 1 (1 erasures), acknowledged 1, failed 0"));
    }
}

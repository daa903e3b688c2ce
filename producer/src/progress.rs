//! Progress for the user, on a terminal only, and the summary of a run.

use std::fmt;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use shared::runtime::output;

use crate::source::Kind;

/// Length of the bar.
const WHOLE: u64 = 1000;

/// Number of records by kind and by outcome.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Counts {
    pub(crate) orders: u64,
    pub(crate) invalid_json: u64,
    pub(crate) gibberish: u64,
    pub(crate) erasures: u64,
    /// Places of the file that `--skip-bad` skipped.
    pub(crate) skipped: u64,
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
}

impl Progress {
    /// Starts the display. It is hidden if standard error is not a terminal.
    pub(crate) fn start() -> Self {
        let bar = ProgressBar::new(WHOLE);
        bar.set_style(style("{wide_bar} {percent:>3} %  {msg}"));
        Self {
            bar,
            started: Instant::now(),
        }
    }

    /// Time since the start.
    pub(crate) fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// Updates the display. `done` is the finished share of the work, from 0 to 1; `None` if it is
    /// not known.
    pub(crate) fn show(&mut self, counts: &Counts, done: Option<f64>) {
        if self.bar.is_hidden() {
            return;
        }
        match done {
            Some(done) => self.bar.set_position((done * WHOLE as f64) as u64),
            None => self.bar.set_style(style("{spinner} {msg}")),
        }
        self.bar.set_message(line(counts));
    }

    /// Prints a warning above the bar.
    pub(crate) fn warn(&self, text: impl fmt::Display) {
        self.bar.suspend(|| output::warn(text));
    }

    /// Removes the bar.
    pub(crate) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

fn line(counts: &Counts) -> String {
    let mut line = format!("{} of {} acknowledged", counts.acknowledged, counts.sent());
    if counts.failed > 0 {
        line += &format!(", {} failed", counts.failed);
    }
    if counts.skipped > 0 {
        line += &format!(", {} skipped", counts.skipped);
    }
    line
}

/// Summary of a run, printed at its end.
#[derive(Serialize)]
pub(crate) struct Summary<'a> {
    pub(crate) topic: &'a str,
    pub(crate) sent: u64,
    #[serde(flatten)]
    pub(crate) counts: &'a Counts,
    pub(crate) seconds: f64,
    /// Seed of the generated orders.
    pub(crate) seed: Option<u64>,
    /// Number of orders that `--verify` found as expected.
    pub(crate) verified: Option<usize>,
}

impl fmt::Display for Summary<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Counts {
            orders,
            invalid_json,
            gibberish,
            erasures,
            skipped,
            acknowledged,
            failed,
            bytes,
        } = *self.counts;
        let (sent, seconds) = (self.sent, self.seconds);
        write!(f, "topic {}: sent {sent} (", self.topic)?;
        if erasures > 0 {
            let plural = if erasures == 1 { "" } else { "s" };
            write!(f, "{erasures} erasure{plural}")?;
        } else {
            write!(
                f,
                "{orders} orders, {invalid_json} invalid JSON, {gibberish} gibberish"
            )?;
        }
        write!(f, "), acknowledged {acknowledged}, failed {failed}")?;
        if skipped > 0 {
            write!(f, ", skipped {skipped}")?;
        }
        write!(
            f,
            ", {seconds:.2} s, {:.0} records/s, {bytes} bytes",
            sent as f64 / seconds.max(f64::MIN_POSITIVE)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn summary(counts: &Counts) -> Summary<'_> {
        Summary {
            topic: "orders",
            sent: counts.sent(),
            counts,
            seconds: 0.5,
            seed: None,
            verified: Some(2),
        }
    }

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
        assert_eq!(
            summary(&counts).to_string(),
            "topic orders: sent 4 (2 orders, 1 invalid JSON, 1 gibberish), acknowledged 3, \
             failed 1, 0.50 s, 8 records/s, 37 bytes"
        );
        assert_eq!(
            serde_json::to_string(&summary(&counts)).unwrap(),
            r#"{"topic":"orders","sent":4,"orders":2,"invalid_json":1,"gibberish":1,"erasures":0,"#
                .to_owned()
                + r#""skipped":0,"acknowledged":3,"failed":1,"bytes":37,"seconds":0.5,"seed":null,"#
                + r#""verified":2}"#
        );
        counts.skipped = 2;
        assert!(
            summary(&counts)
                .to_string()
                .contains("failed 1, skipped 2, 0.50 s")
        );
        let mut counts = Counts {
            acknowledged: 1,
            ..Counts::default()
        };
        counts.add(Kind::Erasure, 5);
        let text = summary(&counts).to_string();
        assert!(
            text.contains("sent 1 (1 erasure), acknowledged 1, failed 0"),
            "{text}"
        );
    }
}

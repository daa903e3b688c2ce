//! What `worker verify` prints: a line per finding, then a summary. Nothing is personal data.

use std::{collections::BTreeMap, fmt::Write, time::Instant};

use serde::Serialize;
use shared::{order::Version, runtime::output};
use strum::IntoEnumIterator;

use super::{
    progress::Progress,
    record::{Lost, TopicCounts},
};
use crate::{
    consistency::{confirm::Verdict, difference::Finding},
    metrics::CheckResult,
};

/// Prints findings, and counts them.
pub(super) struct Report {
    json: bool,
    orders: BTreeMap<&'static str, u64>,
    differences: u64,
    progress: Progress,
}

/// A finding.
#[derive(Serialize)]
struct Line<'l> {
    r#type: &'static str,
    order_uid: &'l str,
    result: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    postgres: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    redis: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    topic: Option<Place>,
    detail: String,
}

/// The version of a record, and where it is.
#[derive(Serialize)]
struct Place {
    version: String,
    partition: i32,
    offset: i64,
}

/// The last line.
#[derive(Serialize)]
struct Summary<'s> {
    r#type: &'static str,
    sample: &'s str,
    orders: &'s BTreeMap<&'static str, u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    topic: Option<&'s TopicCounts>,
    differences: u64,
    /// False if the command stopped at its limit.
    complete: bool,
}

impl Report {
    pub(super) fn new(json: bool) -> Self {
        let results = CheckResult::iter().map(|result| (result.as_str(), 0));
        Self {
            json,
            orders: results.collect(),
            differences: 0,
            progress: Progress::default(),
        }
    }

    pub(super) fn differences(&self) -> u64 {
        self.differences
    }

    /// Counts an order without a difference.
    pub(super) fn count(&mut self, result: CheckResult) {
        *self.orders.entry(result.as_str()).or_default() += 1;
        let (orders, differences) = (&self.orders, self.differences);
        self.progress.show(|| {
            let compared: u64 = orders.values().sum();
            format!(
                "{compared} orders compared, {}",
                counted(differences, "difference")
            )
        });
    }

    /// Shows the number of records that were read.
    pub(super) fn records(&mut self, records: u64) {
        self.progress.show(|| format!("{records} records compared"));
    }

    /// Counts the result of an order, and prints it unless the tiers agree.
    pub(super) fn verdict(&mut self, verdict: &Verdict) -> anyhow::Result<()> {
        let result = verdict.finding.result;
        self.differences += u64::from(result.is_difference());
        self.count(result);
        match result {
            CheckResult::Consistent | CheckResult::Missing => Ok(()),
            _ => self.print(&line("finding", verdict)),
        }
    }

    /// Counts and prints the result of an order that the operator named.
    pub(super) fn explain(&mut self, verdict: &Verdict) -> anyhow::Result<()> {
        let result = verdict.finding.result;
        self.differences += u64::from(result.is_difference());
        self.count(result);
        self.print(&line("finding", verdict))
    }

    /// Counts and prints a record that Postgres lacks.
    pub(super) fn lost(&mut self, lost: &Lost) -> anyhow::Result<()> {
        self.differences += 1;
        self.print(&Line {
            r#type: "finding",
            order_uid: lost.record.uid.as_str(),
            result: "lost",
            postgres: lost.row.as_ref().map(Version::to_string),
            redis: None,
            topic: Some(Place {
                version: lost.record.version.to_string(),
                partition: lost.record.partition,
                offset: lost.record.offset,
            }),
            detail: "the group has finished this record, and Postgres has no version as new; it \
                     is not in the dead letter topic"
                .to_owned(),
        })
    }

    fn print(&mut self, line: &Line<'_>) -> anyhow::Result<()> {
        self.progress.clear();
        // The exit code does not depend on a reader, so the comparison continues without one.
        output::unless_closed(match self.json {
            true => output::json(line),
            false => output::line(text(line)),
        })
    }

    /// Prints that `orders` are compared again at `due`.
    pub(super) fn wait(&mut self, orders: usize, due: Instant) {
        let seconds = due.saturating_duration_since(Instant::now()).as_secs() + 1;
        let orders = counted(orders as u64, "order");
        self.progress.clear();
        output::note(format_args!(
            "differences in {orders}; comparing again in {seconds} s"
        ));
    }

    /// Prints the summary. `complete` is false if the command stopped at its limit.
    pub(super) fn finish(
        mut self,
        sample: &str,
        topic: Option<&TopicCounts>,
        complete: bool,
    ) -> anyhow::Result<()> {
        let summary = Summary {
            r#type: "summary",
            sample,
            orders: &self.orders,
            topic,
            differences: self.differences,
            complete,
        };
        self.progress.clear();
        output::unless_closed(match self.json {
            true => output::json(&summary),
            false => output::line(summary_text(&summary)),
        })
    }
}

fn line<'v>(r#type: &'static str, verdict: &'v Verdict) -> Line<'v> {
    let finding = &verdict.finding;
    Line {
        r#type,
        order_uid: finding.uid.as_str(),
        result: finding.result.as_str(),
        postgres: finding.row.map(|version| version.to_string()),
        redis: finding.entry.map(|version| version.to_string()),
        topic: None,
        detail: detail(verdict),
    }
}

/// Explains a result.
fn detail(verdict: &Verdict) -> String {
    let Finding { row, flaw, .. } = &verdict.finding;
    let text = match verdict.finding.result {
        CheckResult::Consistent => "Redis holds what Postgres holds",
        CheckResult::Missing if row.is_none() => "neither Postgres nor Redis holds this order",
        CheckResult::Missing => "Redis has no entry; entries expire and are evicted",
        CheckResult::Pending => {
            return verdict
                .pending
                .map(|why| why.to_string())
                .unwrap_or_default();
        }
        CheckResult::Unverified => {
            "the entry in Redis has no right MAC for the keys of CACHE_MAC_KEY; readers ignore it"
        }
        CheckResult::Stale => "the entry in Redis is older than the row",
        CheckResult::Ahead => "the entry in Redis is newer than the row",
        CheckResult::Different => "the entry in Redis has this version and another document",
        CheckResult::Orphaned => "Redis has an entry, and Postgres has no row",
        CheckResult::Foreign => "the key in Redis does not hold an entry of ours",
        CheckResult::Incomplete => return flaw.map(|flaw| flaw.to_string()).unwrap_or_default(),
    };
    text.to_owned()
}

/// Formats a finding for a person: its result and explanation, then what each tier holds.
fn text(line: &Line<'_>) -> String {
    let mut text = format!("{:<10}  {}  {}", line.result, line.order_uid, line.detail);
    let topic = line.topic.as_ref().map(|place| {
        format!(
            "{} (partition {}, offset {})",
            place.version, place.partition, place.offset
        )
    });
    for (tier, version) in [
        ("postgres", &line.postgres),
        ("redis", &line.redis),
        ("topic", &topic),
    ] {
        if let Some(version) = version {
            // Writing to a string cannot fail.
            let _ = write!(text, "\n            {tier:<9} {version}");
        }
    }
    text
}

fn summary_text(summary: &Summary<'_>) -> String {
    let results = summary.orders.iter().filter(|(_, count)| **count > 0);
    let results: Vec<String> = results
        .map(|(result, count)| format!("{result} {count}"))
        .collect();
    let compared: u64 = summary.orders.values().sum();
    let mut text = format!(
        "{} compared ({})",
        counted(compared, "order"),
        summary.sample
    );
    if !results.is_empty() {
        let _ = write!(text, ": {}", results.join(", "));
    }
    if let Some(topic) = summary.topic {
        let _ = write!(
            text,
            "\n{} compared: {} waiting, {} rejected, {} lost",
            counted(topic.records, "record"),
            topic.waiting,
            topic.rejected,
            topic.lost
        );
    }
    if !summary.complete {
        text.push_str("\nstopped at the limit; --limit raises it");
    }
    let verdict = match summary.differences {
        0 => "no differences".to_owned(),
        differences => counted(differences, "difference"),
    };
    let _ = write!(text, "\n{verdict}");
    text
}

/// Returns `1 order`, `2 orders`.
fn counted(count: u64, what: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {what}{plural}")
}

#[cfg(test)]
mod tests {
    use shared::order::{DocumentVersion, OrderUid};

    use super::*;

    const OLD: &str = "0000000000000000001-0000000000000000001-0000000000";
    const NEW: &str = "0000000000000000001-0000000000000000002-0000000000";

    fn stale() -> Verdict {
        Verdict {
            finding: Finding {
                uid: OrderUid::parse("u").unwrap(),
                result: CheckResult::Stale,
                row: Some(Version::new(1, 2, 0)),
                entry: Some(DocumentVersion::current(Version::new(1, 1, 0))),
                flaw: None,
            },
            pending: None,
        }
    }

    #[test]
    fn a_finding_names_the_order_the_result_and_both_versions() {
        let verdict = stale();
        let line = line("finding", &verdict);
        let expected = format!(
            "stale       u  the entry in Redis is older than the row\n            postgres  \
             {NEW}\n            redis     {OLD}"
        );
        assert_eq!(text(&line), expected);
        let json = serde_json::json!({
            "type": "finding",
            "order_uid": "u",
            "result": "stale",
            "postgres": NEW,
            "redis": OLD,
            "detail": "the entry in Redis is older than the row",
        });
        assert_eq!(serde_json::to_value(&line).unwrap(), json);
    }

    #[test]
    fn the_summary_ends_with_the_verdict() {
        let orders = BTreeMap::from([("consistent", 3), ("missing", 0), ("stale", 1)]);
        let topic = TopicCounts {
            records: 7,
            rejected: 2,
            waiting: 1,
            lost: 0,
        };
        let mut summary = Summary {
            r#type: "summary",
            sample: "1%",
            orders: &orders,
            topic: Some(&topic),
            differences: 1,
            complete: false,
        };
        assert_eq!(
            summary_text(&summary),
            "4 orders compared (1%): consistent 3, stale 1\n\
             7 records compared: 1 waiting, 2 rejected, 0 lost\n\
             stopped at the limit; --limit raises it\n\
             1 difference"
        );
        summary.differences = 0;
        summary.complete = true;
        assert!(summary_text(&summary).ends_with("\nno differences"));
    }
}

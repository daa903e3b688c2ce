//! `docs/metrics.md`, compared with the code that declares the metrics and with running programs.

use std::collections::{BTreeMap, BTreeSet};

use e2e::{Stack, until};

use crate::{
    instruments::{self, Kind, Metric},
    page,
};

const PAGE: &str = "docs/metrics.md";
const DASHBOARD: &str = "observability/grafana/dashboards/order-service.json";
const ALERTS: &str = "observability/alerts.yml";

/// Where the values of a label come from.
enum Values {
    /// The variants of these enums, in snake case.
    Variants(&'static [&'static str]),
    /// These texts.
    Texts(&'static [&'static str]),
    /// Values that the code does not list.
    Open(&'static str),
}

/// The values of the label `label` of `metric`.
fn values(metric: &str, label: &str) -> Values {
    use Values::{Open, Texts, Variants};
    match (metric, label) {
        ("worker_messages_total", "outcome") => Variants(&["Outcome"]),
        ("dead_letter_messages_total", "reason") => Variants(&["Reason"]),
        ("worker_batch_duration_seconds", "stage") => Variants(&["BatchStage"]),
        ("worker_waiting", "reason") => Variants(&["Wait"]),
        ("consistency_checks_total", "result") => Variants(&["CheckResult"]),
        ("db_errors_total", "class") => Variants(&["Class"]),
        ("event_watchers", "stream") => Variants(&["StreamKind"]),
        ("events_sent_total", "event") => Variants(&["EventKind"]),
        ("cache_requests_total", "result") => Variants(&["LocalResult", "RedisResult"]),
        ("oidc_rejected_tokens_total", "reason") => Variants(&["TokenRejection"]),
        ("trace_spans_dropped_total", "reason") => Texts(&["queue_full", "export_failed"]),
        ("http_connections_closed_total", "reason") => Texts(&[
            "address",
            "evicted",
            "memory",
            "slow_request",
            "slow_reader",
            "malformed",
        ]),
        (_, "port") => Open("`admin`, and `public` of an api"),
        (_, "tier") => Texts(&["local", "redis"]),
        (_, "method") => Texts(&["GET", "HEAD", "OPTIONS", "POST", "other"]),
        (_, "code") => Open("code of librdkafka"),
        (_, "key") => Open("name of a key, `none` or `oidc`"),
        (_, "operation") => Open("call to the cache"),
        (_, "partition") => Open("number"),
        (_, "query") => Open("call to Postgres"),
        (_, "route") => Open("template of the path"),
        (_, "status") => Open("HTTP status"),
        (_, "version") => Open("version of the program"),
        _ => panic!("{metric}: describe the values of `{label}` in {}", file!()),
    }
}

/// Returns the values of a label that can have no others.
fn closed(metric: &str, label: &str) -> Option<Vec<String>> {
    match values(metric, label) {
        Values::Variants(enums) => {
            let all: BTreeSet<String> = enums
                .iter()
                .flat_map(|name| instruments::variants(name))
                .collect();
            Some(all.into_iter().collect())
        }
        Values::Texts(texts) => Some(texts.iter().map(ToString::to_string).collect()),
        Values::Open(_) => None,
    }
}

/// Describes the labels of a metric for the table.
fn labels(metric: &Metric) -> String {
    let labels = metric.labels.iter().map(|label| {
        let values = match values(&metric.name, label) {
            Values::Open(what) => what.to_owned(),
            _ => format!("`{}`", closed(&metric.name, label).unwrap().join("`, `")),
        };
        format!("`{label}`: {values}")
    });
    labels.collect::<Vec<_>>().join("; ")
}

/// Returns the metrics of each program.
fn metrics() -> [(&'static str, Vec<Metric>); 2] {
    ["worker", "api"].map(|program| (program, instruments::of(program)))
}

/// Whether an expression of PromQL uses the metric or a series of its histogram.
fn uses(expression: &str, metric: &str) -> bool {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    expression.split(|c| !is_name(c)).any(|word| {
        let base = ["_bucket", "_sum", "_count"]
            .iter()
            .find_map(|suffix| word.strip_suffix(suffix));
        word == metric || base == Some(metric)
    })
}

/// Returns the titles of the panels that use the metric.
fn panels(metric: &str) -> Vec<String> {
    let dashboard: serde_json::Value = serde_json::from_str(&page::read(DASHBOARD)).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let found = panels.iter().filter(|panel| {
        let targets = panel["targets"].as_array().into_iter().flatten();
        let mut expressions = targets.filter_map(|target| target["expr"].as_str());
        expressions.any(|expression| uses(expression, metric))
    });
    found
        .map(|panel| panel["title"].as_str().unwrap().to_owned())
        .collect()
}

/// Returns links to the runbook of each alert that uses the metric.
fn alerts(metric: &str) -> Vec<String> {
    let text = page::read(ALERTS);
    let rules = text.split("- alert: ").skip(1).filter_map(|rule| {
        let (name, rest) = rule.split_once('\n')?;
        let (_, expression) = rest.split_once("expr:")?;
        let (expression, _) = expression.split_once("labels:")?;
        uses(expression, metric).then(|| {
            let name = name.trim();
            format!("[{name}](runbooks.md#{})", name.to_lowercase())
        })
    });
    rules.collect()
}

#[test]
fn the_page_lists_every_metric() {
    let columns = ["metric", "type", "meaning", "labels", "alerts", "panels"];
    let mut text = String::new();
    for (program, metrics) in metrics() {
        let rows = metrics.iter().map(|metric| {
            vec![
                format!("`{}`", metric.name),
                metric.kind.to_string(),
                format!("{}.", metric.help.trim_end_matches('.')),
                labels(metric),
                alerts(&metric.name).join(", "),
                panels(&metric.name).join("; "),
            ]
        });
        text += &format!("## {program}\n\n{}\n", page::table(&columns, rows));
    }
    page::compare(PAGE, &text);
}

/// The series of a program, by the name of the metric. A series is the set of its labels.
type Series = BTreeMap<String, Vec<BTreeMap<String, String>>>;

/// Prefixes of metrics that libraries declare: the process collector and the OpenTelemetry SDK.
const OF_LIBRARIES: [&str; 2] = ["process_", "otel_sdk_"];

/// Reads the Prometheus text format. Skips the metrics of libraries.
fn parse(text: &str) -> Series {
    let mut series = Series::new();
    let mut base = "";
    for line in text.lines() {
        if let Some(declared) = line.strip_prefix("# TYPE ") {
            base = declared.split(' ').next().unwrap();
            continue;
        }
        let of_library = OF_LIBRARIES.iter().any(|prefix| base.starts_with(prefix));
        if line.starts_with('#') || of_library {
            continue;
        }
        let labels = match line.split_once('{') {
            Some((_, rest)) => pairs(rest.rsplit_once('}').unwrap().0),
            None => BTreeMap::new(),
        };
        series.entry(base.to_owned()).or_default().push(labels);
    }
    series
}

/// Reads `name="value",…`; leaves out the bucket of a histogram. A value contains no quote.
fn pairs(labels: &str) -> BTreeMap<String, String> {
    let mut parts = labels.split('"');
    let mut found = BTreeMap::new();
    while let (Some(name), Some(value)) = (parts.next(), parts.next()) {
        let name = name.trim_start_matches(',').trim_end_matches('=');
        if name != "le" {
            found.insert(name.to_owned(), value.to_owned());
        }
    }
    found
}

/// Returns how the series of a program differ from the page.
fn differences(declared: &[Metric], exported: &Series) -> Vec<String> {
    let mut faults = Vec::new();
    for (name, series) in exported {
        let Some(metric) = declared.iter().find(|metric| metric.name == *name) else {
            faults.push(format!("{name} is not in the page"));
            continue;
        };
        for labels in series {
            if !labels.keys().eq(metric.labels.iter()) {
                faults.push(format!("{name}: {labels:?}; the page: {:?}", metric.labels));
            }
            for (label, value) in labels {
                if closed(name, label).is_some_and(|values| !values.contains(value)) {
                    faults.push(format!("{name}: the page lacks {label}={value}"));
                }
            }
        }
    }
    for metric in declared
        .iter()
        .filter(|metric| metric.kind == Kind::Counter)
    {
        let series = exported.get(&metric.name).map_or(&[][..], Vec::as_slice);
        let closed: Option<Vec<Vec<String>>> = metric
            .labels
            .iter()
            .map(|label| closed(&metric.name, label))
            .collect();
        for (label, values) in metric.labels.iter().zip(closed.iter().flatten()) {
            for value in values {
                if !series.iter().any(|labels| labels.get(label) == Some(value)) {
                    faults.push(format!("{}: no series {label}={value}", metric.name));
                }
            }
        }
        if closed.is_some() && series.is_empty() {
            faults.push(format!("{} is not exported", metric.name));
        }
    }
    faults
}

#[test]
fn running_programs_export_what_the_page_lists() {
    let collector = e2e::OtlpReceiver::start();
    let stack = Stack::builder("metrics")
        .variable("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.url())
        .workers(1)
        .apis(1)
        .start();
    let send = [
        "send",
        "-n",
        "60",
        "--invalid-rate",
        "0.2",
        "--gibberish",
        "3",
    ];
    stack.command("producer", &send).succeeded();
    stack.settle();
    let uid = stack.database().orders().into_keys().next().unwrap();
    stack.apis[0].order(&uid);
    stack.apis[0].order_in_postgres(&uid);
    let [(_, worker), (_, api)] = metrics();
    until("the metrics of the page", || {
        let worker = differences(
            &worker,
            &parse(&stack.workers[0].admin.get("/metrics").text()),
        );
        let api = differences(&api, &parse(&stack.apis[0].admin.get("/metrics").text()));
        let faults = [worker, api].concat();
        match faults.is_empty() {
            true => Ok(()),
            false => Err(faults.join("\n")),
        }
    });
}

#[test]
fn a_missing_label_or_value_is_a_difference() {
    let metric = Metric {
        name: "db_errors_total".to_owned(),
        kind: Kind::Counter,
        help: String::new(),
        labels: BTreeSet::from(["class".to_owned()]),
    };
    let all = instruments::variants("Class");
    let line = |value: &String| format!("db_errors_total{{class=\"{value}\"}} 0\n");
    let text = "# TYPE db_errors_total counter\n".to_owned();
    let complete = text.clone() + &all.iter().map(line).collect::<String>();
    let declared = [metric];
    assert_eq!(differences(&declared, &parse(&complete)), [""; 0]);
    let missing = text.clone() + &all.iter().skip(1).map(line).collect::<String>();
    assert_eq!(differences(&declared, &parse(&missing)).len(), 1);
    for wrong in ["db_errors_total{class=\"x\"} 0\n", "db_errors_total 0\n"] {
        assert_eq!(
            differences(&declared, &parse(&(complete.clone() + wrong))).len(),
            1
        );
    }
    let unknown = complete + "# TYPE other gauge\nother 1\n";
    assert_eq!(
        differences(&declared, &parse(&unknown)),
        ["other is not in the page"]
    );
}

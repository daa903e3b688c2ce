//! The dashboard and the alerts, checked against the metrics that the processes export.

use std::{
    collections::{BTreeMap, BTreeSet},
    env, fs,
    path::Path,
};

use e2e::{Feed, Http, OidcIssuer, Prometheus, Stack, until};
use serde_json::Value;

use crate::access::{KeyFile, SECRET};

/// Panels that need exporters, which the native stack lacks, with the job of each. They are checked
/// on a system with exporters: see [`no_panel_is_empty_with_exporters`].
const FROM_EXPORTERS: [(&str, &str); 9] = [
    ("Host: CPU", "node-exporter"),
    ("Host: memory", "node-exporter"),
    ("Host: disks", "node-exporter"),
    ("Postgres: connections", "postgres-exporter"),
    ("Postgres: transactions", "postgres-exporter"),
    ("Postgres: size", "postgres-exporter"),
    ("Redis: memory", "redis-exporter"),
    ("Redis: commands, evictions, expiries", "redis-exporter"),
    ("Kafka: lag of the group", "kafka-exporter"),
];

/// URL of a Prometheus that scrapes a system with exporters.
const PROMETHEUS_URL: &str = "ORDER_SERVICE_PROMETHEUS_URL";
/// Jobs, separated by commas, that this system lacks.
const WITHOUT_JOBS: &str = "ORDER_SERVICE_PROMETHEUS_WITHOUT";

/// Sections of the runbook that only log lines name: an outage of the service has an alert, its
/// cause has none.
const FROM_LOGS: [&str; 1] = ["docs/runbooks.md#certificaterejected"];

/// Columns of Grafana's grid.
const COLUMNS: i64 = 24;

fn repository(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn dashboard() -> Value {
    let text = repository("observability/grafana/dashboards/order-service.json");
    serde_json::from_str(&text).unwrap()
}

/// Returns rows and panels, including those inside collapsed rows.
fn all_panels(dashboard: &Value) -> Vec<Value> {
    let outer = dashboard["panels"].as_array().unwrap();
    outer
        .iter()
        .flat_map(|panel| {
            let inner = panel["panels"].as_array().cloned().unwrap_or_default();
            [vec![panel.clone()], inner].concat()
        })
        .collect()
}

fn panels(dashboard: &Value) -> Vec<Value> {
    let mut panels = all_panels(dashboard);
    panels.retain(|panel| panel["type"] != "row");
    panels
}

fn title(panel: &Value) -> &str {
    panel["title"].as_str().unwrap()
}

fn expressions(panel: &Value) -> Vec<&str> {
    let targets = panel["targets"].as_array().unwrap();
    targets
        .iter()
        .map(|target| target["expr"].as_str().unwrap())
        .collect()
}

/// Returns the sections of the runbook as the anchors that link to them.
fn runbooks() -> BTreeSet<String> {
    repository("docs/runbooks.md")
        .lines()
        .filter_map(|line| Some(format!("docs/runbooks.md#{}", line.strip_prefix("## ")?)))
        .map(|link| link.to_lowercase())
        .collect()
}

/// Returns the query that Grafana sends with *All* selected in every variable and a range that
/// covers the whole test. *All* of a variable without `allValue` is the list of its values.
fn substituted(expression: &str, jobs: &[String], instances: &[String]) -> String {
    let all = |values: &[String]| format!("({})", values.join("|").replace('.', r"\\."));
    expression
        .replace("$__rate_interval", "5m")
        .replace("$namespace", ".*")
        .replace("$release", ".*")
        .replace("$exporter", ".*")
        .replace("$job", &all(jobs))
        .replace("$instance", &all(instances))
}

/// Returns the values of a label of our processes, as the variables of the dashboard do.
fn values_of(prometheus: &Prometheus, label: &str) -> Vec<String> {
    let ours = r#"{__name__=~"worker_messages_total|cache_announcements_up"}"#;
    let samples = prometheus.query(ours).unwrap().into_iter();
    let values: BTreeSet<String> = samples
        .filter_map(|mut sample| sample.labels.remove(label))
        .collect();
    values.into_iter().collect()
}

/// Returns the expressions without a number, by panel.
fn empty(prometheus: &Prometheus, panels: &[Value]) -> Vec<String> {
    let (jobs, instances) = (
        values_of(prometheus, "job"),
        values_of(prometheus, "instance"),
    );
    let mut empty = Vec::new();
    for panel in panels {
        for expression in expressions(panel) {
            let expression = substituted(expression, &jobs, &instances);
            match prometheus.query(&expression) {
                Ok(samples) if samples.iter().any(|sample| sample.value.is_finite()) => {}
                seen => empty.push(format!("{}: {expression} returns {seen:?}", title(panel))),
            }
        }
    }
    empty
}

#[track_caller]
fn await_no_empty_panel(prometheus: &Prometheus, panels: &[Value], mut meanwhile: impl FnMut()) {
    until("numbers in every panel", || {
        meanwhile();
        match empty(prometheus, panels) {
            empty if empty.is_empty() => Ok(()),
            empty => Err(empty.join("\n")),
        }
    });
}

#[track_caller]
fn await_targets(prometheus: &Prometheus, count: usize) {
    until("all targets up", || {
        let targets = prometheus.targets();
        let up = targets.iter().all(|(_, _, error)| error.is_empty());
        match up && targets.len() >= count {
            true => Ok(()),
            false => Err(format!("{targets:?}")),
        }
    });
}

/// Asserts that a panel has a description, whose links to runbooks exist, and a unit.
#[track_caller]
fn assert_described(panel: &Value, title: &str, runbooks: &BTreeSet<String>) {
    let description = panel["description"].as_str().unwrap();
    assert!(!description.trim().is_empty(), "{title}");
    for link in description.split_whitespace() {
        let link = link.trim_end_matches(['.', ',']);
        if link.starts_with("docs/runbooks.md") {
            assert!(runbooks.contains(link), "{title}: no section {link}");
        }
    }
    let defaults = &panel["fieldConfig"]["defaults"];
    assert!(
        defaults["unit"]
            .as_str()
            .is_some_and(|unit| !unit.is_empty()),
        "{title} has no unit"
    );
}

/// Asserts that each query of a panel is limited to the chosen programs.
#[track_caller]
fn assert_limited(panel: &Value, title: &str, limit: &str) {
    assert!(!expressions(panel).is_empty(), "{title} has no query");
    for expression in expressions(panel) {
        let expression = expression.replace("$__rate_interval", "5m");
        assert!(
            is_limited(&expression, limit),
            "{title} also shows other programs: {expression}"
        );
        let left = expression.replace(limit, "");
        assert!(
            !left.trim().is_empty() && !left.contains('$'),
            "{expression}"
        );
    }
}

/// Asserts that a panel lies within the columns and on no other panel.
#[track_caller]
fn place(cells: &mut BTreeMap<(i64, i64), String>, panel: &Value, title: &str) {
    let at = |name: &str| panel["gridPos"][name].as_i64().unwrap();
    let (x, y, w, h) = (at("x"), at("y"), at("w"), at("h"));
    assert!(x >= 0 && w > 0 && h > 0 && x + w <= COLUMNS, "{title}");
    for cell in (x..x + w).flat_map(|x| (y..y + h).map(move |y| (x, y))) {
        let other = cells.insert(cell, title.to_owned());
        assert_eq!(other, None, "{title} overlaps another panel");
    }
}

/// Asserts that the dashboard has the panels that the runbooks name.
#[track_caller]
fn assert_named_panels_exist(titles: &BTreeSet<String>) {
    for named in repository("docs/runbooks.md")
        .replace("**", "")
        .split('*')
        .skip(1)
        .step_by(2)
    {
        let exists = titles.iter().any(|title| title.starts_with(named));
        assert!(exists, "the runbooks name an unknown panel: {named}");
    }
}

#[test]
fn grafana_accepts_the_dashboard() {
    let dashboard = dashboard();
    assert_eq!(dashboard["uid"], "order-service");
    assert!(dashboard["schemaVersion"].as_i64().unwrap() >= 39);
    let variables: BTreeSet<&str> = dashboard["templating"]["list"]
        .as_array()
        .unwrap()
        .iter()
        .map(|variable| variable["name"].as_str().unwrap())
        .collect();
    let filters = ["namespace", "release", "job", "instance"];
    assert_eq!(
        variables,
        filters
            .into_iter()
            .chain(["datasource", "exporter"])
            .collect()
    );

    let from_exporters: BTreeSet<&str> = FROM_EXPORTERS.iter().map(|(title, _)| *title).collect();
    let (runbooks, mut ids, mut titles) = (runbooks(), BTreeSet::new(), BTreeSet::new());
    let mut cells = BTreeMap::new();
    let ours = filters
        .map(|filter| format!("{filter}=~\"${filter}\""))
        .join(",");
    for panel in all_panels(&dashboard) {
        let title = title(&panel).to_owned();
        assert!(ids.insert(panel["id"].as_i64().unwrap()), "id of {title}");
        assert!(titles.insert(title.clone()), "two panels {title}");
        place(&mut cells, &panel, &title);
        if panel["type"] == "row" {
            continue;
        }
        assert_described(&panel, &title, &runbooks);
        let mut references = BTreeSet::new();
        for target in panel["targets"].as_array().unwrap() {
            assert_eq!(target["datasource"]["uid"], "${datasource}", "{title}");
            assert!(references.insert(target["refId"].as_str().unwrap()));
        }
        let limit = match from_exporters.contains(title.as_str()) {
            true => "instance=~\"$exporter\"",
            false => &ours,
        };
        assert_limited(&panel, &title, limit);
    }
    assert_named_panels_exist(&titles);
    let collapsed: Vec<Value> = all_panels(&dashboard)
        .into_iter()
        .filter(|panel| panel["collapsed"] == true)
        .flat_map(|row| row["panels"].as_array().unwrap().clone())
        .collect();
    let apart: BTreeSet<&str> = collapsed.iter().map(title).collect();
    assert_eq!(apart, from_exporters);
}

#[test]
fn no_panel_is_empty_and_every_alert_has_its_metrics() {
    let mut stack = Stack::builder("dashboard").workers(2).apis(2).start();
    // Some metrics exist only with keys or an issuer.
    let keys = KeyFile::new(&format!("support sha256:{SECRET} orders:read\n"));
    let issuer = OidcIssuer::start("dashboard");
    stack.start_api_with(&[
        keys.variable(),
        ("API_OIDC_ISSUER", &issuer.name()),
        ("API_OIDC_AUDIENCE", "orders"),
    ]);
    let workers = stack.workers.iter().map(|worker| worker.admin.address());
    let apis = stack.apis.iter().map(|api| api.admin.address());
    let prometheus = Prometheus::start(
        "dashboard",
        &[("worker", workers.collect()), ("api", apis.collect())],
    );
    let mut dashboard = panels(&dashboard());
    dashboard.retain(|panel| !FROM_EXPORTERS.iter().any(|(name, _)| *name == title(panel)));

    let feed = Feed::of_everything(stack.addresses(), 71);
    stack.await_orders(200);
    let uids: Vec<String> = stack.database().orders().into_keys().take(5).collect();
    await_targets(&prometheus, 5);
    await_no_empty_panel(&prometheus, &dashboard, || {
        for api in &stack.apis[..2] {
            for uid in &uids {
                assert!([200, 410].contains(&api.order(uid).status));
                api.order_in_postgres(uid);
            }
            // Known only to Postgres; unknown; malformed.
            stack.redis.evict(&uids[0]);
            api.order(&uids[0]);
            for path in ["/order/unknown", "/order/a.b", "/orders", "/"] {
                Http::new().get(&format!("{}{path}", api.url()));
            }
        }
    });
    feed.stop();
    check_rules(&prometheus);
}

#[test]
fn the_dashboard_shows_when_caches_may_be_stale() {
    let mut stack = Stack::builder("staleness").workers(1).apis(1).start();
    let prometheus = Prometheus::start(
        "staleness",
        &[
            ("worker", vec![stack.workers[0].admin.address()]),
            ("api", vec![stack.apis[0].admin.address()]),
        ],
    );
    let send = |stack: &Stack| {
        let arguments = ["send", "-n", "20"];
        stack.command("producer", &arguments).succeeded();
    };
    let await_true = |expression: &str| {
        until(expression, || match prometheus.query(expression) {
            Ok(samples) if !samples.is_empty() => Ok(()),
            seen => Err(format!("{seen:?}")),
        });
    };
    let well = "max(worker_cache_repair_age_seconds) == 0 and min(cache_announcements_up) == 1 \
                and min(redis_up) == 1";
    send(&stack);
    stack.settle();
    await_true("sum(worker_visibility_delay_seconds_count) > 0");
    await_true(well);

    stack.redis.crash();
    send(&stack);
    stack.await_orders(40);
    await_true(
        "max(worker_cache_repair_age_seconds) > 0 and max(cache_announcements_up) == 0 and \
         max(redis_up) == 0",
    );
    stack.redis.start_again();
    await_true(well);
}

/// Asserts that every rule can be evaluated, has a runbook section, and uses metrics that exist.
#[track_caller]
fn check_rules(prometheus: &Prometheus) {
    let (runbooks, tests) = (runbooks(), repository("observability/alerts_test.yml"));
    let rules = prometheus.rules();
    let mut linked = BTreeSet::new();
    for rule in &rules {
        let name = rule["name"].as_str().unwrap();
        assert_eq!(rule["health"], "ok", "{name}: {}", rule["lastError"]);
        let severity = rule["labels"]["severity"].as_str().unwrap();
        assert!(["critical", "warning"].contains(&severity), "{name}");
        let annotation = |key: &str| {
            let text = rule["annotations"][key].as_str().unwrap_or_default();
            assert!(!text.is_empty(), "{name} has no {key}");
            text.to_owned()
        };
        annotation("summary");
        annotation("description");
        let runbook = annotation("runbook_url");
        assert_eq!(runbook, format!("docs/runbooks.md#{}", name.to_lowercase()));
        assert!(runbooks.contains(&runbook), "no section {runbook}");
        linked.insert(runbook);
        let tested = tests.matches(&format!("alertname: {name}")).count();
        assert!(tested >= 2, "{name} has no test of firing and not firing");
        let query = rule["query"].as_str().unwrap();
        assert!(is_limited(query, "job="), "{name} has no job: {query}");
        for metric in metrics_in(query) {
            let found = prometheus.query(&metric).unwrap();
            assert!(!found.is_empty(), "{name}: there is no metric {metric}");
        }
    }
    assert!(!rules.is_empty());
    linked.extend(FROM_LOGS.map(str::to_owned));
    assert_eq!(linked, runbooks, "sections without an alert");
}

/// Returns the names of the metrics in an expression: words with an underscore that are neither
/// functions nor inside braces or quotes. Labels in `by (...)` have no underscore. `up` is the only
/// metric without one.
fn metrics_in(expression: &str) -> BTreeSet<String> {
    let mut metrics = BTreeSet::new();
    let mut depth = 0;
    // Every second part is a quoted string. No string of ours contains an escaped quote.
    let unquoted: Vec<&str> = expression.split('"').step_by(2).collect();
    let unquoted = unquoted.join("\"");
    let mut rest = unquoted.as_str();
    while let Some(first) = rest.chars().next() {
        let length = rest
            .find(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
            .unwrap_or(rest.len());
        let (word, after) = rest.split_at(length.max(first.len_utf8()));
        match word {
            "{" => depth += 1,
            "}" => depth -= 1,
            _ if depth == 0 && !after.starts_with('(') && (word.contains('_') || word == "up") => {
                metrics.insert(word.to_owned());
            }
            _ => {}
        }
        rest = after;
    }
    metrics
}

/// Returns the text inside each pair of braces that is not inside quotes.
fn selectors_in(expression: &str) -> Vec<String> {
    let (mut selectors, mut quoted) = (Vec::new(), false);
    let mut selector: Option<String> = None;
    for c in expression.chars() {
        quoted ^= c == '"';
        match (c, quoted) {
            ('{', false) => selector = Some(String::new()),
            ('}', false) => selectors.extend(selector.take()),
            _ => selector.iter_mut().for_each(|text| text.push(c)),
        }
    }
    selectors
}

/// Whether every metric of an expression has a selector that contains `matchers`.
fn is_limited(expression: &str, matchers: &str) -> bool {
    let bare = metrics_in(expression).into_iter().any(|metric| {
        expression
            .match_indices(&metric)
            .any(|(at, _)| !expression[at + metric.len()..].starts_with('{'))
    });
    let selectors = selectors_in(expression);
    !bare && selectors.iter().all(|selector| selector.contains(matchers))
}

#[test]
fn an_expression_is_limited_when_each_metric_is() {
    for limited in [
        r#"sum(rate(a_b{job="x",route="/order/{order_uid}"}[5m])) / c_d{job="x"}"#,
        r#"min({__name__=~"a_b|c_d",job="x"})"#,
    ] {
        assert!(is_limited(limited, "job="), "{limited}");
    }
    for unlimited in [
        r#"a_b{job="x"} > c_d"#,
        r#"a_b{job="x"} > c_d{route="/{x}"}"#,
        r#"min({__name__=~"a_b|c_d"})"#,
    ] {
        assert!(!is_limited(unlimited, "job="), "{unlimited}");
    }
}

#[test]
fn metrics_are_distinguished_from_functions_and_labels() {
    let expression = "histogram_quantile(0.9, sum by (namespace, le) \
                      (rate(a_bucket{le=~\"x_y}\"}[5m]))) > up{b_c=\"1\"}";
    let found: Vec<String> = metrics_in(expression).into_iter().collect();
    assert_eq!(found, ["a_bucket", "up"]);
}

/// Checks the Prometheus of a running system with exporters, such as `docker compose` with the
/// profile `observability`, under load.
#[test]
#[ignore = "needs a running system with exporters: see observability/README.md"]
fn no_panel_is_empty_with_exporters() {
    let url = env::var(PROMETHEUS_URL).unwrap_or_else(|_| panic!("{PROMETHEUS_URL} is not set"));
    let without = env::var(WITHOUT_JOBS).unwrap_or_default();
    let without: Vec<&str> = without.split(',').collect();
    let prometheus = Prometheus::at(&url);
    let down: Vec<_> = prometheus
        .targets()
        .into_iter()
        .filter(|(_, job, error)| !error.is_empty() && !without.contains(&job.as_str()))
        .collect();
    assert!(down.is_empty(), "{down:?}");
    let mut dashboard = panels(&dashboard());
    dashboard.retain(|panel| {
        !FROM_EXPORTERS
            .iter()
            .any(|(name, job)| *name == title(panel) && without.contains(job))
    });
    await_no_empty_panel(&prometheus, &dashboard, || {});
    let unhealthy: Vec<Value> = prometheus
        .rules()
        .into_iter()
        .filter(|rule| rule["health"] != "ok")
        .collect();
    assert!(unhealthy.is_empty(), "{unhealthy:?}");
}

//! A replica of the api inside the test process.

use api::{App, config::Config};
use prometheus::Registry;
use serde_json::json;
use shared::{order::Order, telemetry::metrics::render, testing::eventually};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::{Connection, EventStream, Request, Response};

pub(crate) struct Replica {
    port: u16,
    admin_port: u16,
    registry: Registry,
    stop: CancellationToken,
    running: JoinHandle<()>,
}

impl Replica {
    /// Starts the replica, which may not be ready yet.
    pub(crate) async fn start(config: Config) -> Self {
        let registry = Registry::new();
        let app = App::build(config, registry.clone()).await.unwrap();
        let stop = CancellationToken::new();
        let (port, admin_port) = (app.port(), app.admin_port());
        let running = tokio::spawn(app.run_until_stopped(stop.clone()));
        Self {
            port,
            admin_port,
            registry,
            stop,
            running,
        }
    }

    /// Waits until the replica is ready.
    pub(crate) async fn ready(self) -> Self {
        self.wait_for_readiness(200).await;
        self
    }

    /// Waits until `/readyz` returns `status`.
    pub(crate) async fn wait_for_readiness(&self, status: u16) {
        eventually(&format!("/readyz to return {status}"), async || {
            (self.probe("/readyz").await.status == status).then_some(())
        })
        .await;
    }

    /// Waits until `/readyz` reports `state` for the check `name`.
    pub(crate) async fn wait_for_check(&self, name: &str, state: &str) {
        let wanted = json!({"name": name, "state": state});
        eventually(&format!("{name} to be {state}"), async || {
            let report = self.probe("/readyz").await.json();
            report["checks"]
                .as_array()
                .is_some_and(|checks| checks.contains(&wanted))
                .then_some(())
        })
        .await;
    }

    /// Waits until `/readyz` returns 503 with `reason` in its body.
    pub(crate) async fn wait_for_reason(&self, reason: &str) {
        eventually(&format!("/readyz to report {reason}"), async || {
            let report = self.probe("/readyz").await;
            let body = String::from_utf8_lossy(&report.body);
            (report.status == 503 && body.contains(reason)).then_some(())
        })
        .await;
    }

    pub(crate) fn request(&self, method: &str, path: &str) -> Request {
        Request::new(self.port, method, path)
    }

    /// Opens a connection to the public port.
    pub(crate) async fn connect(&self) -> Connection {
        Connection::open(self.port).await
    }

    /// Opens a connection to the admin port.
    pub(crate) async fn connect_to_admin(&self) -> Connection {
        Connection::open(self.admin_port).await
    }

    /// Sends `lines` as a request head to the public port.
    pub(crate) async fn send_head(&self, lines: &[&str]) -> Response {
        send_head(self.port, lines).await
    }

    /// Sends `lines` as a request head to the admin port.
    pub(crate) async fn send_admin_head(&self, lines: &[&str]) -> Response {
        send_head(self.admin_port, lines).await
    }

    pub(crate) async fn get(&self, path: &str) -> Response {
        self.request("GET", path).send().await
    }

    pub(crate) async fn order(&self, uid: &str) -> Response {
        self.get(&format!("/order/{uid}")).await
    }

    /// Opens the event stream `path`.
    pub(crate) async fn watch(&self, path: &str) -> EventStream {
        EventStream::open(self.request("GET", path)).await
    }

    /// Like [`Replica::watch`], for a client whose last event has the id `last`.
    pub(crate) async fn watch_after(&self, path: &str, last: &str) -> EventStream {
        let request = self.request("GET", path).header("Last-Event-ID", last);
        EventStream::open(request).await
    }

    /// Waits until the replica has `count` watchers of one order, or of all orders.
    pub(crate) async fn wait_for_watchers(&self, stream: &str, count: u32) {
        let series = format!(r#"event_watchers{{stream="{stream}"}}"#);
        eventually(&format!("{count} watchers"), async || {
            (self.metric(&series) == f64::from(count)).then_some(())
        })
        .await;
    }

    /// Waits until `path` returns `status`.
    pub(crate) async fn wait_for_status(&self, path: &str, status: u16) {
        eventually(&format!("{path} to return {status}"), async || {
            (self.get(path).await.status == status).then_some(())
        })
        .await;
    }

    /// Waits until the replica returns exactly `order`.
    pub(crate) async fn wait_for_order(&self, order: &Order) {
        self.wait_for_answer(order, |_| true).await;
    }

    /// Waits until the replica returns exactly `order`, from the tier `source`.
    pub(crate) async fn wait_for_order_from(&self, source: &str, order: &Order) {
        self.wait_for_answer(order, |answer| answer.source() == Some(source))
            .await;
    }

    async fn wait_for_answer(&self, order: &Order, wanted: impl Fn(&Response) -> bool) {
        let (uid, document) = (&order.order_uid, order.to_json());
        eventually(&format!("the current {uid}"), async || {
            let answer = self.order(uid).await;
            (answer.body == document && wanted(&answer)).then_some(())
        })
        .await;
    }

    pub(crate) async fn probe(&self, path: &str) -> Response {
        Request::new(self.admin_port, "GET", path).send().await
    }

    /// Value of a series, such as `cache_requests_total{result="hit",tier="local"}`.
    pub(crate) fn metric(&self, series: &str) -> f64 {
        let text = self.metrics();
        let value = text
            .lines()
            .find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        value
            .and_then(|value| value.parse().ok())
            .unwrap_or_else(|| panic!("{series} is not in\n{text}"))
    }

    /// The text behind `/metrics`.
    pub(crate) fn metrics(&self) -> String {
        String::from_utf8(render(&self.registry).unwrap()).unwrap()
    }

    /// Number of lookups in `tier` with this `result`.
    pub(crate) fn cache_requests(&self, tier: &str, result: &str) -> f64 {
        let labels = format!(r#"{{result="{result}",tier="{tier}"}}"#);
        self.metric(&format!("cache_requests_total{labels}"))
    }

    /// Number of requests for one order with this method and status.
    pub(crate) fn order_requests(&self, method: &str, status: u16) -> f64 {
        let labels =
            format!(r#"{{method="{method}",route="/order/{{order_uid}}",status="{status}"}}"#);
        self.metric(&format!("http_requests_total{labels}"))
    }

    /// Starts the shutdown without waiting for its end.
    pub(crate) fn begin_stop(&self) {
        self.stop.cancel();
    }

    /// Waits until the replica has stopped.
    pub(crate) async fn stopped(self) {
        self.running.await.unwrap();
    }
}

async fn send_head(port: u16, lines: &[&str]) -> Response {
    let head: String = lines.iter().map(|line| format!("{line}\r\n")).collect();
    Request::verbatim(port, &head)
        .header("Connection", "close")
        .send()
        .await
}

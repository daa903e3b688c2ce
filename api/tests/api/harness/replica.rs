//! A replica of the api inside the test's process.

use api::{App, config::Config};
use prometheus::Registry;
use shared::telemetry::metrics::render;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::{Request, Response, eventually};

pub(crate) struct Replica {
    port: u16,
    admin_port: u16,
    registry: Registry,
    stop: CancellationToken,
    running: JoinHandle<anyhow::Result<()>>,
}

impl Replica {
    /// Starts it; it may not be ready yet.
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

    /// Waits until it is ready.
    pub(crate) async fn ready(self) -> Self {
        eventually("the replica is ready", || async {
            self.probe("/readyz").await.status == 200
        })
        .await;
        self
    }

    pub(crate) fn request(&self, method: &str, path: &str) -> Request {
        Request::new(self.port, method, path)
    }

    pub(crate) async fn get(&self, path: &str) -> Response {
        self.request("GET", path).send().await
    }

    pub(crate) async fn order(&self, uid: &str) -> Response {
        self.get(&format!("/order/{uid}")).await
    }

    pub(crate) async fn probe(&self, path: &str) -> Response {
        Request::new(self.admin_port, "GET", path).send().await
    }

    /// The value of a series, such as `cache_requests_total{result="hit",tier="local"}`.
    pub(crate) fn metric(&self, series: &str) -> f64 {
        let text = String::from_utf8(render(&self.registry).unwrap()).unwrap();
        let value = text
            .lines()
            .find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        value
            .and_then(|value| value.parse().ok())
            .unwrap_or_else(|| panic!("{series} is not in\n{text}"))
    }

    /// Asks it to stop; it may go on with what is under way.
    pub(crate) fn begin_stop(&self) {
        self.stop.cancel();
    }

    /// Waits until it has stopped.
    pub(crate) async fn stopped(self) {
        self.running.await.unwrap().unwrap();
    }
}

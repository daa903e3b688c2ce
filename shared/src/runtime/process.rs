//! A program from start to exit: tokio runtime, telemetry, signals, exit code.

use std::{
    future::Future,
    process::{ExitCode, Termination},
    time::Duration,
};

use anyhow::Context;
use prometheus::Registry;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{hangup, health, output, shutdown};
use crate::{
    config::{self, Admin},
    telemetry,
};

/// The name and version under which a process appears in logs, metrics and traces.
#[derive(Clone, Copy, Debug)]
pub struct Program {
    /// Name, such as `worker`.
    pub name: &'static str,
    /// Version of the release.
    pub version: &'static str,
}

/// Parts of a running process that its service needs.
pub struct Process {
    /// Registry behind `/metrics`.
    pub registry: Registry,
    /// Cancelled by the first SIGTERM or SIGINT.
    pub shutdown: CancellationToken,
    /// Changes with each SIGHUP.
    pub hangup: watch::Receiver<()>,
}

impl Program {
    /// Runs a service until it returns: sets up telemetry and signals first, and sends the last
    /// spans at the end. A watchdog ends the process if it still runs `shutdown_limit` after the
    /// signal.
    ///
    /// # Errors
    /// If a variable of the telemetry is invalid, or the service fails.
    pub fn serve<F>(
        self,
        shutdown_limit: Duration,
        service: impl FnOnce(Process) -> F,
    ) -> anyhow::Result<()>
    where
        F: Future<Output = anyhow::Result<()>>,
    {
        block_on(async {
            let telemetry = telemetry::init(self.name, self.version)?;
            let shutdown = shutdown::on_signal(shutdown_limit)?;
            let hangup = hangup::on_signal()?;
            tracing::info!(program = self.name, version = self.version, "starting");
            let process = Process {
                registry: telemetry.registry(),
                shutdown,
                hangup,
            };
            let served = service(process).await;
            telemetry.flush();
            if served.is_ok() {
                tracing::info!("stopped");
            }
            served
        })
    }
}

/// Runs a command in a new tokio runtime.
///
/// # Errors
/// If the runtime cannot be started, or the command fails.
pub fn block_on<T>(command: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start the tokio runtime")?
        .block_on(command)
}

/// Prints the readiness (or liveness if `live`) of the process behind `ADMIN_ADDR`, for container
/// health checks.
///
/// # Errors
/// If the process does not answer, or is not ready (or not alive).
pub fn print_health(live: bool) -> anyhow::Result<()> {
    let admin: Admin = config::load("ADMIN_")?;
    output::line(health::request(&admin.addr, live)?)
}

/// Returns the exit code of a command, and prints its error.
pub fn exit_code(outcome: anyhow::Result<impl Termination>) -> ExitCode {
    match outcome {
        Ok(outcome) => outcome.report(),
        Err(error) => output::fail(&error),
    }
}

//! Explains failed TLS handshakes with brokers, in one log line a minute.

use std::{sync::OnceLock, thread};

use shared::{
    config::Kafka,
    kafka::{broker_in, handshake_problem},
};

use super::error_log;

/// Section of docs/runbooks.md.
const RUNBOOK: &str = "CertificateRejected";

/// The configuration of every client of this process.
static CONFIG: OnceLock<Kafka> = OnceLock::new();

/// Sets the configuration with which a failed handshake is tried again. The first one stays.
pub(super) fn configure(config: &Kafka) {
    CONFIG.get_or_init(|| config.clone());
}

/// Logs a failed handshake and its cause, at most once a minute. `reason` is the text of
/// librdkafka, which does not name the cause.
pub(super) fn failed(reason: &str) {
    let Some(occurrences) = error_log::handshake_due() else {
        tracing::debug!(reason, "TLS handshake with a Kafka broker failed");
        return;
    };
    let reason = reason.to_owned();
    // Finding the cause takes some seconds at most, and this thread polls the client.
    let started = thread::Builder::new()
        .name("kafka-handshake".to_owned())
        .spawn(move || log(&reason, occurrences));
    if let Err(error) = started {
        tracing::error!(%error, "cannot start a thread");
    }
}

fn log(reason: &str, occurrences: u64) {
    let broker = broker_in(reason).unwrap_or_default();
    let problem = CONFIG
        .get()
        .and_then(|config| handshake_problem(config, broker));
    let cause = problem.as_deref().unwrap_or(reason);
    tracing::error!(
        broker,
        cause,
        occurrences,
        runbook = RUNBOOK,
        "TLS handshake with a Kafka broker failed"
    );
}

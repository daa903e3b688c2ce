//! Orderly shutdown: one cancellation token for all tasks, and a watchdog for tasks that hang.

use std::{process, thread, time::Duration};

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Returns a token that the first SIGTERM or SIGINT cancels.
///
/// A watchdog ends the process with exit code 1 if it still runs `limit` after the signal. This
/// covers any hang: librdkafka's close, for example, blocks for the session timeout when no broker
/// answers.
///
/// # Errors
/// If the signal handlers cannot be installed.
pub fn on_signal(limit: Duration) -> std::io::Result<CancellationToken> {
    let token = CancellationToken::new();
    let (mut terminate, mut interrupt) = (
        signal(SignalKind::terminate())?,
        signal(SignalKind::interrupt())?,
    );
    tokio::spawn({
        let token = token.clone();
        async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            tracing::info!(limit = ?limit, "shutting down");
            arm_watchdog(limit);
            token.cancel();
        }
    });
    Ok(token)
}

/// Ends the process with exit code 1 after `limit`. Runs on its own thread, so a blocked runtime
/// does not stop it.
pub fn arm_watchdog(limit: Duration) {
    thread::spawn(move || {
        thread::sleep(limit);
        tracing::error!(limit = ?limit, "shutdown timed out; exiting");
        process::exit(1);
    });
}

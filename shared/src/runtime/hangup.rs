//! SIGHUP, by which an operator asks a service to reread its files.

use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
};

/// Returns a channel that changes with each SIGHUP. The signal no longer ends the process, also
/// where a service has nothing to reread.
///
/// # Errors
/// If the signal handler cannot be installed.
pub fn on_signal() -> std::io::Result<watch::Receiver<()>> {
    let mut signals = signal(SignalKind::hangup())?;
    let (sender, receiver) = watch::channel(());
    tokio::spawn(async move {
        while signals.recv().await.is_some() {
            tracing::info!("SIGHUP received");
            sender.send_replace(());
        }
    });
    Ok(receiver)
}

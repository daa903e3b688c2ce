//! Ctrl-C and SIGTERM: the first stops the sending, the second ends the process at once.

use std::process;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use tokio::signal::unix::{SignalKind, signal};

/// Whether the user wants us to stop.
#[derive(Clone, Default)]
pub(crate) struct Interrupt(Arc<AtomicU8>);

impl Interrupt {
    /// Listens from now on. Call it inside the tokio runtime.
    pub(crate) fn listen() -> Self {
        let interrupt = Self::default();
        // 128 + number of the signal, as a shell reports a process that a signal ended.
        for (kind, exit_code) in [
            (SignalKind::interrupt(), 130),
            (SignalKind::terminate(), 143),
        ] {
            let seen = Arc::clone(&interrupt.0);
            match signal(kind) {
                Ok(mut signals) => {
                    tokio::spawn(async move {
                        while signals.recv().await.is_some() {
                            if seen.swap(exit_code, Ordering::Relaxed) != 0 {
                                process::exit(exit_code.into());
                            }
                        }
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "a signal would end the process without a summary")
                }
            }
        }
        interrupt
    }

    /// The exit code of a process that was told to stop.
    pub(crate) fn exit_code(&self) -> Option<u8> {
        match self.0.load(Ordering::Relaxed) {
            0 => None,
            code => Some(code),
        }
    }
}

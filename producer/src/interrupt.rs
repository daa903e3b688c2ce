//! SIGINT (Ctrl-C) and SIGTERM: the first signal stops sending, the second ends the process at
//! once.

use std::process;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use tokio::signal::unix::{SignalKind, signal};

/// Flag that is set when the process receives a signal to stop. Clones share the flag.
#[derive(Clone, Default)]
pub(crate) struct Interrupt(Arc<AtomicU8>);

impl Interrupt {
    /// Starts to handle the signals.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub(crate) fn listen() -> Self {
        let interrupt = Self::default();
        // 128 + signal number: the code that a shell reports for a process that a signal ended.
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
                    tracing::warn!(exit_code, %error, "cannot handle stop signal")
                }
            }
        }
        interrupt
    }

    /// Sets the flag as a signal does.
    #[cfg(test)]
    pub(crate) fn set(&self, exit_code: u8) {
        self.0.store(exit_code, Ordering::Relaxed);
    }

    /// Returns the exit code to use if a signal arrived, else `None`.
    pub(crate) fn exit_code(&self) -> Option<u8> {
        match self.0.load(Ordering::Relaxed) {
            0 => None,
            code => Some(code),
        }
    }
}

//! One line of progress on a terminal, rewritten in place.

use std::{
    io::{IsTerminal, Write, stderr},
    time::{Duration, Instant},
};

/// Minimum time between two updates.
const INTERVAL: Duration = Duration::from_millis(200);

/// The line of progress. It exists only if standard error is a terminal.
pub(super) struct Progress {
    is_terminal: bool,
    shown: bool,
    next: Instant,
}

impl Default for Progress {
    fn default() -> Self {
        Self {
            is_terminal: stderr().is_terminal(),
            shown: false,
            next: Instant::now() + INTERVAL,
        }
    }
}

impl Progress {
    /// Shows a text, unless another one was shown a moment ago.
    pub(super) fn show(&mut self, text: impl FnOnce() -> String) {
        let now = Instant::now();
        if !self.is_terminal || now < self.next {
            return;
        }
        self.next = now + INTERVAL;
        self.shown = true;
        // A terminal that is gone shows no progress.
        let _ = write!(stderr(), "\r\x1b[K{}", text());
    }

    /// Removes the line, so that a result can be printed in its place.
    pub(super) fn clear(&mut self) {
        if std::mem::take(&mut self.shown) {
            let _ = write!(stderr(), "\r\x1b[K");
        }
    }
}

//! Decides when to copy a batch without the lookup of its orders.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// Consecutive batches of only new orders after which the next batch is assumed to be new as well.
/// The lookup costs Postgres some 5 % of what the batch costs. A wrong guess costs the first of its
/// four tables, and an error in the log of Postgres.
const AT_FIRST: u32 = 16;

/// Upper limit of the required batches. Each wrong guess doubles their number, so guesses are rare
/// where orders change now and then.
const AT_MOST: u32 = 4096;

/// Counts the batches in a row that held only orders that Postgres did not know.
pub(in crate::storage) struct Streak {
    length: AtomicU32,
    wanted: AtomicU32,
}

impl Default for Streak {
    fn default() -> Self {
        Self {
            length: AtomicU32::new(0),
            wanted: AtomicU32::new(AT_FIRST),
        }
    }
}

impl Streak {
    /// Returns whether the next batch may be assumed to be new.
    pub(in crate::storage) fn is_long(&self) -> bool {
        self.length.load(Relaxed) >= self.wanted.load(Relaxed)
    }

    /// Records the lookup of a batch, and whether all its orders were new.
    pub(in crate::storage) fn asked(&self, all_new: bool) {
        match all_new {
            true => _ = self.length.fetch_add(1, Relaxed),
            false => self.length.store(0, Relaxed),
        }
    }

    /// Records that a batch was assumed to be new but was not.
    pub(in crate::storage) fn guessed_wrong(&self) {
        self.length.store(0, Relaxed);
        let wanted = self.wanted.load(Relaxed);
        self.wanted.store((wanted * 2).min(AT_MOST), Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Counts the new batches until the next one is assumed to be new.
    fn asked_until_long(streak: &Streak) -> u32 {
        let mut asked = 0;
        while !streak.is_long() {
            streak.asked(true);
            asked += 1;
        }
        asked
    }

    #[test]
    fn a_wrong_guess_doubles_the_wait_for_the_next_one() {
        let streak = Streak::default();
        for wanted in [16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 4096] {
            assert_eq!(asked_until_long(&streak), wanted);
            streak.guessed_wrong();
        }
    }

    #[test]
    fn a_known_order_restarts_the_count() {
        let streak = Streak::default();
        for _ in 0..15 {
            streak.asked(true);
        }
        streak.asked(false);
        assert_eq!(asked_until_long(&streak), 16);
    }
}

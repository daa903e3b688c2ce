//! When to copy a batch without having asked which of its orders are known.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// So many batches in a row without a known order are a sign that the next one has none, either. To ask costs Postgres some
/// 5 % of what the batch costs; a wrong guess costs the first of its four tables, and an error in the log of Postgres.
const AT_FIRST: u32 = 16;

/// Each wrong guess doubles how many are wanted, up to this: where orders are changed now and then, few guesses are made.
const AT_MOST: u32 = 4096;

/// How many batches in a row held nothing but orders that Postgres did not know.
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
    /// Whether the next batch may be taken to be new.
    pub(super) fn is_long(&self) -> bool {
        self.length.load(Relaxed) >= self.wanted.load(Relaxed)
    }

    /// Postgres was asked about a batch.
    pub(super) fn asked(&self, all_new: bool) {
        match all_new {
            true => _ = self.length.fetch_add(1, Relaxed),
            false => self.length.store(0, Relaxed),
        }
    }

    /// A batch was taken to be new, and was not.
    pub(super) fn guessed_wrong(&self) {
        self.length.store(0, Relaxed);
        let wanted = self.wanted.load(Relaxed);
        self.wanted.store((wanted * 2).min(AT_MOST), Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Batches that have to be new until the next one is taken to be.
    fn asked_until_long(streak: &Streak) -> u32 {
        let mut asked = 0;
        while !streak.is_long() {
            streak.asked(true);
            asked += 1;
        }
        asked
    }

    #[test]
    fn a_wrong_guess_makes_the_next_one_rarer() {
        let streak = Streak::default();
        for wanted in [16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 4096] {
            assert_eq!(asked_until_long(&streak), wanted);
            streak.guessed_wrong();
        }
    }

    #[test]
    fn a_known_order_begins_anew() {
        let streak = Streak::default();
        for _ in 0..15 {
            streak.asked(true);
        }
        streak.asked(false);
        assert_eq!(asked_until_long(&streak), 16);
    }
}

//! An estimate of how many different values were seen lately, in fixed memory.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

const WORDS: usize = 256;
/// With so many bits, the estimate of 10 000 values is within some percent. It ends at 160 000.
const BITS: usize = WORDS * 64;

/// Estimates the number of different values (linear counting: the share of bits that no value has
/// set). The window consists of two halves, and the older one is forgotten as a whole.
pub(super) struct Distinct {
    halves: [Box<[AtomicU64]>; 2],
    current: AtomicUsize,
}

impl Distinct {
    pub(super) fn new() -> Self {
        let half = || (0..WORDS).map(|_| AtomicU64::new(0)).collect();
        Self {
            halves: [half(), half()],
            current: AtomicUsize::new(0),
        }
    }

    /// Adds the value with this hash, which must be uniform.
    pub(super) fn add(&self, hash: u64) {
        let bit = hash as usize % BITS;
        let word = &self.halves[self.current.load(Relaxed)][bit / 64];
        let mask = 1 << (bit % 64);
        // Most values repeat, and a load shares the cache line with other cores.
        if word.load(Relaxed) & mask == 0 {
            word.fetch_or(mask, Relaxed);
        }
    }

    /// Returns the estimate for the window.
    pub(super) fn estimate(&self) -> u64 {
        let [first, second] = &self.halves;
        let words = first.iter().zip(second);
        let free: u32 = words
            .map(|(a, b)| (a.load(Relaxed) | b.load(Relaxed)).count_zeros())
            .sum();
        let bits = BITS as f64;
        (bits * (bits / f64::from(free.max(1))).ln()).round() as u64
    }

    /// Forgets the older half of the window.
    pub(super) fn forget_older_half(&self) {
        let older = 1 - self.current.load(Relaxed);
        for word in &self.halves[older] {
            word.store(0, Relaxed);
        }
        self.current.store(older, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::hash::{BuildHasher, RandomState};

    use super::*;

    #[test]
    fn the_estimate_is_close_and_counts_a_value_once() {
        let hasher = RandomState::new();
        for count in [0, 1, 100, 10_000] {
            let distinct = Distinct::new();
            for _ in 0..3 {
                (0..count).for_each(|value: u64| distinct.add(hasher.hash_one(value)));
            }
            let estimate = distinct.estimate();
            assert!(
                estimate.abs_diff(count) <= count / 10,
                "{estimate} of {count}"
            );
        }
    }

    #[test]
    fn a_value_is_forgotten_with_the_second_half_after_it() {
        let distinct = Distinct::new();
        distinct.add(7);
        distinct.forget_older_half();
        distinct.add(8);
        assert_eq!(distinct.estimate(), 2);
        distinct.forget_older_half();
        assert_eq!(distinct.estimate(), 1);
        distinct.forget_older_half();
        assert_eq!(distinct.estimate(), 0);
    }

    #[test]
    fn a_full_window_has_an_estimate() {
        let distinct = Distinct::new();
        (0..BITS as u64).for_each(|bit| distinct.add(bit));
        assert!((150_000..170_000).contains(&distinct.estimate()));
    }
}

//! Step sizes for copying orders from Postgres to Redis.
//!
//! A step has many small orders or few large ones, because all of its orders are in memory at once.

use shared::order::Revision;

/// Number of orders that are read and written in one step.
pub struct StepSize {
    orders: usize,
}

impl StepSize {
    const MAX_ORDERS: usize = 500;
    /// Target for the documents of a step. One document has at most 1 MiB.
    const BYTES: usize = 4 << 20;

    /// Takes the next orders off `left`; returns none if `left` is empty.
    pub fn next<'o, T>(&self, left: &mut &'o [T]) -> Option<&'o [T]> {
        left.split_off(..self.orders.min(left.len()))
            .filter(|step| !step.is_empty())
    }

    /// Fits the next step to the size of these orders. A step grows at most twofold.
    pub fn adapt<'r>(&mut self, revisions: impl IntoIterator<Item = &'r Revision>) {
        let (mut orders, mut bytes) = (0, 0);
        for revision in revisions {
            orders += 1;
            bytes += revision
                .document
                .as_ref()
                .map_or(0, |document| document.len());
        }
        if let Some(fitting) = (Self::BYTES * orders).checked_div(bytes) {
            self.orders = fitting.clamp(1, Self::MAX_ORDERS.min(self.orders * 2));
        }
    }
}

impl Default for StepSize {
    /// Starts with small steps, because the size of the first orders is unknown.
    fn default() -> Self {
        Self { orders: 32 }
    }
}

#[cfg(test)]
mod tests {
    use shared::order::{OrderUid, Version};

    use super::*;

    fn orders(count: usize, bytes: usize) -> Vec<Revision> {
        let revision = Revision {
            uid: OrderUid::parse("u").unwrap(),
            version: Version::new(1, 1, 1),
            document: Some(vec![b'x'; bytes].into()),
        };
        vec![revision; count]
    }

    #[test]
    fn the_step_size_follows_the_size_of_the_orders() {
        let mut size = StepSize::default();
        size.adapt(&orders(size.orders, 1 << 20));
        assert_eq!(size.orders, 4);
        size.adapt(&orders(size.orders, 1200));
        assert_eq!(size.orders, 8);
        // Erased orders have no size, so the size stays the same.
        size.adapt(&orders(size.orders, 0));
        assert_eq!(size.orders, 8);
        for _ in 0..8 {
            size.adapt(&orders(size.orders, 1200));
        }
        assert_eq!(size.orders, StepSize::MAX_ORDERS);
    }

    #[test]
    fn steps_cover_every_order() {
        let size = StepSize { orders: 3 };
        let mut left = &[1, 2, 3, 4, 5, 6, 7][..];
        let steps: Vec<&[i32]> = std::iter::from_fn(|| size.next(&mut left)).collect();
        assert_eq!(steps, [&[1, 2, 3][..], &[4, 5, 6], &[7]]);
    }
}

//! Changes to write to Postgres.

use crate::order::{Order, OrderUid, Version};

/// A version of an order, to be stored if it is the newest.
#[derive(Clone, Debug)]
pub struct Change {
    /// The uid of the order.
    pub uid: OrderUid,
    /// The version: timestamp and position of its record in Kafka.
    pub version: Version,
    /// The order; none erases the stored order.
    pub order: Option<Box<Order>>,
}

impl Change {
    pub(super) fn is_order(&self) -> bool {
        self.order.is_some()
    }
}

/// Changes sorted by uid, one per uid. The sorting makes all statements lock rows in the same
/// order. One change per uid is required because Postgres rejects a statement that touches a row
/// twice (21000).
#[derive(Clone, Debug, Default)]
pub struct ChangeSet(Vec<Change>);

impl ChangeSet {
    /// Keeps the change with the greatest version of each uid. Returns the superseded changes, too.
    pub fn new(mut changes: Vec<Change>) -> (Self, Vec<Change>) {
        changes.sort_unstable_by(|a, b| a.uid.cmp(&b.uid).then(b.version.cmp(&a.version)));
        let (mut kept, mut superseded): (Vec<Change>, Vec<Change>) =
            (Vec::with_capacity(changes.len()), Vec::new());
        for change in changes {
            match kept.last() {
                Some(newest) if newest.uid == change.uid => superseded.push(change),
                _ => kept.push(change),
            }
        }
        (Self(kept), superseded)
    }

    /// Returns the changes, sorted by uid.
    pub fn as_slice(&self) -> &[Change] {
        &self.0
    }

    /// Returns the number of changes.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Returns whether there are no changes.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Splits the changes into halves, to find the one that Postgres rejects.
    pub fn halve(mut self) -> (Self, Self) {
        let right = self.0.split_off(self.0.len() / 2);
        (self, Self(right))
    }

    /// Returns the changes themselves.
    pub fn into_vec(self) -> Vec<Change> {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn erasure(uid: &str, offset: i64) -> Change {
        Change {
            uid: OrderUid::parse(uid).unwrap(),
            version: Version::new(1, offset, 0),
            order: None,
        }
    }

    #[test]
    fn the_greatest_version_of_each_uid_is_kept_sorted_by_uid() {
        let changes = vec![
            erasure("b", 1),
            erasure("a", 7),
            erasure("b", 3),
            erasure("b", 2),
            erasure("a", 5),
        ];
        let (set, superseded) = ChangeSet::new(changes);
        let names = |changes: &[Change]| -> Vec<(String, i64)> {
            changes
                .iter()
                .map(|change| (change.uid.to_string(), change.version.offset))
                .collect()
        };
        assert_eq!(
            names(set.as_slice()),
            [("a".to_owned(), 7), ("b".to_owned(), 3)]
        );
        assert_eq!(
            names(&superseded),
            [
                ("a".to_owned(), 5),
                ("b".to_owned(), 2),
                ("b".to_owned(), 1)
            ]
        );
    }

    #[test]
    fn halves_hold_every_change() {
        let (set, _) = ChangeSet::new((0..7).map(|n| erasure(&format!("u{n}"), n)).collect());
        let (left, right) = set.halve();
        assert_eq!((left.len(), right.len()), (3, 4));
    }
}

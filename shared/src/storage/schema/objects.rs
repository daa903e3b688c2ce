//! The tables and sequences of the schema, and the rights on them that each program needs.

use Right::{Delete, Insert, Select, Update, Usage};

use crate::grants::Subject;

/// A right on a table or a sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Right {
    Select,
    Insert,
    Update,
    Delete,
    /// Of a sequence: take the next value.
    Usage,
}

impl Right {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Select => "SELECT",
            Self::Insert => "INSERT",
            Self::Update => "UPDATE",
            Self::Delete => "DELETE",
            Self::Usage => "USAGE",
        }
    }
}

/// A table or a sequence.
pub(super) struct Object {
    pub(super) name: &'static str,
    worker: &'static [Right],
    api: &'static [Right],
    operator: &'static [Right],
}

impl Object {
    pub(super) fn is_sequence(&self) -> bool {
        self.name.ends_with("_seq")
    }

    /// Returns the rights that these subjects need together, each once.
    pub(super) fn rights(&self, subjects: &[Subject]) -> Vec<Right> {
        let mut rights: Vec<Right> = subjects
            .iter()
            .flat_map(|subject| match subject {
                Subject::Worker => self.worker,
                Subject::Api => self.api,
                Subject::Operator => self.operator,
            })
            .copied()
            .collect();
        rights.sort_unstable();
        rights.dedup();
        rights
    }
}

const fn object(
    name: &'static str,
    worker: &'static [Right],
    api: &'static [Right],
    operator: &'static [Right],
) -> Object {
    Object {
        name,
        worker,
        api,
        operator,
    }
}

/// The table in which sqlx records the applied migrations.
pub(super) const MIGRATIONS: &str = "_sqlx_migrations";

/// A new row of an order, and the replacement of one.
const CHILD: &[Right] = &[Select, Insert, Delete];

/// The tables and sequences that this version uses, with the rights of the worker, the api and the
/// operator.
#[rustfmt::skip]
pub(super) const OBJECTS: [Object; 12] = [
    object(MIGRATIONS, &[Select], &[Select], &[Select]),
    object("orders", &[Select, Insert, Update], &[Select], &[Select]),
    object("deliveries", CHILD, &[Select], &[Select]),
    object("payments", CHILD, &[Select], &[Select]),
    object("items", CHILD, &[Select], &[Select]),
    object("cache_repairs", &[Select, Insert, Update, Delete], &[Select], &[Select]),
    object("cache_writes", &[Select, Insert, Delete], &[Select], &[Select]),
    object("complete_cache", &[Select, Insert, Update], &[Select], &[Select]),
    object("dead_letter_replays", &[], &[], &[Select, Insert, Update, Delete]),
    object("orders_id_seq", &[Usage], &[], &[]),
    object("cache_writes_id_seq", &[Usage], &[], &[]),
    object("cache_repairs_mark_seq", &[Usage], &[], &[]),
];

/// Returns the names of the tables and sequences.
pub(in crate::storage) fn names() -> Vec<&'static str> {
    OBJECTS.iter().map(|object| object.name).collect()
}

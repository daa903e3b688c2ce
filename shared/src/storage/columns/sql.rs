//! The parts of statements that follow from a list of columns.

use super::Column;

/// A table: the columns that a new row gets, in the order of `COPY` and of the arrays of an insert.
pub(in crate::storage) struct Table {
    pub(super) name: &'static str,
    pub(super) columns: &'static [&'static [Column]],
}

impl Table {
    fn columns(&self) -> impl Iterator<Item = &'static Column> + use<> {
        self.columns.iter().copied().flatten()
    }

    /// Returns the names of the columns: `id, order_uid`.
    pub(in crate::storage) fn names(&self) -> String {
        join(", ", self.columns().map(|column| column.name.to_owned()))
    }

    /// Returns the parameters of an insert with one array for each column: `$1::int8[]`.
    pub(in crate::storage) fn arrays(&self) -> String {
        let array =
            |(number, column): (usize, &Column)| format!("${}::{}[]", number + 1, column.sql_type);
        join(", ", self.columns().enumerate().map(array))
    }

    /// Returns the assignments of an upsert to all columns but `except`: `entry = EXCLUDED.entry`.
    pub(in crate::storage) fn assignments(&self, except: &[&str]) -> String {
        let assigned = self.columns().map(|column| column.name);
        let assigned = assigned.filter(|name| !except.contains(name));
        join(
            ", ",
            assigned.map(|name| format!("{name} = EXCLUDED.{name}")),
        )
    }

    /// Returns the number of columns.
    pub(in crate::storage) fn width(&self) -> usize {
        self.columns().count()
    }

    /// Returns the statement that copies rows in binary form.
    ///
    /// `COPY` fails if an integer column has another type: `numeric`, for example, has no operator
    /// `|`. Binary rows carry no types, and `numeric` would read the eight bytes of a small `int8`
    /// as another number. The condition costs nothing per row: Postgres simplifies it to `true`
    /// once it has parsed the statement.
    pub(in crate::storage) fn copy(&self) -> String {
        let integers = self
            .columns()
            .filter(|column| column.sql_type.starts_with("int"))
            .map(|column| column.name.to_owned());
        format!(
            "COPY {} ({}) FROM STDIN (FORMAT binary) WHERE true OR ({} | 0) = 0",
            self.name,
            self.names(),
            join(" | ", integers)
        )
    }

    /// Returns the statement that inserts rows from one array for each column.
    pub(in crate::storage) fn insert(&self) -> String {
        let (names, arrays) = (self.names(), self.arrays());
        format!(
            "INSERT INTO {} ({names}) SELECT * FROM unnest({arrays})",
            self.name
        )
    }
}

/// Returns the columns of `table` to select, each cast to the type as which it is read, so that a
/// migration may widen it. If it already has that type, Postgres drops the cast when it parses the
/// statement.
pub(in crate::storage) fn selected(table: &str, columns: &[Column]) -> String {
    let column = |column: &Column| format!("{}::{}", value(table, column), column.sql_type);
    join(", ", columns.iter().map(column))
}

/// Returns the names of `columns`.
pub(in crate::storage) fn names(columns: &[Column]) -> String {
    join(", ", columns.iter().map(|column| column.name.to_owned()))
}

/// Returns the columns of `table` like [`selected`], each as an array of all rows.
pub(in crate::storage) fn aggregated(table: &str, columns: &[Column]) -> String {
    let column = |column: &Column| {
        format!(
            "array_agg({}::{}) AS {}",
            value(table, column),
            column.sql_type,
            column.name
        )
    };
    join(", ", columns.iter().map(column))
}

/// Returns the condition that `columns` of `table` hold what an erased order has: no text, zero,
/// the epoch or null. Ignores columns that the writer of the row does not know.
pub(in crate::storage) fn blank(table: &str, columns: &[Column]) -> String {
    let condition = |column: &Column| {
        let Column { name, sql_type, .. } = column;
        let blank = match *sql_type {
            "text" => "''",
            "timestamptz" => "'epoch'",
            _ => "0",
        };
        let is_blank = format!("coalesce({table}.{name}::{sql_type}, {blank}) = {blank}");
        match column.since {
            1 => is_blank,
            since => format!("({table}.representation < {since} OR {is_blank})"),
        }
    };
    join(" AND ", columns.iter().map(condition))
}

fn value(table: &str, column: &Column) -> String {
    let Column {
        name,
        since,
        absent,
        ..
    } = column;
    match since {
        1 => format!("{table}.{name}"),
        _ => format!(
            "(CASE WHEN {table}.representation >= {since} THEN {table}.{name} ELSE {absent} END)"
        ),
    }
}

fn join(separator: &str, parts: impl Iterator<Item = String>) -> String {
    parts.collect::<Vec<_>>().join(separator)
}

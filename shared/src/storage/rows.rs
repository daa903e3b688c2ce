//! Rows in the binary format of `COPY`:
//! <https://www.postgresql.org/docs/current/sql-copy.html#SQL-COPY-FILE-FORMATS>.

/// The signature, no flags, and an empty header extension.
const HEADER: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
const TRAILER: i16 = -1;
/// Stands for null in place of the length of a value.
const NULL: i32 = -1;

/// Rows for one table.
pub(super) struct Rows(Vec<u8>);

impl Rows {
    pub(super) fn new() -> Self {
        Self(HEADER.to_vec())
    }

    /// Begins a row. Its values follow in the order of the statement's columns.
    pub(super) fn row(&mut self) -> Row<'_> {
        let start = self.0.len();
        self.0.extend_from_slice(&0_i16.to_be_bytes());
        Row {
            bytes: &mut self.0,
            start,
            columns: 0,
        }
    }

    /// Returns all rows in the form that `COPY` reads.
    pub(super) fn finish(mut self) -> Vec<u8> {
        self.0.extend_from_slice(&TRAILER.to_be_bytes());
        self.0
    }
}

/// A row in progress.
pub(super) struct Row<'r> {
    bytes: &'r mut Vec<u8>,
    start: usize,
    columns: i16,
}

impl Row<'_> {
    /// Adds a value in the binary form of its type.
    pub(super) fn value(&mut self, value: &[u8]) {
        // The cast loses nothing: a value is part of a record, and records end far below 2 GiB.
        self.length(value.len() as i32);
        self.bytes.extend_from_slice(value);
    }

    /// Adds a null.
    pub(super) fn null(&mut self) {
        self.length(NULL);
    }

    fn length(&mut self, length: i32) {
        self.bytes.extend_from_slice(&length.to_be_bytes());
        self.columns += 1;
    }

    /// Ends the row.
    pub(super) fn end(self) {
        self.bytes[self.start..self.start + 2].copy_from_slice(&self.columns.to_be_bytes());
    }
}

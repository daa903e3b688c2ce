//! Reads selected dead letters in chunks of bounded memory.

use std::ops::ControlFlow;

use super::{marks::Marks, row::Row, selection::Selection};
use crate::kafka::dead_letter::{DeadLetter, Ranges, Reader};

/// Dead letters in a chunk: one query for their marks, and at most so many sent at once.
pub(super) const CHUNK: usize = 500;
/// A chunk ends with the dead letter that reaches this many bytes. One may have 16 MiB.
const CHUNK_BYTES: usize = 16 << 20;

/// Calls `each` with the selected dead letters, in chunks of at most `most`, until it returns
/// `Break`. `keep` returns what to keep of each one, and the bytes that this takes.
///
/// # Errors
/// When a broker stops answering, or `each` fails.
pub(super) fn in_chunks<T>(
    reader: &Reader,
    ranges: &Ranges,
    selection: &Selection,
    most: usize,
    keep: impl Fn(DeadLetter) -> (T, usize),
    mut each: impl FnMut(Vec<T>) -> anyhow::Result<ControlFlow<()>>,
) -> anyhow::Result<()> {
    let mut chunk = Chunk::new(most);
    let end = reader.for_each(ranges, |letter| {
        if !selection.takes(&letter) {
            return Ok(ControlFlow::Continue(()));
        }
        let (kept, bytes) = keep(letter);
        match chunk.push(kept, bytes) {
            Some(full) => each(full),
            None => Ok(ControlFlow::Continue(())),
        }
    })?;
    if end.is_continue() && !chunk.entries.is_empty() {
        // The last chunk: what `each` returns makes no difference.
        let _ = each(chunk.entries)?;
    }
    Ok(())
}

/// Calls `each` with the row of every selected dead letter, with its mark, until it returns `Break`
/// or the limit is reached.
///
/// # Errors
/// When a broker stops answering, or `each` fails.
pub(super) fn rows(
    reader: &Reader,
    selection: &Selection,
    marks: &mut Marks,
    mut each: impl FnMut(&Row) -> anyhow::Result<ControlFlow<()>>,
) -> anyhow::Result<()> {
    let ranges = selection.ranges(reader)?;
    let mut count = 0;
    // A short list needs no long chunk.
    let limit = selection
        .limit
        .and_then(|limit| usize::try_from(limit).ok());
    let most = limit.unwrap_or(CHUNK).clamp(1, CHUNK);
    let keep = |letter: DeadLetter| (Row::of(&letter), 0);
    in_chunks(reader, &ranges, selection, most, keep, |mut rows| {
        marks.add_to(&mut rows);
        for row in &rows {
            if selection.is_reached(count) {
                return Ok(ControlFlow::Break(()));
            }
            count += 1;
            if each(row)?.is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    })
}

struct Chunk<T> {
    entries: Vec<T>,
    bytes: usize,
    most: usize,
}

impl<T> Chunk<T> {
    fn new(most: usize) -> Self {
        Self {
            entries: Vec::new(),
            bytes: 0,
            most,
        }
    }

    /// Adds an entry. Returns all entries once the chunk is full, and begins a new one.
    fn push(&mut self, entry: T, bytes: usize) -> Option<Vec<T>> {
        self.entries.push(entry);
        self.bytes += bytes;
        if self.entries.len() < self.most && self.bytes < CHUNK_BYTES {
            return None;
        }
        self.bytes = 0;
        Some(std::mem::take(&mut self.entries))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sizes(most: usize, bytes: usize, count: usize) -> Vec<usize> {
        let mut chunk = Chunk::new(most);
        let full = (0..count).filter_map(|n| chunk.push(n, bytes));
        let mut sizes: Vec<usize> = full.map(|full| full.len()).collect();
        sizes.push(chunk.entries.len());
        sizes
    }

    #[test]
    fn a_chunk_is_limited_in_number_and_bytes() {
        assert_eq!(sizes(CHUNK, 0, 2 * CHUNK + 3), [CHUNK, CHUNK, 3]);
        assert_eq!(sizes(CHUNK, 6 << 20, 7), [3, 3, 1]);
        assert_eq!(sizes(CHUNK, 17 << 20, 2), [1, 1, 0]);
        assert_eq!(sizes(2, 0, 5), [2, 2, 1]);
    }
}

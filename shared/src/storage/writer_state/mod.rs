//! What a process remembers between batches.

mod copy_gate;
mod ids;
mod streak;

use copy_gate::CopyGate;
use ids::IdBlocks;
use streak::Streak;

/// The state of a writer. All its connections share it.
#[derive(Default)]
pub(super) struct WriterState {
    /// Ids for new rows.
    pub(super) ids: IdBlocks,
    /// Whether the next batch may be assumed to be new.
    pub(super) streak: Streak,
    /// Whether the next batch tries `COPY`.
    pub(super) copy_gate: CopyGate,
}

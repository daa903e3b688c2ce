//! Postgres: the source of truth.
//!
//! [`Postgres`] hands out no connection. Every call is one method with one deadline, and its error
//! states how to react ([`Class`]).

mod changes;
mod columns;
mod database_url;
mod error;
mod follow;
mod health;
mod inspect;
mod list;
mod migration_lock;
mod nodelay;
mod postgres;
mod read;
mod repairs;
mod replays;
mod rows;
pub mod schema;
mod silence;
mod versions;
mod write;
mod writer_state;

pub use changes::{Change, ChangeSet};
pub use error::{Class, StorageError};
pub use health::record_state;
pub use inspect::{Flaw, Inspected};
pub use list::{Documents, ListFilter, Position, Summary};
pub use postgres::{BATCHES_AT_ONCE, Postgres, Role};
pub use repairs::{CacheKnowledge, CacheWrite, CompleteCache, RepairMark};
pub use replays::{LetterPlace, Replayed};
pub use write::Applied;

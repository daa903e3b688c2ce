//! Times of the Postgres clock.

/// A moment by the Postgres clock, in microseconds since 1970. `storage` reads it, and `cache`
/// keeps it as the watermark of Redis.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DatabaseTime(pub i64);

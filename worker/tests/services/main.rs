//! The worker's parts against a real Postgres and a real Redis.

#![allow(
    clippy::unwrap_used,
    reason = "clippy.toml allows it in tests, but does not reach their helper functions"
)]

mod repair;

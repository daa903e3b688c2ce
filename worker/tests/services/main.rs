//! Tests of the worker's parts with a real Postgres, Redis and Kafka.

#![allow(
    clippy::unwrap_used,
    reason = "clippy.toml allows it in tests, but does not reach their helper functions"
)]

mod breaker;
mod cache_admin;
mod consistency;
mod future;
mod offsets;
mod pipeline;
mod rejections;
mod repair;
mod repair_moves;
mod retention;
mod sessions;
mod topics;
mod went_back;

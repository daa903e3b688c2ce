//! The api as a whole, against a real Postgres and a real Redis.
//!
//! Every test has a database and a Redis of its own and replicas on ports of their own, so that all of them can run at the
//! same time. `make test` starts Postgres and sets `DATABASE_URL`.

#![allow(clippy::unwrap_used, reason = "a test whose ground is missing fails")]

mod access;
mod harness;
mod invalidation;
mod lists;
mod lookups;
mod outages;
mod pages;
mod redis_moves;
mod requests;
mod start;

//! Tests of the whole api against a real Postgres and a real Redis.
//!
//! Each test has its own database, its own Redis and replicas on free ports, so all of them can run
//! at the same time. `make test` starts Postgres and sets `DATABASE_URL`.

#![allow(clippy::unwrap_used, reason = "a test whose ground is missing fails")]

mod access;
mod batch_get;
mod connections;
mod events;
mod export;
mod forgeries;
mod harness;
mod invalidation;
mod lists;
mod lookups;
mod outages;
mod pages;
mod redis_moves;
mod requests;
mod start;
mod views;

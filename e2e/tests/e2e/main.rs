//! The built programs against real services; see the library of this crate for how a test is made.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod breaker;
mod cluster;
mod dashboard;
mod dead_letters;
mod erasure;
mod freshness;
mod http;
mod invalidation;
mod ledger;
mod memory;
mod operate;
mod outages;
mod producer;
mod shutdown;
mod start;
mod traces;

//! The built programs against real services; see the library of this crate for how a test is made.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod cluster;
mod connections;
mod dashboard;
mod dead_letters;
mod fetching;
mod http;
mod ledger;
mod operate;
mod outages;
mod producer;
mod shutdown;
mod start;
mod traces;

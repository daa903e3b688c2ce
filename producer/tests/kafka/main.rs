//! Tests of the binary with a real broker.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod failures;
mod harness;
mod send;

//! Tests of the binary with a real broker.

#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

mod erase;
mod failures;
mod harness;
mod pipes;
mod send;

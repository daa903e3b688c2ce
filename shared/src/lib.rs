//! What the order-service processes share: the order, its storage, its cache, and the harness that every process runs in.
//!
//! `order` is pure and knows nobody; `storage` and `cache` know `order` but not each other; `config`, `telemetry` and
//! `runtime` are the process harness; `kafka` is for whoever has a client of it; `fault` is nothing but names in a release build.

pub mod cache;
pub mod config;
pub mod fault;
#[cfg(feature = "kafka")]
pub mod kafka;
pub mod order;
pub mod runtime;
pub mod storage;
pub mod telemetry;
#[cfg(feature = "testing")]
pub mod testing;

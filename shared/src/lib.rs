//! Shared code of the order-service processes: the order, its storage, its cache and the process
//! harness.
//!
//! - `order` is pure and imports no other module.
//! - `storage` and `cache` import `order`, [`DatabaseTime`], `config` and `telemetry`, but not each
//!   other.
//! - `grants` names those who get rights in the services.
//! - `startup` checks both at the start of a process.
//! - `tls` and `replaced` serve the clients of Postgres, Redis and Kafka: certificates, and files
//!   whose content changes.
//! - `config`, `telemetry` and `runtime` are the process harness.
//! - `kafka` is for processes that have a Kafka client.
//! - `fault` injects faults for tests. In a release build it does nothing.

// `println!` panics if the reader of a pipe is gone; `runtime::output` does not.
#![warn(clippy::print_stdout, clippy::print_stderr)]

pub mod cache;
pub mod config;
mod database_time;
pub mod fault;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
pub mod grants;
#[cfg(feature = "kafka")]
pub mod kafka;
pub mod order;
pub mod replaced;
pub mod runtime;
pub mod startup;
pub mod storage;
pub mod telemetry;
#[cfg(feature = "testing")]
pub mod testing;
pub mod tls;

pub use database_time::DatabaseTime;

//! The worker: stores orders from Kafka in Postgres and writes them through to Redis.
//!
//! | module | responsibility |
//! |---|---|
//! | [`run`] | wires the modules together; starts and stops them in order |
//! | [`prepare`] | what must hold before the worker joins the group |
//! | [`kafka`] | mechanism: the only files that know librdkafka |
//! | [`pipeline`] | policy: what happens to a record, and when it counts as finished |
//! | [`repair`] | repairs Redis from Postgres after a failed or lost write |
//! | [`consistency`] | compares Postgres with Redis, a few random orders at a time |
//! | [`restored`] | detects a Postgres that was restored from a backup |
//! | [`retention`] | detects a dead letter topic that keeps records too long |
//! | [`clock`] | the clock of Postgres, for records from the future |
//! | [`health`] | liveness, readiness |
//! | [`cli`], [`migrate`], [`dead_letters`], [`rewind`], [`cache_admin`], [`verify`] | commands |
//! | [`grants`] | the rights that each role needs |
//! | `moment` | times on the command line |
//! | [`config`], [`metrics`] | configuration, metrics |

// `println!` panics if the reader of a pipe is gone; `runtime::output` does not.
#![warn(clippy::print_stdout, clippy::print_stderr)]

pub mod cache_admin;
pub mod cli;
pub mod clock;
pub mod config;
pub mod consistency;
pub mod dead_letters;
pub mod grants;
pub mod health;
pub mod kafka;
pub mod metrics;
pub mod migrate;
mod moment;
pub mod pipeline;
pub mod prepare;
pub mod repair;
pub mod restored;
pub mod retention;
pub mod rewind;
pub mod run;
pub mod verify;

//! The worker: stores orders from Kafka in Postgres and writes them through to Redis.
//!
//! | module | responsibility |
//! |---|---|
//! | [`kafka`] | mechanism: the only files that know librdkafka |
//! | [`pipeline`] | policy: what happens to a record, and when it counts as finished |
//! | [`repair`] | repairs Redis from Postgres after a failed or lost write |
//! | [`run`] | wires the modules together; starts and stops them in order |
//! | [`restored`] | detects a Postgres that was restored from a backup |
//! | [`cli`], [`dead_letters`], [`rewind`], [`cache_admin`] | commands |
//! | [`config`], [`metrics`] | configuration, metrics |

pub mod cache_admin;
pub mod cli;
pub mod config;
pub mod dead_letters;
pub mod kafka;
pub mod metrics;
pub mod pipeline;
pub mod repair;
pub mod restored;
pub mod rewind;
pub mod run;

//! The worker: consumes orders from Kafka, persists them to Postgres and writes them through to Redis.
//!
//! | module | responsibility |
//! |---|---|
//! | [`kafka`] | mechanism: the only files that know librdkafka |
//! | [`pipeline`] | policy: what becomes of a record, and when it counts as finished |
//! | [`repair`] | keeps Redis equal to Postgres after something went wrong |
//! | [`run`] | wires them together, starts and stops them in order |
//! | [`restored`] | notices a Postgres that was restored from a backup |
//! | [`cli`], [`dead_letters`], [`rewind`], [`cache_admin`], [`config`], [`metrics`] | commands, configuration, metrics |

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

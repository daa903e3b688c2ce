//! Black-box tests of the built binaries against real services; the tests themselves are in `tests/e2e`.
//!
//! A [`Stack`] is one whole system of its own: a database on the shared Postgres (or a Postgres of its own), topics and a
//! group of its own on the shared Kafka, its own Redis, and workers and api replicas as child processes. A [`Ledger`]
//! holds what was sent and acknowledged, hence what must be there in the end; [`Check`] compares the tiers with it, record
//! by record, through nothing but their [`Addresses`].
//!
//! | module | responsibility |
//! |---|---|
//! | `environment` | what the tests need from outside: services, programs, a folder |
//! | `port`, `process`, `wait` | free ports, child processes, waiting for a state |
//! | `postgres`, `redis`, `kafka`, `kafka_server`, `http` | the services as a client or an operator sees them |
//! | `stack` | a system of its own: how it is built, and its processes |
//! | `record`, `feed`, `ledger`, `check` | what is sent, what is to be there, whether it is |
//!
//! Everything here panics where it cannot go on, with what it saw instead: a test has no other use for an error.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod addresses;
mod check;
mod environment;
mod feed;
mod http;
mod kafka;
mod kafka_server;
mod ledger;
mod port;
mod postgres;
mod process;
mod record;
mod redis;
mod stack;
mod wait;

pub use addresses::Addresses;
pub use check::Check;
pub use feed::Feed;
pub use http::{Answer, Http};
pub use kafka::{Broker, Header, Position, RawHeader, Stored, Timestamps};
pub use kafka_server::PrivateKafka;
pub use ledger::{Class, Ledger, Sent, State};
pub use postgres::{Database, PrivatePostgres, Row};
pub use process::{Finished, Process, Signal};
pub use record::{Draft, Record, refused_samples, valid_samples};
pub use redis::{Entry, RedisServer, entries};
pub use stack::{Api, Builder, Stack, Worker};
pub use wait::{DEADLINE, until};

/// Runs a future to its end: the clients that only exist as futures are used one call at a time.
fn block_on<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime needs nothing but file descriptors")
        .block_on(future)
}

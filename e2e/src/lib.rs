//! Black-box tests of the built programs against real services. Those in `tests/black_box` need nothing but the addresses
//! of a running system, those in `tests/e2e` start, configure, kill and freeze the parts of one of their own.
//!
//! A [`System`] runs already, whoever started it, and has other users. A [`Stack`] is one whole system of its own: a database
//! on the shared Postgres (or a Postgres of its own), topics and a group of its own on the shared Kafka, its own Redis, and
//! workers and api replicas as child processes. A [`Ledger`] holds what was sent and acknowledged, hence what must be there
//! in the end; [`Check`] compares the tiers with it, record by record, through nothing but their [`Addresses`].
//!
//! | module | responsibility |
//! |---|---|
//! | `environment` | what the tests need from outside: services, programs, a folder |
//! | `port`, `process`, `wait` | free ports, child processes, waiting for a state |
//! | `postgres`, `redis`, `kafka`, `kafka_server`, `http` | the services as a client or an operator sees them |
//! | `prometheus`, `otlp` | who watches: a Prometheus, a receiver of traces |
//! | `proxy` | a road to a service that can be cut, frozen, slowed down |
//! | `prober`, `offset_watch` | who asks the api, or looks at the committed offsets, all the time |
//! | `demand` | how much CPU time the host of this machine gives to others |
//! | `stack` | a system of its own: how it is built, and its processes |
//! | `addresses`, `system` | a system that runs already |
//! | `promises` | what the system promises, and the trials that try to break it |
//! | `record`, `feed`, `ledger`, `journal`, `check` | what is sent, what is to be there, whether it is |
//! | `readers`, `commits` | what the api answered all the while, and since when there was something newer |
//! | `witness` | whether what is answered meanwhile is new enough |
//!
//! Everything here panics where it cannot go on, with what it saw instead: a test has no other use for an error.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod addresses;
mod check;
mod commits;
mod demand;
mod environment;
mod feed;
mod http;
mod journal;
mod kafka;
mod kafka_server;
mod ledger;
mod offset_watch;
mod otlp;
mod port;
mod postgres;
mod prober;
mod process;
mod prometheus;
pub mod promises;
mod proxy;
mod readers;
mod record;
mod redis;
mod stack;
mod system;
mod wait;
mod witness;

pub use addresses::Addresses;
pub use check::Check;
pub use commits::Commit;
pub use demand::Demand;
pub use feed::Feed;
pub use http::{Answer, Http};
pub use kafka::{
    Broker, CommittedOffsets, GroupProgress, Header, Position, RawHeader, Stored, Tail, Timestamps,
};
pub use kafka_server::PrivateKafka;
pub use ledger::{Class, Ledger, Sent, State};
pub use offset_watch::OffsetWatch;
pub use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
pub use otlp::{OtlpReceiver, Span};
pub use postgres::{Database, PrivatePostgres, Row, Session};
pub use prober::Prober;
pub use process::{Finished, Process, Signal};
pub use prometheus::{Prometheus, Sample};
pub use proxy::Proxy;
pub use readers::{Read, Readers};
pub use record::{Draft, Record, large_order, refused_samples, valid_samples};
pub use redis::{Entry, RedisServer, entries, entries_of};
pub use stack::{Admin, Api, Builder, Stack, Worker};
pub use system::System;
use tokio::runtime::Runtime;
pub use wait::{DEADLINE, until};
pub use witness::{Testimony, Witness};

/// Runs a future to its end: the clients that only exist as futures are used one call at a time.
fn block_on<F: Future>(future: F) -> F::Output {
    runtime().block_on(future)
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime needs nothing but file descriptors")
}

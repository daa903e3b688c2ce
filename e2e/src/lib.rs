//! Black-box tests of the built programs against real services. The tests in `tests/black_box` need
//! only the addresses of a running system. The tests in `tests/e2e` start, configure, kill and
//! freeze the parts of a private system.
//!
//! A [`System`] already runs and may have other users. A [`Stack`] is a complete private system: a
//! database on the shared Postgres (or a private Postgres), a private topic, dead letter topic and
//! group on the shared Kafka, a private Redis, and workers and api replicas as child processes. A
//! [`Ledger`] records what was sent and acknowledged, and therefore the expected final state.
//! [`Check`] compares the tiers with the ledger, record by record. It uses only the [`Addresses`]
//! of the system.
//!
//! | module | responsibility |
//! |---|---|
//! | `environment` | services, programs and a folder for a test |
//! | `port`, `process`, `wait` | free ports, child processes, waiting for a state |
//! | `postgres`, `redis`, `kafka`, `kafka_server`, `http` | clients of the services |
//! | `event_stream` | client of server-sent events |
//! | `oidc_issuer` | an OpenID Connect issuer that a test can stop |
//! | `prometheus`, `otlp` | a Prometheus, a receiver of traces |
//! | `proxy` | a link to a service that a test can cut, freeze or slow down |
//! | `prober`, `offset_watch` | continuous requests to the api, and checks of committed offsets |
//! | `demand` | CPU time that the host gives to other guests (steal) |
//! | `roles` | the least-privileged roles of the programs |
//! | `stack` | a private system: its configuration and its processes |
//! | `addresses`, `system` | a system that already runs |
//! | `promises` | the promises of the system, and the trials that try to break them |
//! | `record`, `feed`, `ledger`, `journal`, `check` | records, outcomes, comparison |
//! | `readers`, `commits` | answers of the api during a trial, commit time of each version |
//! | `witness` | the age of the answers during a trial |
//!
//! Most functions panic when they cannot continue, and name what they found instead. The other
//! functions document their errors.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod addresses;
mod check;
mod commits;
mod demand;
mod environment;
mod event_stream;
mod feed;
mod http;
mod journal;
mod kafka;
mod kafka_server;
mod ledger;
mod offset_watch;
mod oidc_issuer;
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
mod roles;
mod stack;
mod system;
mod wait;
mod witness;

pub use addresses::Addresses;
pub use check::Check;
pub use commits::Commit;
pub use demand::Demand;
pub use environment::program;
pub use event_stream::{Event, EventStream};
pub use feed::Feed;
pub use http::{Answer, Http};
pub use kafka::{
    Broker, CommittedOffsets, GroupProgress, Header, Position, Stored, Tail, Timestamps,
};
pub use kafka_server::PrivateKafka;
pub use ledger::{Ledger, OrderState, Sent};
pub use offset_watch::OffsetWatch;
pub use oidc_issuer::OidcIssuer;
pub use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
pub use otlp::{OtlpReceiver, Span};
pub use postgres::{Database, PrivatePostgres, Row, Session};
pub use prober::Prober;
pub use process::{Finished, Process, Signal};
pub use prometheus::{Prometheus, Sample};
pub use proxy::Proxy;
pub use readers::{Read, Readers};
pub use record::{
    Draft, Expected, RawHeader, Record, large_order, rejected_samples, valid_samples,
};
pub use redis::{Entry, RedisServer, denials, entries, entries_of};
pub use stack::{Admin, Api, Build, Builder, Stack, Worker};
pub use system::System;
use tokio::runtime::Runtime;
pub use wait::{DEADLINE, until};
pub use witness::{Testimony, Witness};

/// Blocks until a future completes. Clients that exist only as futures are called one at a time.
fn block_on<F: Future>(future: F) -> F::Output {
    runtime().block_on(future)
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime needs nothing but file descriptors")
}

//! Configuration from environment variables: one flat struct per prefix, and a default for every
//! field.
//!
//! The structs are flat because envy cannot parse numbers inside `#[serde(flatten)]`. An invalid
//! value stops the start, and the error names the variable. So does a variable with one of our
//! prefixes that no program reads: every program must know the variables of all of them, so all
//! structs are here.

mod api;
mod known;
mod load;
mod process;
mod services;
mod value;
mod variable;
mod worker;

pub use api::{Api, Cache, LocalCache, NegativeCache};
pub use known::{COMPOSE, names};
pub use load::{ConfigError, load, load_from, read_secret, read_text};
pub use process::{Admin, Log, LogFormat, Otel};
pub use services::{Database, Kafka, Redis};
pub(crate) use value::{DURATION, whole_number};
pub use variable::{Variable, variables};
pub use worker::Worker;

/// Variables whose value may also come from a file: `NAME_FILE` holds the path.
const SECRETS: [&str; 7] = [
    "DATABASE_URL",
    "DATABASE_READ_URL",
    "REDIS_URL",
    "KAFKA_SASL_USERNAME",
    "KAFKA_SASL_PASSWORD",
    "KAFKA_SSL_KEY_PASSWORD",
    "CACHE_MAC_KEY",
];

#[cfg(test)]
mod tests;

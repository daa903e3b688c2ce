//! The harness that every process runs in: shutdown, health, the admin port, checks of HTTP requests, back-off, which
//! failures are logged.

pub mod admin;
pub mod backoff;
pub mod health;
pub mod outage;
pub mod request;
pub mod shutdown;

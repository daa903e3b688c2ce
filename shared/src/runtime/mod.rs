//! The process harness: shutdown, health, the admin port, checks of HTTP requests, backoff, and the
//! selection of failures to log.

pub mod admin;
pub mod backoff;
pub mod health;
pub mod outage;
pub mod request;
pub mod shutdown;

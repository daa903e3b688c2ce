//! The harness that every process runs in: shutdown, health, the admin port, checks of HTTP requests, back-off.

pub mod admin;
pub mod backoff;
pub mod health;
pub mod request;
pub mod shutdown;

//! The harness that every process runs in: shutdown, health, the admin port, back-off.

pub mod admin;
pub mod backoff;
pub mod health;
pub mod shutdown;

//! Pages of `docs/` that are generated from the code, or that quote it.
//!
//! Each test compares a page with the code. After a change, renew the generated parts with
//! [`page::RENEW`].

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod architecture;
mod configuration;
mod extending;
mod instruments;
mod metrics;
mod page;
mod source;

//! The built programs against real services. The library of this crate describes how a test is
//! built.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod access;
mod cluster;
mod commands;
mod connections;
mod dashboard;
mod dead_letters;
mod dumps;
mod fetching;
mod forgeries;
mod grants;
mod http;
mod ledger;
mod letters;
mod oidc;
mod operate;
mod orders;
mod outages;
mod producer;
mod runbooks;
mod schema;
mod shutdown;
mod start;
mod tls;
mod traces;
mod verify;

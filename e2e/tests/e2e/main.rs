//! The built programs against real services; see the library of this crate for how a test is made.

mod crash;
mod ledger;
mod replay;
mod shutdown;

//! The built programs against real services; see the library of this crate for how a test is made.

mod ledger;

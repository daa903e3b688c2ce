//! Postgres as seen through `psql`, and a Postgres that a test can stop.

mod database;
mod own;
mod private;
mod rows;
mod session;

pub(crate) use database::COUNT_ORDERS;
pub use database::Database;
pub(crate) use own::OwnDatabase;
pub use private::PrivatePostgres;
pub use rows::Row;
pub use session::Session;

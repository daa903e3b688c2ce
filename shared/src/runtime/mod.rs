//! The process harness: everything that the programs share apart from orders.
//!
//! | module | responsibility |
//! |---|---|
//! | [`process`] | a program from start to exit: tokio runtime, telemetry, signals, exit code |
//! | [`startup`] | checks at the start: schema of Postgres, eviction policy of Redis |
//! | [`admin`], [`health`] | the admin port, its probes, the state of dependencies |
//! | [`shutdown`] | the signal to stop, and the watchdog |
//! | [`backoff`], [`outage`] | delays between retries; which failures are logged |
//! | [`request`] | checks of HTTP requests that hyper leaves to the server |

pub mod admin;
pub mod backoff;
pub mod health;
pub mod outage;
pub mod process;
pub mod request;
pub mod shutdown;
pub mod startup;

//! The process harness: everything that the programs share apart from orders.
//!
//! | module | responsibility |
//! |---|---|
//! | [`process`] | a program from start to exit: tokio runtime, telemetry, signals, exit code |
//! | [`command`] | the command line: help about variables, `completions`, parsers of values |
//! | [`output`] | what a command prints, also into a closed pipe; errors and their exit codes |
//! | [`admin`], [`health`] | the admin port and its probes |
//! | [`shutdown`] | the signal to stop, and the watchdog |
//! | [`hangup`] | the signal to reread files |
//! | [`dumps`] | no core dumps, which would hold secrets |
//! | [`backoff`] | delays between retries |
//! | [`transport`] | a port up to HTTP/1.1: connections, limits, deadlines, drain |
//! | [`request`] | checks of HTTP requests that hyper leaves to the server |
//! | [`descriptors`] | the limit of open files, and the connections that it allows |

pub mod admin;
pub mod backoff;
pub mod command;
pub mod descriptors;
pub mod dumps;
pub mod hangup;
pub mod health;
pub mod output;
pub mod process;
pub mod request;
pub mod shutdown;
pub mod transport;

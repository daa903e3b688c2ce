//! Log lines on standard error: one JSON object a line, or text for people.

use std::io::{self, IsTerminal};

use tracing_subscriber::EnvFilter;

use crate::config::LogFormat;

/// Libraries repeat what our own messages say, and librdkafka reports each broker that is down once a second.
const DEFAULT_FILTER: &str =
    "info,sqlx=warn,librdkafka=warn,rdkafka=warn,opentelemetry=warn,poem=warn";

pub(super) fn init(format: Option<LogFormat>) {
    let filter =
        EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(DEFAULT_FILTER));
    let format = format.unwrap_or(if io::stderr().is_terminal() {
        LogFormat::Pretty
    } else {
        LogFormat::Json
    });
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr);
    // A second call (tests share one process) keeps the first subscriber.
    let _already_set = match format {
        LogFormat::Json => lines
            .json()
            .flatten_event(true)
            .with_current_span(false)
            .try_init(),
        LogFormat::Pretty => lines.with_ansi(io::stderr().is_terminal()).try_init(),
    };
}

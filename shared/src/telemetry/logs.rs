//! Log lines on standard error: one JSON object a line, or text for people.

use std::io::{self, IsTerminal};

use tracing_subscriber::EnvFilter;

use crate::config::{ConfigError, LogFormat};

/// Libraries repeat what our own messages say, and librdkafka reports each broker that is down once a second.
const DEFAULT_FILTER: &str =
    "info,sqlx=warn,librdkafka=warn,rdkafka=warn,opentelemetry=warn,poem=warn";

pub(super) fn init(format: Option<LogFormat>) -> Result<(), ConfigError> {
    let filter = match std::env::var(EnvFilter::DEFAULT_ENV) {
        Ok(directives) if !directives.is_empty() => EnvFilter::try_new(directives)
            .map_err(|error| ConfigError::malformed(EnvFilter::DEFAULT_ENV, error.to_string()))?,
        _ => EnvFilter::new(DEFAULT_FILTER),
    };
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
    Ok(())
}

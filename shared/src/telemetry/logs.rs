//! Log lines on standard error: one JSON object per line, or text for people.

use std::io::{self, IsTerminal};

use tracing_subscriber::{EnvFilter, filter::LevelFilter};

use crate::{
    config::{ConfigError, LogFormat},
    runtime::output,
};

/// Directives that limit libraries to warnings if `RUST_LOG` enables more than warnings of
/// everything. A directive of `RUST_LOG` that names a library overrides this.
///
/// Libraries repeat our own messages, and librdkafka reports each broker that is down once a
/// second.
const LIBRARIES: &str = "sqlx=warn,librdkafka=warn,rdkafka=warn,opentelemetry=warn,poem=warn";

pub(super) fn init(format: Option<LogFormat>) -> Result<(), ConfigError> {
    let filter = filter(&std::env::var(EnvFilter::DEFAULT_ENV).unwrap_or_default())?;
    let format = format.unwrap_or(if io::stderr().is_terminal() {
        LogFormat::Pretty
    } else {
        LogFormat::Json
    });
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        // If the reader of the logs is gone, the default would panic.
        .log_internal_errors(false)
        .with_writer(io::stderr);
    // Tests share one process: a second call keeps the first subscriber.
    let _already_set = match format {
        LogFormat::Json => lines
            .json()
            .flatten_event(true)
            .with_current_span(false)
            .try_init(),
        LogFormat::Pretty => lines
            .with_ansi(output::is_coloured(&io::stderr()))
            .try_init(),
    };
    Ok(())
}

fn filter(directives: &str) -> Result<EnvFilter, ConfigError> {
    let directives = match directives {
        "" => "info",
        directives => directives,
    };
    let is_verbose = |directive: &str| {
        let level: Result<LevelFilter, _> = directive.parse();
        level.is_ok_and(|level| level > LevelFilter::WARN)
    };
    // If two directives have the same target, the last one wins.
    let filter = match directives.split(',').any(is_verbose) {
        true => EnvFilter::try_new(format!("{LIBRARIES},{directives}")),
        false => EnvFilter::try_new(directives),
    };
    filter.map_err(|_| {
        let expected = "a log filter; write info or info,sqlx=debug";
        ConfigError::not(EnvFilter::DEFAULT_ENV, directives, expected)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_log_only_warnings_unless_named() {
        let applied = |directives: &str| filter(directives).unwrap().to_string();
        assert_eq!(applied(""), applied("info"));
        for (directives, sqlx) in [
            ("info", &["sqlx=warn"][..]),
            ("worker=info,debug", &["sqlx=warn"]),
            ("debug,sqlx=debug", &["sqlx=debug"]),
            ("error", &[]),
            ("worker=debug", &[]),
        ] {
            let applied = applied(directives);
            let of_sqlx: Vec<&str> = applied
                .split(',')
                .filter(|directive| directive.starts_with("sqlx"))
                .collect();
            assert_eq!(of_sqlx, sqlx, "{directives}");
        }
        let error = filter("info,worker=loud").unwrap_err().to_string();
        assert_eq!(
            error,
            r#"RUST_LOG: "info,worker=loud" is not a log filter; write info or info,sqlx=debug"#
        );
    }
}

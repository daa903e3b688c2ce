//! Log lines on standard error: one JSON object per line, or text for people.

use std::io::{self, IsTerminal};

use anstream::{AutoStream, ColorChoice};
use tracing_subscriber::{EnvFilter, filter::LevelFilter};

use crate::config::{ConfigError, LogFormat};

/// Directives that limit libraries to warnings if `RUST_LOG` enables more than warnings of
/// everything. A directive of `RUST_LOG` that names a library overrides this.
///
/// Libraries repeat our own messages, and librdkafka reports each broker that is down once a
/// second.
const LIBRARIES: &str = "sqlx=warn,librdkafka=warn,rdkafka=warn,opentelemetry=warn,poem=warn";

/// Modules that may stand alone in `RUST_LOG`: our crates, and the targets of our own lines.
const OUR_MODULES: [&str; 6] = [
    "worker",
    "api",
    "producer",
    "shared",
    "access",
    "librdkafka",
];

/// Whether text on standard error may have colours: on a terminal, unless `NO_COLOR` is set.
/// `CLICOLOR_FORCE` enables colours elsewhere.
fn is_coloured() -> bool {
    AutoStream::choice(&io::stderr()) != ColorChoice::Never
}

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
        LogFormat::Pretty => lines.with_ansi(is_coloured()).try_init(),
    };
    Ok(())
}

fn filter(directives: &str) -> Result<EnvFilter, ConfigError> {
    let directives = match directives.trim() {
        "" => "info",
        directives => directives,
    };
    // `EnvFilter` reads a directive with a space before it as the name of a module.
    let parts: Vec<&str> = directives.split(',').map(str::trim).collect();
    if !directives.contains('[') {
        check(&parts)?;
    }
    let is_verbose = |directive: &&str| level(directive).is_some_and(|it| it > LevelFilter::WARN);
    let mut applied = parts.join(",");
    // If two directives have the same target, the last one wins.
    if parts.iter().any(is_verbose) {
        applied = format!("{LIBRARIES},{applied}");
    }
    EnvFilter::try_new(applied).map_err(|_| {
        let expected = "a log filter; write info or info,sqlx=debug";
        ConfigError::not(EnvFilter::DEFAULT_ENV, directives, expected)
    })
}

/// Checks directives without spans and fields. `EnvFilter` reads every word that is not a level as
/// the name of a module and logs only that module, so that `infoo` silences everything.
///
/// # Errors
/// If a directive has no valid level where one is expected.
fn check(directives: &[&str]) -> Result<(), ConfigError> {
    let no_level = |text: &str, example: &str| {
        let expected = format!("a log level; write {}{example}", nearest_level(text));
        ConfigError::not(EnvFilter::DEFAULT_ENV, text, &expected)
    };
    let has_level = directives.iter().any(|text| level(text).is_some());
    for directive in directives {
        match directive.split_once('=') {
            Some((_, after)) if level(after).is_none() => return Err(no_level(after, "")),
            Some(_) => {}
            None if level(directive).is_some() || OUR_MODULES.contains(directive) => {}
            None if directive.contains("::") => {}
            None if has_level && typing_errors(directive, nearest_level(directive)) > 2 => {}
            None => {
                let example = format!(", or {directive}=trace for a module of that name");
                return Err(no_level(directive, &example));
            }
        }
    }
    Ok(())
}

/// Returns the level that `text` names.
fn level(text: &str) -> Option<LevelFilter> {
    text.parse().ok()
}

fn nearest_level(text: &str) -> &'static str {
    const LEVELS: [&str; 5] = ["error", "warn", "info", "debug", "trace"];
    let nearest = LEVELS
        .into_iter()
        .min_by_key(|level| typing_errors(text, level));
    nearest.unwrap_or("info")
}

fn typing_errors(text: &str, level: &str) -> usize {
    strsim::damerau_levenshtein(&text.to_lowercase(), level)
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
    }

    #[test]
    fn a_word_that_is_no_level_is_an_error_that_names_the_nearest_one() {
        let module = |word: &str| format!(", or {word}=trace for a module of that name");
        for (directives, word, level, example) in [
            ("infoo", "infoo", "info", module("infoo")),
            ("INFOO", "INFOO", "info", module("INFOO")),
            ("wran", "wran", "warn", module("wran")),
            ("warning", "warning", "warn", module("warning")),
            ("info,debugg", "debugg", "debug", module("debugg")),
            ("hyper", "hyper", "error", module("hyper")),
            ("info,worker=loud", "loud", "warn", String::new()),
        ] {
            let error = filter(directives).unwrap_err().to_string();
            let expected = format!("RUST_LOG: {word:?} is not a log level; write {level}{example}");
            assert_eq!(error, expected, "{directives}");
        }
        let error = filter("info,[span").unwrap_err().to_string();
        assert_eq!(
            error,
            r#"RUST_LOG: "info,[span" is not a log filter; write info or info,sqlx=debug"#
        );
    }

    #[test]
    fn modules_and_spaces_are_accepted() {
        for directives in [
            "worker",
            "worker::kafka",
            "off",
            "WARN",
            "3",
            "info,hyper",
            "no_such_module=debug",
            "info,[span{field=x}]=debug",
        ] {
            assert!(filter(directives).is_ok(), "{directives}");
        }
        let applied = |directives: &str| filter(directives).unwrap().to_string();
        assert_eq!(
            applied(" info , worker=debug "),
            applied("info,worker=debug")
        );
    }
}

//! Limits how often a recurring librdkafka error is logged. Most errors recur several times a
//! second.

use std::{
    collections::HashMap,
    sync::LazyLock,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use rdkafka::{config::RDKafkaLogLevel, error::RDKafkaErrorCode};

/// Minimum time between two log lines for the same error.
const EVERY: Duration = Duration::from_secs(60);

/// Shared by all clients of the process, because they connect to the same brokers.
static ERROR_LOG: LazyLock<Mutex<ErrorLog>> = LazyLock::new(Mutex::default);

/// When each error was last logged.
#[derive(Debug, Default)]
struct ErrorLog {
    errors: HashMap<String, Entry>,
}

#[derive(Debug)]
struct Entry {
    logged: Instant,
    /// Occurrences since `logged`.
    unlogged: u64,
}

impl ErrorLog {
    /// Counts one occurrence. Returns the number of occurrences to log now, or none if `code` was
    /// logged less than [`EVERY`] ago.
    fn notice(&mut self, code: &str, now: Instant) -> Option<u64> {
        let Some(entry) = self.errors.get_mut(code) else {
            let entry = Entry {
                logged: now,
                unlogged: 0,
            };
            self.errors.insert(code.to_owned(), entry);
            return Some(1);
        };
        entry.unlogged += 1;
        if now.duration_since(entry.logged) < EVERY {
            return None;
        }
        entry.logged = now;
        Some(std::mem::take(&mut entry.unlogged))
    }
}

/// Counts one occurrence of `code`. Returns the number of occurrences to log now, or none if `code`
/// was logged less than a minute ago.
pub(super) fn due(code: RDKafkaErrorCode) -> Option<u64> {
    notice(&name(code))
}

fn notice(what: &str) -> Option<u64> {
    ERROR_LOG.lock().notice(what, Instant::now())
}

/// Counts one failed TLS handshake. Returns the number of failures to log now, or none if one was
/// logged less than a minute ago.
pub(super) fn handshake_due() -> Option<u64> {
    notice(HANDSHAKE)
}

/// librdkafka's name for a failed connection. Each client reports each of its connections to each
/// broker.
const CONNECTION: &str = "FAIL";
/// librdkafka's name for a step of a failed TLS handshake.
const HANDSHAKE: &str = "SSL";
/// What its lines about the failed connection say then.
const HANDSHAKE_TEXTS: [&str; 2] = ["SSL handshake failed", "in state SSL_HANDSHAKE"];
/// librdkafka's name for a property that has no effect, such as one of `KAFKA_OPTIONS` that is for
/// consumers, in a producer.
const PROPERTY: &str = "CONFWARN";
/// librdkafka's name for a producer that waits for its id, for example from a broker that just
/// started.
const PRODUCER_ID: &str = "GETPID";

/// Returns whether a line is about a handshake that [`handshakes`](super::handshakes) explains. A
/// broker that closes the connection or does not answer is another error of librdkafka, so it is
/// not explained.
fn is_explained(line: &str) -> bool {
    HANDSHAKE_TEXTS.iter().any(|text| line.contains(text))
        && !["Disconnected", "timed out"]
            .iter()
            .any(|text| line.contains(text))
}

/// Logs a line of librdkafka itself. A failed connection is logged at most once a minute, to
/// explain the state of Kafka. Lines about a missing producer id or a property without effect are
/// logged at level DEBUG. So are those about a failed TLS handshake, which
/// [`handshakes`](super::handshakes) explains.
pub(super) fn log(level: RDKafkaLogLevel, facility: &str, line: &str) {
    use RDKafkaLogLevel::{Alert, Critical, Debug, Emerg, Error, Info, Notice, Warning};
    let occurrences = match facility {
        HANDSHAKE | PRODUCER_ID | PROPERTY => None,
        CONNECTION if is_explained(line) => None,
        CONNECTION => notice(facility),
        _ => Some(1),
    };
    match (level, occurrences) {
        (Emerg | Alert | Critical | Error, Some(occurrences)) => {
            tracing::error!(target: "librdkafka", facility, occurrences, "librdkafka: {line}");
        }
        (Warning, Some(occurrences)) => {
            tracing::warn!(target: "librdkafka", facility, occurrences, "librdkafka: {line}");
        }
        (Notice | Info, _) => tracing::info!(target: "librdkafka", facility, "librdkafka: {line}"),
        (Debug, _) | (_, None) => {
            tracing::debug!(target: "librdkafka", facility, "librdkafka: {line}");
        }
    }
}

/// Returns the name of `code` in logs, metrics and probes, such as `BadCompression`.
pub(super) fn name(code: RDKafkaErrorCode) -> String {
    format!("{code:?}")
}

/// Whether the error belongs to an outage of the brokers, which the state of Kafka reports once.
pub(super) fn is_outage(code: RDKafkaErrorCode) -> bool {
    matches!(
        code,
        RDKafkaErrorCode::AllBrokersDown
            | RDKafkaErrorCode::BrokerTransportFailure
            | RDKafkaErrorCode::Resolve
    )
}

/// Whether the error ends without action once partition leaders are elected, for example after the
/// topic was created.
pub(super) fn is_election(code: RDKafkaErrorCode) -> bool {
    matches!(
        code,
        RDKafkaErrorCode::LeaderNotAvailable
            | RDKafkaErrorCode::NotLeaderForPartition
            | RDKafkaErrorCode::UnknownTopicOrPartition
            | RDKafkaErrorCode::UnknownPartition
            | RDKafkaErrorCode::UnknownTopic
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lasting_error_is_logged_at_once_and_then_once_a_minute() {
        let mut log = ErrorLog::default();
        let start = Instant::now();
        let lines: Vec<(u64, u64)> = (0..360)
            .filter_map(|half_second: u64| {
                let now = start + Duration::from_millis(500 * half_second);
                Some((half_second / 2, log.notice("BadCompression", now)?))
            })
            .collect();
        assert_eq!(lines, [(0, 1), (60, 120), (120, 120)]);
    }

    #[test]
    fn a_different_error_is_logged_at_once() {
        let mut log = ErrorLog::default();
        let now = Instant::now();
        assert_eq!(log.notice("BadCompression", now), Some(1));
        assert_eq!(log.notice("InvalidMessage", now), Some(1));
        assert_eq!(log.notice("BadCompression", now), None);
    }

    /// Texts of librdkafka.
    #[test]
    fn only_a_handshake_that_fails_is_explained_elsewhere() {
        for (line, explained) in [
            (
                "ssl://kafka:9093/bootstrap: SSL handshake failed: error:0A000086:SSL \
                 routines::certificate verify failed (after 3ms in state SSL_HANDSHAKE)",
                true,
            ),
            (
                "ssl://kafka:9093/bootstrap: error:0A000086:SSL routines::certificate verify \
                 failed (after 3ms in state SSL_HANDSHAKE)",
                true,
            ),
            (
                "ssl://kafka:9093/bootstrap: SSL handshake failed: Disconnected: connecting to a \
                 PLAINTEXT broker listener? (after 3ms in state SSL_HANDSHAKE)",
                false,
            ),
            (
                "ssl://kafka:9093/bootstrap: Connection setup timed out in state SSL_HANDSHAKE \
                 (after 30s in state SSL_HANDSHAKE)",
                false,
            ),
            (
                "kafka:9092/bootstrap: Connect to ipv4#10.0.0.1:9092 failed",
                false,
            ),
        ] {
            assert_eq!(is_explained(line), explained, "{line}");
        }
    }
}

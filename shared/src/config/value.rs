//! How each kind of value is read. The errors complete the sentence `"VALUE" is not …`.

use std::{ops::RangeInclusive, time::Duration};

use bytesize::ByteSize;
use serde::{Deserialize, Deserializer, de::Error};

use super::LogFormat;

/// What a duration must be.
pub(crate) const DURATION: &str = "a duration; write 5s or 250ms";

fn read<'de, D: Deserializer<'de>, T>(
    deserializer: D,
    parse: impl FnOnce(&str) -> Option<T>,
    expected: &str,
) -> Result<T, D::Error> {
    let text = String::deserialize(deserializer)?;
    parse(&text).ok_or_else(|| D::Error::custom(expected))
}

/// Longest duration. The clock arithmetic of a longer one would overflow.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 3600);
/// Shortest deadline. Timers, and settings of Postgres and Redis, count milliseconds.
const SHORTEST: Duration = Duration::from_millis(1);

fn duration_between<'de, D: Deserializer<'de>>(
    range: RangeInclusive<Duration>,
    expected: &str,
    deserializer: D,
) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    let Ok(duration) = humantime::parse_duration(&text) else {
        return Err(D::Error::custom(DURATION));
    };
    match range.contains(&duration) {
        true => Ok(duration),
        false => Err(D::Error::custom(expected)),
    }
}

/// Reads a duration such as `5s`, of at most a year.
///
/// # Errors
/// If the text is not a duration, or is too long.
pub(super) fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let range = Duration::ZERO..=LONGEST;
    duration_between(range, "a duration of at most 365d; write 5s", deserializer)
}

/// Reads a deadline or a lifetime such as `5s`, from 1 ms to a year.
///
/// # Errors
/// If the text is not a duration, or is out of range.
pub(super) fn positive_duration<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Duration, D::Error> {
    let expected = "a duration from 1ms to 365d; write 5s or 250ms";
    duration_between(SHORTEST..=LONGEST, expected, deserializer)
}

/// Reads a deadline such as `5s` into an optional field.
///
/// # Errors
/// If the text is not a duration, or is out of range.
pub(super) fn optional_duration<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Duration>, D::Error> {
    positive_duration(deserializer).map(Some)
}

/// Reads a session timeout, within the default limits of a broker:
/// `group.min.session.timeout.ms` and `group.max.session.timeout.ms`.
///
/// # Errors
/// If the text is not a duration, or is out of range.
pub(super) fn session_timeout<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Duration, D::Error> {
    let range = Duration::from_secs(6)..=Duration::from_secs(30 * 60);
    let expected = "a session timeout that brokers accept, from 6s to 30m; write 15s";
    duration_between(range, expected, deserializer)
}

/// Reads how long a topic keeps records. Kafka deletes whole segments, and looks for old ones every
/// five minutes.
///
/// # Errors
/// If the text is not a duration, or is out of range.
pub(super) fn retention<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let range = Duration::from_secs(3600)..=LONGEST;
    let expected = "a retention from 1h to 365d; write 14d";
    duration_between(range, expected, deserializer)
}

/// Reads the time limit for a shutdown. A shorter one would end the process before it has left the
/// group.
///
/// # Errors
/// If the text is not a duration, or is out of range.
pub(super) fn shutdown_timeout<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Duration, D::Error> {
    let range = Duration::from_secs(1)..=LONGEST;
    let expected = "a time for a shutdown, from 1s to 365d; write 25s";
    duration_between(range, expected, deserializer)
}

/// Reads a size such as `8MiB`, or a plain number of bytes.
///
/// # Errors
/// If the text is not a size.
pub(super) fn byte_size<'de, D: Deserializer<'de>>(deserializer: D) -> Result<usize, D::Error> {
    let parse = |text: &str| usize::try_from(text.parse::<ByteSize>().ok()?.as_u64()).ok();
    read(
        deserializer,
        parse,
        "a size; write 8MiB or a number of bytes",
    )
}

/// Reads the size of a batch, such as `8MiB`. Postgres accepts no parameter above 1 GiB.
///
/// # Errors
/// If the text is not a size, or is out of range.
pub(super) fn batch_max_byte_size<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<usize, D::Error> {
    let parse = |text: &str| {
        let size = usize::try_from(text.parse::<ByteSize>().ok()?.as_u64()).ok()?;
        (1..=1 << 30).contains(&size).then_some(size)
    };
    let expected = "a size from 1 byte to 1GiB; write 8MiB";
    read(deserializer, parse, expected)
}

/// Reads a whole number.
///
/// # Errors
/// If the text is not a number that fits the field.
pub(super) fn number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    number_between(0, u32::MAX, deserializer)
}

/// Reads a whole number that is not zero.
///
/// # Errors
/// If the text is zero or not a number that fits the field.
pub(super) fn positive_number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    number_between(1, u32::MAX, deserializer)
}

/// Reads the number of records of a batch. Postgres does not store more within the deadline of a
/// call.
///
/// # Errors
/// If the text is not a number, or is out of range.
pub(super) fn batch_size<'de, D: Deserializer<'de>>(deserializer: D) -> Result<usize, D::Error> {
    number_between(1, 100_000, deserializer).map(|number| number as usize)
}

fn number_between<'de, D: Deserializer<'de>>(
    least: u32,
    most: u32,
    deserializer: D,
) -> Result<u32, D::Error> {
    let in_range = |number: &u32| (least..=most).contains(number);
    let parse = |text: &str| text.parse().ok().filter(in_range);
    read(deserializer, parse, &number_in(least.into(), most.into()))
}

/// What a number of the unsigned type `T` must be.
pub(crate) fn whole_number<T>(least: u64) -> String {
    number_in(least, u64::MAX >> (64 - 8 * size_of::<T>().min(8)))
}

fn number_in(least: u64, most: u64) -> String {
    format!("a whole number from {least} to {most}; write digits only")
}

/// Reads `true` or `false`.
///
/// # Errors
/// If the text is neither.
pub(super) fn flag<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    let parse = |text: &str| text.parse().ok();
    read(deserializer, parse, "a flag; write true or false")
}

/// Reads a flag into an optional field.
///
/// # Errors
/// If the text is neither `true` nor `false`.
pub(super) fn optional_flag<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<bool>, D::Error> {
    flag(deserializer).map(Some)
}

/// Reads the format of the log lines.
///
/// # Errors
/// If the text is not a format.
pub(super) fn log_format<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<LogFormat>, D::Error> {
    let parse = |text: &str| match text {
        "json" => Some(Some(LogFormat::Json)),
        "pretty" => Some(Some(LogFormat::Pretty)),
        _ => None,
    };
    read(deserializer, parse, "a log format; write json or pretty")
}

/// Reads the brokers, separated by commas. librdkafka silently skips what follows an entry that it
/// cannot read, and reads an invalid port as another one.
///
/// # Errors
/// If an entry is not an address, or there is none.
pub(super) fn brokers<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let parse = |text: &str| {
        let mut entries = text.split(',').map(str::trim);
        entries.all(is_broker).then(|| text.to_owned())
    };
    let expected = "a list of brokers; write host:9092 or host1:9092,host2:9092";
    read(deserializer, parse, expected)
}

/// Returns whether the text is `HOST`, `HOST:PORT` or `PROTOCOL://HOST:PORT`.
fn is_broker(text: &str) -> bool {
    let address = match text.split_once("://") {
        Some((protocol, address)) if is_security_protocol(protocol) => address,
        Some(_) => return false,
        None => text,
    };
    let (host, port) = match address.rsplit_once(':') {
        // The last colon belongs to an IPv6 address without a port.
        Some((_, end)) if end.ends_with(']') => (address, None),
        Some((host, port)) => (host, Some(port)),
        None => (address, None),
    };
    let is_host = !host.is_empty() && !host.contains(|c: char| c.is_whitespace() || c == '/');
    let is_port = |port: &str| port.parse::<u16>().is_ok_and(|port| port > 0);
    is_host && port.is_none_or(is_port)
}

/// Reads the name of a topic.
///
/// # Errors
/// If Kafka allows no topic of this name.
pub(super) fn topic<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    let parse = |text: &str| {
        let is_name = (1..=249).contains(&text.len()) && ![".", ".."].contains(&text);
        (is_name && text.chars().all(is_allowed)).then(|| text.to_owned())
    };
    let expected = "the name of a topic; write up to 249 letters, digits, dots, dashes or \
                    underscores";
    read(deserializer, parse, expected)
}

/// Reads the name of a consumer group.
///
/// # Errors
/// If the text is blank, or longer than Kafka's protocol allows.
pub(super) fn group_id<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let parse = |text: &str| {
        let is_name = !text.trim().is_empty() && text.len() <= i16::MAX as usize;
        is_name.then(|| text.to_owned())
    };
    read(
        deserializer,
        parse,
        "the name of a group; write order-worker",
    )
}

const SECURITY_PROTOCOLS: [&str; 4] = ["plaintext", "ssl", "sasl_plaintext", "sasl_ssl"];

fn is_security_protocol(text: &str) -> bool {
    let mut known = SECURITY_PROTOCOLS.iter();
    known.any(|known| text.eq_ignore_ascii_case(known))
}

/// Reads the security protocol.
///
/// # Errors
/// If librdkafka has no such protocol.
pub(super) fn security_protocol<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<String>, D::Error> {
    let parse = |text: &str| is_security_protocol(text).then(|| Some(text.to_owned()));
    let expected = "a security protocol; write plaintext, ssl, sasl_plaintext or sasl_ssl";
    read(deserializer, parse, expected)
}

/// Reads the SASL mechanism. Our librdkafka is built without Kerberos, and OAUTHBEARER needs a
/// source of tokens.
///
/// # Errors
/// If the programs do not support the mechanism.
pub(super) fn sasl_mechanism<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<String>, D::Error> {
    let known = ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"];
    let parse = |text: &str| known.contains(&text).then(|| Some(text.to_owned()));
    let expected = "a supported mechanism; write PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512";
    read(deserializer, parse, expected)
}

/// Reads properties of librdkafka. A part without `=` continues the value before it, as in
/// `debug=broker,topic`.
///
/// # Errors
/// If the first part holds no `=`, or a name is empty.
pub(super) fn librdkafka_options<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Vec<(String, String)>, D::Error> {
    let parse = |text: &str| {
        let mut options: Vec<(String, String)> = Vec::new();
        for part in text.split(',') {
            match part.split_once('=') {
                Some((name, _)) if name.trim().is_empty() => return None,
                Some((name, value)) => {
                    options.push((name.trim().to_owned(), value.trim().to_owned()));
                }
                None => {
                    let (_, value) = options.last_mut()?;
                    value.push(',');
                    value.push_str(part.trim());
                }
            }
        }
        Some(options)
    };
    let expected = "a list of librdkafka's properties; write name=value,name=value";
    read(deserializer, parse, expected)
}

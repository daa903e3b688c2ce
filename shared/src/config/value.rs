//! How each kind of value is read. The errors complete the sentence `"VALUE" is not …`.

use std::time::Duration;

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

/// Reads a duration such as `5s`.
///
/// # Errors
/// If the text is not a duration.
pub fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let parse = |text: &str| humantime::parse_duration(text).ok();
    read(deserializer, parse, DURATION)
}

/// Reads a duration such as `5s` into an optional field.
///
/// # Errors
/// If the text is not a duration.
pub fn optional_duration<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Duration>, D::Error> {
    duration(deserializer).map(Some)
}

/// Reads a size such as `8MiB`, or a plain number of bytes.
///
/// # Errors
/// If the text is not a size.
pub fn byte_size<'de, D: Deserializer<'de>>(deserializer: D) -> Result<usize, D::Error> {
    let parse = |text: &str| usize::try_from(text.parse::<ByteSize>().ok()?.as_u64()).ok();
    read(
        deserializer,
        parse,
        "a size; write 8MiB or a number of bytes",
    )
}

/// Reads a size such as `8MiB`, or a plain number of bytes, that is not zero.
///
/// # Errors
/// If the text is not a size, or the size is zero.
pub fn positive_byte_size<'de, D: Deserializer<'de>>(deserializer: D) -> Result<usize, D::Error> {
    let parse = |text: &str| {
        let size = text.parse::<ByteSize>().ok()?.as_u64();
        usize::try_from(size).ok().filter(|size| *size > 0)
    };
    read(deserializer, parse, "a size of 1 byte or more; write 8MiB")
}

/// Reads a whole number.
///
/// # Errors
/// If the text is not a number that fits the field.
pub fn number<'de, D: Deserializer<'de>, T: TryFrom<u64>>(deserializer: D) -> Result<T, D::Error> {
    number_from(0, deserializer)
}

/// Reads a whole number that is not zero.
///
/// # Errors
/// If the text is zero or not a number that fits the field.
pub fn positive_number<'de, D: Deserializer<'de>, T: TryFrom<u64>>(
    deserializer: D,
) -> Result<T, D::Error> {
    number_from(1, deserializer)
}

fn number_from<'de, D: Deserializer<'de>, T: TryFrom<u64>>(
    least: u64,
    deserializer: D,
) -> Result<T, D::Error> {
    let parse = |text: &str| {
        let number = text.parse().ok().filter(|number| *number >= least)?;
        T::try_from(number).ok()
    };
    read(deserializer, parse, &whole_number::<T>(least))
}

/// What a number of the unsigned type `T` must be.
pub(crate) fn whole_number<T>(least: u64) -> String {
    let most = u64::MAX >> (64 - 8 * size_of::<T>().min(8));
    format!("a whole number from {least} to {most}; write digits only")
}

/// Reads `true` or `false`.
///
/// # Errors
/// If the text is neither.
pub fn flag<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    let parse = |text: &str| text.parse().ok();
    read(deserializer, parse, "a flag; write true or false")
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

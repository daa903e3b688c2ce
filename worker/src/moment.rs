//! Points in time on the command line and in its output.

use std::time::SystemTime;

use chrono::{DateTime, SecondsFormat, Utc};

/// Parses an RFC 3339 time, or a duration before now such as `2h`. The time must be in the past.
pub(crate) fn parse_past(text: &str) -> Result<DateTime<Utc>, String> {
    let now = DateTime::<Utc>::from(SystemTime::now());
    let time = match DateTime::parse_from_rfc3339(text) {
        Ok(time) => time.to_utc(),
        Err(_) => humantime::parse_duration(text)
            .ok()
            .and_then(|ago| now.checked_sub_signed(chrono::Duration::from_std(ago).ok()?))
            .ok_or(
                "not a time; write one such as 2026-01-31T12:00:00Z, or a duration such as 2h",
            )?,
    };
    if time > now {
        return Err("in the future; write a time in the past".to_owned());
    }
    Ok(time)
}

/// Returns `time` as RFC 3339 with milliseconds.
pub(crate) fn text(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Millis, true)
}

/// Returns `millis` since 1970 as RFC 3339; 1970 if it is out of range.
pub(crate) fn of_millis(millis: i64) -> String {
    text(DateTime::from_timestamp_millis(millis).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_rfc_3339_or_a_duration_before_now() {
        let moment = parse_past("2026-01-31T13:00:00+01:00").unwrap();
        assert_eq!(text(moment), "2026-01-31T12:00:00.000Z");
        let ago = parse_past("90m").unwrap();
        let minutes = (DateTime::<Utc>::from(SystemTime::now()) - ago).num_minutes();
        assert!((90..95).contains(&minutes), "{minutes}");
        for wrong in [
            "",
            "yesterday",
            "2026-01-31",
            "9999-01-01T00:00:00Z",
            "600000y",
        ] {
            assert!(parse_past(wrong).is_err(), "{wrong}");
        }
    }
}

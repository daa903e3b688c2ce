//! `date_created`: which texts are accepted, and how they are normalised.

use super::*;

#[track_caller]
fn normalised(text: &str) -> String {
    let decoded = read(&model_with("/date_created", text))
        .unwrap_or_else(|rejection| panic!("{text}: {rejection}"));
    let json: Value = serde_json::from_slice(&decoded.order.to_json()).unwrap();
    json["date_created"].as_str().unwrap().to_owned()
}

#[test]
fn times_have_as_many_decimals_as_needed() {
    for (text, expected) in [
        ("2021-11-26T06:22:19Z", "2021-11-26T06:22:19Z"),
        ("2021-11-26T06:22:19.000000Z", "2021-11-26T06:22:19Z"),
        ("2021-11-26T06:22:19.5Z", "2021-11-26T06:22:19.500Z"),
        ("2021-11-26T06:22:19.120Z", "2021-11-26T06:22:19.120Z"),
        ("2021-11-26T06:22:19.1201Z", "2021-11-26T06:22:19.120100Z"),
        ("2021-11-26T06:22:19.000001Z", "2021-11-26T06:22:19.000001Z"),
    ] {
        assert_eq!(normalised(text), expected);
    }
}

#[test]
fn nanoseconds_are_truncated() {
    for (text, expected) in [
        (
            "2025-09-01T12:34:56.123456789+03:00",
            "2025-09-01T09:34:56.123456Z",
        ),
        (
            "2025-09-01T12:34:56.9999999Z",
            "2025-09-01T12:34:56.999999Z",
        ),
        ("2025-09-01T12:34:56.000000999Z", "2025-09-01T12:34:56Z"),
        (
            "2025-09-01T12:34:56.1234567890123456789Z",
            "2025-09-01T12:34:56.123456Z",
        ),
        // Also before 1970, where truncating a negative number would round up.
        (
            "1969-12-31T23:59:59.1234567Z",
            "1969-12-31T23:59:59.123456Z",
        ),
    ] {
        assert_eq!(normalised(text), expected);
    }
}

#[test]
fn offsets_are_converted_to_utc() {
    for (text, expected) in [
        ("2025-09-01T00:30:00+01:00", "2025-08-31T23:30:00Z"),
        ("2025-12-31T23:30:00-00:45", "2026-01-01T00:15:00Z"),
        ("2025-09-01T00:00:00-00:00", "2025-09-01T00:00:00Z"),
        ("2025-09-01T00:00:00+23:59", "2025-08-31T00:01:00Z"),
        ("2025-09-01t00:00:00z", "2025-09-01T00:00:00Z"),
        ("2024-02-29T12:00:00Z", "2024-02-29T12:00:00Z"),
    ] {
        assert_eq!(normalised(text), expected);
    }
}

#[test]
fn leap_second_rolls_into_the_next_second() {
    assert_eq!(normalised("2016-12-31T23:59:60Z"), "2017-01-01T00:00:00Z");
    assert_eq!(
        normalised("2016-12-31T23:59:60.25Z"),
        "2017-01-01T00:00:00.250Z"
    );
    assert_eq!(
        normalised("2017-01-01T02:59:60+03:00"),
        "2017-01-01T00:00:00Z"
    );
}

#[test]
fn years_outside_the_range_are_rejected() {
    assert_eq!(normalised("0001-01-01T00:00:00Z"), "0001-01-01T00:00:00Z");
    assert_eq!(
        normalised("0000-12-31T23:30:00-01:00"),
        "0001-01-01T00:30:00Z"
    );
    assert_eq!(
        normalised("9999-12-31T23:59:59.999999999Z"),
        "9999-12-31T23:59:59.999999Z"
    );
    for beyond in [
        "0000-12-31T23:59:59Z",
        "0001-01-01T00:00:00+00:01",
        "9999-12-31T23:59:60Z",
        "9999-12-31T23:59:59-00:01",
    ] {
        assert_invalid(
            &model_with("/date_created", beyond),
            "date_created: rfc3339",
        );
    }
}

#[test]
fn malformed_times_are_rejected() {
    for text in [
        "",
        "yesterday",
        "2021-11-26",
        "2021-11-26T06:22:19",
        "2021-11-26 06:22:19Z",
        "2021-11-26T06:22Z",
        "2021-11-26T06:22:19.Z",
        "2021-11-26T06:22:19,5Z",
        "2021-11-26T06:22:19+0300",
        "2021-11-26T06:22:19+03",
        "2021-11-26T06:22:19\u{2212}03:00",
        "2021-11-26T06:22:19+24:00",
        "2021-11-26T06:22:19+03:60",
        "2021-11-26T24:00:00Z",
        "2021-11-26T06:60:00Z",
        "2021-11-26T06:22:61Z",
        "2021-02-29T06:22:19Z",
        "2021-13-01T06:22:19Z",
        "2021-1-1T06:22:19Z",
        "+2021-11-26T06:22:19Z",
        "12021-11-26T06:22:19Z",
        "-001-11-26T06:22:19Z",
        " 2021-11-26T06:22:19Z",
        "2021-11-26T06:22:19Z ",
        "2021-11-26T06:22:19 Z",
        "2021-11-26T06:22:19Z\0",
        "20211126T062219Z",
        "1637907739",
        "٢٠٢١-11-26T06:22:19Z",
    ] {
        assert_invalid(&model_with("/date_created", text), "date_created: rfc3339");
    }
}

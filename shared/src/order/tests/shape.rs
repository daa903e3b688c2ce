//! JSON texts that have the shape of an order, and texts that do not.

use serde_json::{Value, json};

use super::*;
use crate::order::{Entity, Field, MAX_VALUE_BYTES, Order, Rule};

/// Returns every field as a JSON pointer, with its rule.
fn fields() -> Vec<(String, &'static Rule)> {
    let with_rule = |(pointer, field): (String, &'static Field)| (pointer, &field.rule);
    all_fields().into_iter().map(with_rule).collect()
}

fn all_fields() -> Vec<(String, &'static Field)> {
    fn walk(entity: &'static Entity, prefix: &str, into: &mut Vec<(String, &'static Field)>) {
        for field in entity.fields {
            let pointer = format!("{prefix}/{}", field.name);
            if let Some(entity) = field.rule.entity() {
                let element = if field.rule.json_type() == "array" {
                    "/0"
                } else {
                    ""
                };
                walk(entity, &format!("{pointer}{element}"), into);
            }
            into.push((pointer, field));
        }
    }
    let mut all = Vec::new();
    walk(Order::ENTITY, "", &mut all);
    all
}

/// Converts a pointer such as `/items/0/rid` to the form in an error's detail: `items[0].rid`.
fn path(pointer: &str) -> String {
    pointer[1..].replace("/0", "[0]").replace('/', ".")
}

#[test]
fn model_round_trips_byte_for_byte() {
    let Decoded {
        order,
        unknown_fields,
    } = decode(MODEL_JSON.as_bytes(), UnknownFields::Reject).unwrap();
    assert_eq!(unknown_fields, 0);
    // The file is indented. No string in it has a blank next to a line break.
    let compact: String = MODEL_JSON
        .lines()
        .map(|line| line.trim().replacen("\": ", "\":", 1))
        .collect();
    assert_eq!(String::from_utf8(order.to_json()).unwrap(), compact);
}

#[test]
fn examples_of_the_required_fields_make_up_the_model() {
    let mut example = Order::ENTITY.example();
    let optional = all_fields().into_iter().filter(|(_, field)| field.optional);
    for (pointer, _) in optional {
        remove(&mut example, &pointer);
    }
    let model: Value = serde_json::from_str(MODEL_JSON).unwrap();
    assert_eq!(example, model);
}

fn remove(order: &mut Value, pointer: &str) {
    let (parent, name) = pointer.rsplit_once('/').unwrap();
    let object = order.pointer_mut(parent).unwrap().as_object_mut();
    object.unwrap().remove(name);
}

#[test]
fn every_field_stands_once_with_its_own_type() {
    for (pointer, field) in all_fields() {
        let (rule, (parent, name)) = (&field.rule, pointer.rsplit_once('/').unwrap());

        let mut order = model();
        remove(&mut order, &pointer);
        match field.optional {
            true => assert_eq!(
                read(&order).unwrap().order.to_json().len(),
                order.to_string().len()
            ),
            false => assert_malformed(order.to_string(), &format!("{}: missing", path(&pointer))),
        }

        // The same value twice is also a duplicate.
        let mut order = model();
        let object = order.pointer_mut(parent).unwrap();
        let twin = json!({ name: object[name] }).to_string();
        let twice = object
            .to_string()
            .replacen('{', &format!("{},", &twin[..twin.len() - 1]), 1);
        *object = json!("HERE");
        let text = order.to_string().replace("\"HERE\"", &twice);
        assert_malformed(text, &format!("{}: duplicated", path(&pointer)));

        let others = [
            json!(null),
            json!(true),
            json!("1"),
            json!(1),
            json!(1.5),
            json!([1]),
            json!({"a": 1}),
        ];
        for other in others {
            let fits = match (rule.json_type(), &other) {
                ("string", Value::String(_)) => true,
                ("integer", Value::Number(number)) => number.is_i64(),
                _ => false,
            };
            if !fits {
                let inside = if rule.json_type() == "array" && other.is_array() {
                    "[0]"
                } else {
                    ""
                };
                let inside = if rule.json_type() == "object" && other.is_object() {
                    continue;
                } else {
                    inside
                };
                assert_malformed(
                    model_with(&pointer, other).to_string(),
                    &format!("{}{inside}: wrong type or out of range", path(&pointer)),
                );
            }
        }
    }
}

#[test]
fn integers_end_at_their_width() {
    for (pointer, rule) in fields() {
        let (min, max) = match rule {
            Rule::Int32(_) => (i128::from(i32::MIN), i128::from(i32::MAX)),
            Rule::Int64(_) => (i128::from(i64::MIN), i128::from(i64::MAX)),
            _ => continue,
        };
        let digits = "9".repeat(400);
        for (text, fits) in [
            (max.to_string(), true),
            ((max + 1).to_string(), false),
            (min.to_string(), true),
            ((min - 1).to_string(), false),
            ("1.0".to_owned(), false),
            ("1e0".to_owned(), false),
            (digits.clone(), false),
            (format!("-{digits}"), false),
        ] {
            let order = text_with_value(&pointer, &text);
            let outcome = decode(order.as_bytes(), UnknownFields::Ignore);
            let malformed = outcome.is_err_and(|rejection| {
                rejection.reason == Reason::MalformedJson
                    && rejection
                        .detail
                        .starts_with(&format!("{}: wrong type or out of range", path(&pointer)))
            });
            assert_eq!(malformed, !fits, "{pointer} {text}");
        }
    }
}

/// Returns the model with the value at `pointer` replaced by the JSON text `value`.
fn text_with_value(pointer: &str, value: &str) -> String {
    model_with(pointer, "HERE")
        .to_string()
        .replace("\"HERE\"", value)
}

#[test]
fn negative_zero_is_the_integer_zero() {
    for (pointer, rule) in fields() {
        if rule.json_type() != "integer" {
            continue;
        }
        for spelling in ["-0", " -0 ", "\n-0\r\n"] {
            let outcome = decode(
                text_with_value(&pointer, spelling).as_bytes(),
                UnknownFields::Reject,
            );
            let zero = decode(
                text_with_value(&pointer, "0").as_bytes(),
                UnknownFields::Reject,
            );
            assert_eq!(outcome, zero, "{pointer} {spelling:?}");
            if rule.minimum() == Some(1) {
                assert_eq!(outcome.unwrap_err().reason, Reason::InvalidOrder);
            } else {
                assert!(outcome.is_ok(), "{pointer} {spelling:?}");
            }
        }
    }
}

#[test]
fn negative_zero_does_not_affect_other_values() {
    let text = text_with_members(r#""a":[-0,-0.0,1e-0,-0],"b\"":"c\\","d":"\",-0,\"""#)
        .replace("\"custom_fee\":0", "\"custom_fee\":-0")
        .replace("Ploshad Mira 15", r#"\":-0,\\"#);
    assert!(text.contains("\"custom_fee\":-0"));
    let decoded = decode(text.as_bytes(), UnknownFields::Ignore).unwrap();
    assert_eq!(decoded.order.delivery.address, r#"":-0,\"#);
    assert_eq!(decoded.order.payment.custom_fee, 0);
    assert_eq!(decoded.unknown_fields, 3);
    // A second fault is reported with its own position.
    let text = text.replace("\"en\"", "7");
    assert_malformed(text, "locale: wrong type or out of range, line 1");
}

#[test]
fn other_number_formats_are_rejected() {
    for (pointer, rule) in fields() {
        if rule.json_type() != "integer" {
            continue;
        }
        for spelling in [
            "-0.0",
            "-0.",
            "-0e0",
            "-0E-0",
            "0.0",
            "0e0",
            "1e0",
            "1E+2",
            "1e-0",
            "1.0",
            "-00",
            "00",
            "01",
            "-01",
            "+1",
            "+0",
            "--0",
            "-",
            "-+0",
            "- 0",
            ".0",
            "0x0",
            "1_0",
            "0 0",
            "1-0",
            "-0-0",
            "-0 -0",
            "\"-0\"",
            "[-0]",
            "9223372036854775808",
            "-9223372036854775809",
        ] {
            let rejection = rejection(text_with_value(&pointer, spelling));
            assert_eq!(
                rejection.reason,
                Reason::MalformedJson,
                "{pointer} {spelling}"
            );
        }
    }
}

#[test]
fn array_instead_of_an_object_is_rejected() {
    let order = model();
    let values =
        |value: &Value| Value::Array(value.as_object().unwrap().values().cloned().collect());
    assert_malformed(values(&order).to_string(), "wrong type");
    for pointer in ["/delivery", "/payment", "/items/0"] {
        let array = values(order.pointer(pointer).unwrap());
        assert_malformed(model_with(pointer, array).to_string(), &path(pointer));
    }
}

#[test]
fn exactly_one_complete_document_is_accepted() {
    let model = model().to_string();
    assert_malformed("", "not JSON");
    assert_malformed(" \n", "not JSON");
    assert_malformed(format!("\u{feff}{model}"), "not JSON");
    assert_malformed(format!("{model}x"), "not JSON");
    assert_malformed(format!("{model}{model}"), "not JSON");
    assert_malformed(format!("{model}\0"), "not JSON");
    assert_malformed("NaN", "not JSON");
    assert_malformed("null", "wrong type");
    assert_malformed("\"order\"", "wrong type");
    assert_malformed(text_with("1817", "NaN"), "payment.amount: not JSON");
    assert_malformed(text_with("1817", "01817"), "payment");
    assert_malformed(text_with("1817", "+1817"), "payment.amount: not JSON");
    assert_malformed(text_with("\"en\"", "'en'"), "locale: not JSON");
    assert_malformed(text_with("\"en\",", "\"en\",,"), "not JSON");
    for end in 0..model.len() {
        assert_malformed(&model[..end], "");
    }
    let padded = format!(" \t\r\n{model}\n ");
    assert!(decode(padded.as_bytes(), UnknownFields::Reject).is_ok());
}

#[test]
fn text_must_be_unicode() {
    let mut latin1 = text_with("Test Testov", "Test Testov!").into_bytes();
    let at = latin1.iter().position(|byte| *byte == b'!').unwrap();
    latin1[at] = 0xe4;
    assert_malformed(&latin1, &format!("not UTF-8 at byte {at}"));
    // CESU-8 and an overlong form.
    for bytes in [&b"\xed\xa0\x80"[..], b"\xc0\x80"] {
        let text = [&b"{\"a\":\""[..], bytes, b"\"}"].concat();
        assert_malformed(text, "not UTF-8 at byte 6");
    }
    for lone in [r"\ud800", r"\udc00", r"\ud800\ud800", r"\ud800a"] {
        assert_malformed(text_with("Test Testov", lone), "delivery.name: not JSON");
        assert_malformed(
            text_with_members(&format!(r#""a":["{lone}"]"#)),
            "(unknown field): not JSON",
        );
    }
    let pair = decode(
        text_with("Test Testov", r"\ud83d\ude00").as_bytes(),
        UnknownFields::Ignore,
    )
    .unwrap();
    assert_eq!(pair.order.delivery.name, "😀");
}

#[test]
fn escaped_field_names_are_recognized() {
    let escaped = text_with("\"locale\"", r#""\u006cocale""#);
    assert_eq!(
        decode(escaped.as_bytes(), UnknownFields::Reject),
        decode(model().to_string().as_bytes(), UnknownFields::Reject)
    );
    assert_malformed(
        text_with("\"locale\"", r#""\u006cocale":"en","locale""#),
        "locale: duplicated",
    );
}

#[test]
fn unknown_fields_are_counted_on_each_object() {
    let mut order = model();
    order["a"] = json!({"b": {"c": 1}, "d": [1, {"e": null}]});
    order["delivery"]["a"] = json!(null);
    order["payment"]["a"] = json!("é\n");
    order["items"][0]["a"] = json!([[]]);
    order["items"][0]["ü"] = json!(-1.5e3);
    let decoded = read(&order).unwrap();
    assert_eq!(decoded.unknown_fields, 5);
    assert_eq!(decoded.order, read(&model()).unwrap().order);

    let rejection = decode(order.to_string().as_bytes(), UnknownFields::Reject).unwrap_err();
    assert_eq!(rejection.reason, Reason::UnknownField);
    assert_eq!(rejection.detail, "5 unknown fields, the first in Order");
}

#[test]
fn unknown_field_ranks_between_malformed_and_invalid() {
    let mut order = model();
    order["a"] = json!(1);
    order["locale"] = json!("xx_123");
    let strict = |text: &str| {
        decode(text.as_bytes(), UnknownFields::Reject)
            .unwrap_err()
            .reason
    };
    assert_eq!(strict(&order.to_string()), Reason::UnknownField);
    assert_eq!(rejection(order.to_string()).reason, Reason::InvalidOrder);
    assert_eq!(strict(&format!("{order},")), Reason::MalformedJson);
    order["sm_id"] = json!("1");
    assert_eq!(strict(&order.to_string()), Reason::MalformedJson);
}

#[test]
fn unknown_values_may_be_any_json() {
    for value in [
        "9".repeat(400).as_str(),
        "-0.1e-400",
        "1e999",
        r#""\"\\\u00e9 } ] , :""#,
        r#"{"a":{"a":[{"a":1},{"a":2}]},"b":"a","c":["a","a","b"]}"#,
        r#"{"":0,"\u0000":1," ":[true,false,null]}"#,
        "[ ]",
    ] {
        let text = text_with_members(&format!("\"foreign\": {value} "));
        assert_eq!(
            decode(text.as_bytes(), UnknownFields::Ignore)
                .unwrap()
                .unknown_fields,
            1,
            "{value}"
        );
    }
}

#[test]
fn unknown_values_must_be_json_without_duplicates() {
    for (value, detail) in [
        (r#"{"a":1,"a":1}"#, "(unknown field): duplicated"),
        (
            r#"[{"b":{"a":1,"c":{},"a":{}}}]"#,
            "(unknown field): duplicated",
        ),
        (r#"{"a":1,"\u0061":1}"#, "(unknown field): duplicated"),
        (
            r#"{"a":[1,{"x":2}],"b":3,"a":4}"#,
            "(unknown field): duplicated",
        ),
        (r#"1,"foreign":2"#, "(unknown field): duplicated"),
        ("01", "not JSON"),
        ("[1,]", "not JSON"),
        ("{\"a\":}", "not JSON"),
        ("\"\t\"", "not JSON"),
        ("NaN", "not JSON"),
        (r#""\x""#, "not JSON"),
    ] {
        assert_malformed(text_with_members(&format!("\"foreign\":{value}")), detail);
    }
    let nested = text_with("\"bank\"", r#""foreign":{"a":1,"a":1},"bank""#);
    assert_malformed(nested, "payment.(unknown field): duplicated");
}

#[test]
fn nesting_is_bounded_anywhere() {
    let nest = |open: &str, close: &str, depth: usize| {
        format!("{}1{}", open.repeat(depth), close.repeat(depth))
    };
    for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
        let foreign =
            |depth| text_with_members(&format!("\"foreign\":{}", nest(open, close, depth)));
        assert!(decode(foreign(100).as_bytes(), UnknownFields::Ignore).is_ok());
        assert_malformed(foreign(101), "(unknown field): nested too deep");
        assert_malformed(foreign(10_000), "(unknown field): nested too deep");
        // Also if the value is never closed.
        assert_malformed(
            text_with(
                "\"locale\"",
                &format!("\"foreign\":{}", open.repeat(10_000)),
            ),
            "not JSON",
        );
        assert_malformed(nest(open, close, 10_000), "");
        for (pointer, _) in fields() {
            assert_malformed(text_with_value(&pointer, &nest(open, close, 10_000)), "");
        }
    }
}

#[test]
fn size_is_checked_before_anything_else() {
    let order = model().to_string();
    let padded = |bytes: usize| format!("{order}{}", " ".repeat(bytes - order.len()));
    assert!(decode(padded(MAX_VALUE_BYTES).as_bytes(), UnknownFields::Ignore).is_ok());
    let rejected = rejection(padded(MAX_VALUE_BYTES + 1));
    assert_eq!(rejected.reason, Reason::TooLarge);
    assert_eq!(rejected.detail, "1048577 bytes, 1048576 are allowed");
    assert_eq!(rejection(vec![0xff; 2 << 20]).reason, Reason::TooLarge);
}

#[test]
fn no_rejection_quotes_the_input() {
    let secret = "Zq7SECRET";
    let mut spoilt: Vec<String> = Vec::new();
    for (pointer, _) in fields() {
        spoilt.push(model_with(&pointer, secret).to_string());
        spoilt.push(model_with(&pointer, format!("{secret}\0")).to_string());
        spoilt.push(model_with(&pointer, json!([secret])).to_string());
        spoilt.push(model_with(&pointer, json!({secret: secret})).to_string());
    }
    spoilt.push(text_with_members(&format!("\"{secret}\":1,\"{secret}\":2")));
    spoilt.push(text_with_members(&format!(
        "\"{secret}\":{{\"{secret}\":1,\"{secret}\":2}}"
    )));
    spoilt.push(format!("{secret}{}", model()));
    spoilt.push(format!("\"{secret}\""));
    for text in spoilt {
        for fields in [UnknownFields::Ignore, UnknownFields::Reject] {
            if let Err(rejection) = decode(text.as_bytes(), fields) {
                assert!(!rejection.to_string().contains("SECRET"), "{rejection}");
            }
        }
    }
}

#[test]
fn debug_shows_no_personal_data() {
    let order = read(&model()).unwrap().order;
    assert_eq!(
        format!("{order:?}"),
        "Order { order_uid: \"b563feb7b2b84b6test\", .. }"
    );
    assert_eq!(format!("{:?}", order.delivery), "Delivery { .. }");
    assert_eq!(format!("{:?}", order.payment), "Payment { .. }");
    assert_eq!(format!("{:?}", order.items), "[Item { .. }]");
}

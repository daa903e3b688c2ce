//! Every rule, on each side of its limit.

use std::collections::BTreeSet;

use serde_json::json;

use super::*;
use crate::order::{Order, Range, Rule, Text};

const CODES: &[&str] = &[
    "/order_uid",
    "/track_number",
    "/payment/transaction",
    "/items/0/track_number",
    "/items/0/rid",
];
const NAMES: &[&str] = &[
    "/entry",
    "/customer_id",
    "/delivery_service",
    "/payment/provider",
    "/payment/bank",
    "/delivery/name",
    "/delivery/city",
    "/delivery/region",
    "/items/0/name",
    "/items/0/brand",
    "/items/0/size",
];
const OPTIONALS: &[&str] = &["/internal_signature", "/payment/request_id"];
const DIGITS: &[&str] = &["/shardkey", "/oof_shard"];
const POSITIVES: &[&str] = &[
    "/sm_id",
    "/payment/payment_dt",
    "/payment/goods_total",
    "/items/0/chrt_id",
    "/items/0/nm_id",
];
const MONEY: &[&str] = &[
    "/payment/amount",
    "/payment/delivery_cost",
    "/payment/custom_fee",
    "/items/0/price",
    "/items/0/total_price",
];

/// Checks that each of `good` is accepted and kept unchanged at each of `pointers`, and that each
/// of `bad` breaks the rule `code`.
#[track_caller]
fn check<V: Into<Value> + Clone>(pointers: &[&str], code: &str, good: &[V], bad: &[V]) {
    for pointer in pointers {
        for value in good {
            let order = model_with(pointer, value.clone());
            let decoded = read(&order).unwrap_or_else(|rejection| panic!("{pointer}: {rejection}"));
            let written: Value = serde_json::from_slice(&decoded.order.to_json()).unwrap();
            assert_eq!(written, order);
        }
        for value in bad {
            let path = pointer[1..].replace("/0", "[0]").replace('/', ".");
            assert_invalid(
                &model_with(pointer, value.clone()),
                &format!("{path}: {code}"),
            );
        }
    }
}

#[test]
fn codes() {
    let (longest, too_long) = ("a".repeat(64), "a".repeat(65));
    check(
        CODES,
        "code",
        &[
            "a",
            "Z",
            "0",
            "_",
            "-",
            "b563feb7b2b84b6test",
            "d290f1ee-6c54-4b01-90e6-d701748f0851",
            &longest,
        ],
        &[
            "", &too_long, " ", "a b", "a.b", "a/b", "a\0", "a\n", "ä", "а", "٣",
        ],
    );
}

#[test]
fn names() {
    let (longest, too_long) = ("é".repeat(256), "é".repeat(257));
    let (longest_wide, too_long_wide) = ("😀".repeat(256), "😀".repeat(257));
    let good = [
        "a",
        " a ",
        "0",
        "王小明",
        "O'Neill \"x\"",
        "a\u{a0}b",
        "\u{200b}",
        &longest,
        &longest_wide,
    ];
    let bad = [
        "",
        " ",
        "\u{a0}\u{2003}\u{3000}",
        "a\0",
        "\0",
        "a\nb",
        "a\t",
        "\u{1f}",
        "\u{7f}x",
        "x\u{85}",
        "x\u{9f}",
        &too_long,
        &too_long_wide,
    ];
    check(NAMES, "text", &good, &bad);

    let (longest, too_long) = ("é".repeat(512), "é".repeat(513));
    check(
        &["/delivery/address"],
        "text",
        &[&good[..], &[&longest]].concat(),
        &["", "\t", "a\0", &too_long],
    );
}

#[test]
fn optional_texts() {
    let (longest, too_long) = ("é".repeat(256), "é".repeat(257));
    check(
        OPTIONALS,
        "text",
        &["", " ", "a", "line\nbreak", &longest],
        &["\0", "a\0b", &too_long],
    );
}

#[test]
fn digits() {
    let (longest, too_long) = ("9".repeat(20), "9".repeat(21));
    check(
        DIGITS,
        "digits",
        &["0", "9", "007", &longest],
        &["", "abc", "-1", "+1", "1.0", " 1", "1\n", "٣", &too_long],
    );
}

#[test]
fn positive_integers() {
    check(
        POSITIVES,
        "range",
        &[1_i64, i64::from(i32::MAX)],
        &[0, -1, i64::from(i32::MIN)],
    );
    let wide: Vec<_> = POSITIVES
        .iter()
        .copied()
        .filter(|pointer| *pointer != "/sm_id")
        .collect();
    check(&wide, "range", &[i64::MAX], &[i64::MIN]);
}

#[test]
fn money() {
    check(MONEY, "range", &[0, 1, i64::MAX], &[-1, -100, i64::MIN]);
}

#[test]
fn sale_is_a_percentage() {
    check(
        &["/items/0/sale"],
        "range",
        &[0, 1, 100],
        &[-1, 101, i32::MIN, i32::MAX],
    );
}

#[test]
fn status_is_any_32_bit_integer() {
    check(
        &["/items/0/status"],
        "range",
        &[i32::MIN, -1, 0, i32::MAX],
        &[],
    );
}

#[test]
fn phone_numbers() {
    check(
        &["/delivery/phone"],
        "e164",
        &["+12", "+123456789012345", "+9720000000"],
        &[
            "",
            "+",
            "+1",
            "+1234567890123456",
            "+02",
            "12345abc",
            "9720000000",
            "+1 234",
            "+12a",
            "+12\n",
            " +12",
            "++12",
            "+1٣",
        ],
    );
}

#[test]
fn postal_codes() {
    check(
        &["/delivery/zip"],
        "zip",
        &["2", "2639809", "SW1A 1AA", "01304-001", "1234567890123456"],
        &[
            "",
            "12345678901234567",
            "12_34",
            "12\t34",
            "１２",
            "12\0",
            "ß",
        ],
    );
}

#[test]
fn email_addresses() {
    let user = "a".repeat(64);
    let label = "b".repeat(63);
    let domain = format!("{label}.{label}.{label}.{label}"); // 255 characters
    check(
        &["/delivery/email"],
        "email",
        &[
            "test@gmail.com",
            "a@b",
            "a.b+c_d-e@x-y.example.com",
            "o'neill!#$%&*/=?^`{|}~@example.com",
            "a@bücher.example",
            "a@[127.0.0.1]",
            "a@[::1]",
            "a..b@example.com",
            &format!("{user}@{domain}"),
        ],
        &[
            "",
            "@",
            "not-an-email",
            "a@",
            "@b",
            "a b@c",
            "a@b c",
            "a@@b",
            "a@-b",
            "a@b-",
            "a@b..c",
            "a@b.",
            "a@.b",
            "é@b",
            "a@b\0",
            "a\0@b",
            "a@b\n",
            "a@[127.0.0.1",
            "a@127]",
            "a@\0[127.0.0.1]",
            "a@x[127.0.0.1]",
            "\"a\"@b",
            &format!("a{user}@b"),
            &format!("a@{label}b"),
            &format!("a@b{domain}"),
        ],
    );
}

#[test]
fn locales() {
    let longest = format!("en-x{}", "-aaaaaaa".repeat(31)); // 252 characters
    let too_long = format!("{longest}-aaaa");
    check(
        &["/locale"],
        "bcp47",
        &[
            "en",
            "de",
            "EN",
            "en-US",
            "en-us",
            "zh-Hant-TW",
            "sl-rozaj-biske",
            "de-CH-1996",
            "es-419",
            "qu",
            "qu-PE",
            "yue",
            "qaa",
            "qtz",
            "iw",
            "und",
            "en-x-private",
            "x-private",
            "i-klingon",
            &longest,
        ],
        &[
            "",
            "e",
            "xx_123",
            "en_US",
            "qq",
            "QQ",
            "qq-US",
            "xx",
            "xyzzy",
            "qabc",
            "en-",
            "-en",
            "en--US",
            "en-XQQ",
            "en-Qqqq",
            "en-ZY",
            "en-US-US",
            "english",
            "en US",
            "en\0",
            "x-",
            "x-toolongsubtag",
            "ru-RUS",
            "é",
            &too_long,
        ],
    );
}

#[test]
fn currencies() {
    check(
        &["/payment/currency"],
        "iso4217",
        &["USD", "EUR", "RUB", "JPY", "KZT"],
        &[
            "", "NOT", "usd", "Usd", "US", "USDT", "840", "$", " USD", "U\0D",
        ],
    );
}

#[test]
fn items() {
    let item = model()["items"][0].clone();
    let lines = |count: usize| Value::Array(vec![item.clone(); count]);
    check(
        &["/items"],
        "count",
        &[lines(1), lines(2), lines(1000)],
        &[lines(0), lines(1001)],
    );
}

#[test]
fn items_keep_their_order() {
    let mut order = model();
    for rid in ["c", "a", "b"] {
        let mut item = order["items"][0].clone();
        item["rid"] = json!(rid);
        order["items"].as_array_mut().unwrap().push(item);
    }
    let decoded = read(&order).unwrap().order;
    let rids: Vec<_> = decoded.items.iter().map(|item| item.rid.as_str()).collect();
    assert_eq!(rids, ["ab4219087a764ae0btest", "c", "a", "b"]);
}

#[test]
fn broken_rules_are_listed_in_the_order_of_the_document() {
    let mut order = model();
    order["order_uid"] = json!("");
    order["delivery"]["phone"] = json!("1");
    order["payment"]["amount"] = json!(-1);
    order["items"] = Value::Array(vec![order["items"][0].clone(); 11]);
    order["items"][2]["sale"] = json!(101);
    order["items"][10]["rid"] = json!("");
    order["date_created"] = json!("");
    assert_invalid(
        &order,
        "order_uid: code, delivery.phone: e164, payment.amount: range, items[2].sale: range, \
         items[10].rid: code, date_created: rfc3339",
    );

    for item in order["items"].as_array_mut().unwrap() {
        item["nm_id"] = json!(0);
    }
    let rejection = read(&order).unwrap_err();
    assert!(rejection.detail.ends_with(" and 9 more"), "{rejection}");
}

/// Checks that the groups above name every field, so each field has a test.
#[test]
fn every_field_has_its_test() {
    let alone = [
        "/delivery/phone",
        "/delivery/zip",
        "/delivery/email",
        "/delivery/address",
        "/payment/currency",
        "/items/0/sale",
        "/items/0/status",
        "/locale",
        "/date_created",
        "/items",
        "/delivery",
        "/payment",
    ];
    let tested: BTreeSet<String> = [CODES, NAMES, OPTIONALS, DIGITS, POSITIVES, MONEY, &alone]
        .concat()
        .iter()
        .map(|pointer| pointer.replace("/0", ""))
        .collect();
    let mut fields = BTreeSet::new();
    for field in Order::FIELDS {
        fields.insert(format!("/{}", field.name));
        for inner in field.rule.entity().map_or(&[][..], |entity| entity.fields) {
            fields.insert(format!("/{}/{}", field.name, inner.name));
        }
    }
    assert_eq!(tested, fields);
    // Other fields are another shape of the document: raise REPRESENTATION with them.
    assert_eq!((crate::order::REPRESENTATION, fields.len()), (1, 42));
}

/// Limits that the OpenAPI document shows.
#[test]
fn limits_are_readable() {
    let code = Rule::Text(Text::CODE);
    assert_eq!((code.json_type(), code.format()), ("string", None));
    assert_eq!((code.min_length(), code.max_length()), (Some(1), Some(64)));
    assert_eq!(code.pattern(), Some("^[A-Za-z0-9_-]{1,64}$"));

    let sale = Rule::Int32(Range::<i32>::PERCENT);
    assert_eq!(
        (sale.json_type(), sale.format()),
        ("integer", Some("int32"))
    );
    assert_eq!((sale.minimum(), sale.maximum()), (Some(0), Some(100)));
    let money = Rule::Int64(Range::<i64>::MONEY);
    assert_eq!((money.minimum(), money.maximum()), (Some(0), None));
    let status = Rule::Int32(Range::<i32>::ANY);
    assert_eq!((status.minimum(), status.maximum()), (None, None));

    let items = Order::FIELDS
        .iter()
        .find(|field| field.name == "items")
        .unwrap();
    assert_eq!(
        (items.rule.min_items(), items.rule.max_items()),
        (Some(1), Some(1000))
    );
    assert_eq!(items.rule.entity().unwrap().name, "Item");
    assert_eq!(items.doc, "The lines of the order, in its own order.");
}

use serde_json::{Value, json};
use shared::order::{Delivery, Order, Rule, UnknownFields, decode};

use super::*;

const MODEL: &str = include_str!("../../../../shared/src/order/model.json");

fn model() -> Order {
    decode(MODEL.as_bytes(), UnknownFields::Reject)
        .unwrap()
        .order
}

fn masked(json: &[u8]) -> Result<Vec<u8>, Unreadable> {
    let cut = Outline::read(json)?.mask()?;
    let parts = [
        &json[..cut.place.start],
        &cut.delivery,
        &json[cut.place.end..],
    ];
    Ok(parts.concat())
}

/// Masks a document by way of a tree of values.
fn masked_slowly(json: &[u8]) -> Value {
    let mut document: Value = serde_json::from_slice(json).unwrap();
    for mask in MASKS {
        let value = document["delivery"].get_mut(mask.field).unwrap();
        *value = mask.value.into();
    }
    document
}

/// A text of what could mislead a search for a field, and of characters that JSON escapes.
fn text(random: &mut fastrand::Rng) -> String {
    const PIECES: &[&str] = &[
        "\"phone\":\"",
        "\"delivery\":{",
        "\"customer_id\":\"other\"",
        "},",
        "{",
        "\\",
        "\\\"",
        "\"",
        "\u{0}",
        "\n",
        "\u{2028}",
        "é",
        "漢字",
        "😀",
        "a",
        "MASKED",
    ];
    let count = random.usize(..8);
    (0..count)
        .map(|_| *random.choice(PIECES).unwrap())
        .collect()
}

#[test]
fn every_document_is_masked_as_a_tree_of_its_values_would_be() {
    let mut random = fastrand::Rng::with_seed(25);
    for _ in 0..2000 {
        let mut order = model();
        let Delivery {
            name,
            phone,
            zip,
            city,
            address,
            region,
            email,
        } = &mut order.delivery;
        let texts = [name, phone, zip, city, address, region, email];
        let others = [&mut order.entry, &mut order.internal_signature];
        for value in texts.into_iter().chain(others) {
            *value = text(&mut random).into();
        }
        order.customer_id = text(&mut random).into();
        let json = order.to_json();
        let read = Outline::read(&json).unwrap();
        assert_eq!(read.customer_id, order.customer_id.as_str());
        let masked = masked(&json).unwrap();
        let value: Value = serde_json::from_slice(&masked).unwrap();
        assert_eq!(value, masked_slowly(&json));
        // The bytes around the delivery, and the order of its fields, remain.
        assert!(masked.starts_with(&json[..read.place.start]));
        assert!(masked.ends_with(&json[read.place.end..]));
        let fields: Vec<_> = Delivery::FIELDS.iter().map(|field| field.name).collect();
        let mut rest = std::str::from_utf8(&masked[read.place.start..]).unwrap();
        for field in fields {
            let name = format!("\"{field}\":\"");
            rest = rest.split_once(&name).expect("the next field").1;
        }
    }
}

#[test]
fn a_mask_is_a_valid_value_that_reveals_nothing() {
    for mask in MASKS {
        let field = Delivery::FIELDS
            .iter()
            .find(|field| field.name == mask.field);
        let Rule::Text(rule) = &field.expect("a field of the delivery").rule else {
            panic!("{} is no text", mask.field);
        };
        assert!(rule.holds(mask.value), "{}", mask.field);
        // It is written without escapes.
        assert_eq!(json!(mask.value).to_string(), format!("\"{}\"", mask.value));
    }
}

/// A field that is added to the delivery must be declared as personal data or as visible.
#[test]
fn each_field_of_the_delivery_is_masked_or_visible() {
    let mut declared: Vec<_> = MASKS.iter().map(|mask| mask.field).collect();
    declared.extend(VISIBLE);
    declared.sort_unstable();
    let mut fields: Vec<_> = Delivery::FIELDS.iter().map(|field| field.name).collect();
    fields.sort_unstable();
    assert_eq!(declared, fields);
}

#[test]
fn documents_of_other_programs_are_masked() {
    let spaced = serde_json::to_vec_pretty(&json!({
        "items": [{"name": "Mascaras", "phone": "in an item"}],
        "payment": {"phone": "+15550000001", "delivery": {"email": "in@payment.example"}},
        "delivery": {
            "email": "jane@example.com", "passport": "AB 123", "city": "Łódź", "zip": 12345,
            "name": {"first": "Jane"}, "address": null, "phone": "+15550000002", "region": ["x"],
        },
        "customer_id": "ünï",
        "new": {"a": [1.50e3, true, null]},
    }))
    .unwrap();
    let masked = masked(&spaced).unwrap();
    let value: Value = serde_json::from_slice(&masked).unwrap();
    let delivery = &value["delivery"];
    assert_eq!(delivery["city"], "Łódź");
    assert_eq!(delivery["region"], json!(["x"]));
    assert_eq!(delivery.as_object().unwrap().len(), 7, "{delivery}");
    for mask in MASKS {
        assert_eq!(delivery[mask.field], mask.value);
    }
    assert_eq!(value["payment"]["phone"], "+15550000001");
    assert_eq!(value["items"][0]["name"], "Mascaras");
}

#[test]
fn names_of_fields_may_have_escapes() {
    let json = String::from_utf8(model().to_json()).unwrap();
    let escaped = json
        .replace("\"phone\"", "\"\\u0070hone\"")
        .replace("\"delivery\"", "\"deli\\u0076ery\"");
    let value: Value = serde_json::from_slice(&masked(escaped.as_bytes()).unwrap()).unwrap();
    assert_eq!(value, masked_slowly(json.as_bytes()));
}

#[test]
fn what_is_not_understood_is_rejected() {
    let json = String::from_utf8(model().to_json()).unwrap();
    let delivery = serde_json::to_string(&json!({"name": "Jane"})).unwrap();
    let mut documents = vec![
        String::new(),
        "x".repeat(1000),
        "null".to_owned(),
        "[]".to_owned(),
        "{}".to_owned(),
        format!("[{delivery},\"customer\"]"),
        json[..json.len() - 1].to_owned(),
        format!("{json}{json}"),
        // A reader that takes the last of two fields would see one that is not masked.
        json.replacen('{', &format!("{{\"delivery\":{delivery},"), 1),
        json.replace("\"phone\":", "\"phone\":\"+15550000003\",\"phone\":"),
        json.replacen('{', "{\"customer_id\":\"other\",", 1),
        json.replace("\"customer_id\":\"test\"", "\"customer_id\":7"),
        json.replace("\"delivery\":{", "\"delivery\":[{")
            .replace("},\"payment\"", "}],\"payment\""),
    ];
    for mask in MASKS {
        let removed = json.replacen(&format!("\"{}\":", mask.field), "\"other\":", 1);
        assert_ne!(removed, json);
        documents.push(removed);
    }
    for document in documents {
        assert_eq!(masked(document.as_bytes()), Err(Unreadable), "{document}");
    }
}

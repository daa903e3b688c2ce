//! Orders as the existing producers send them.

use serde_json::json;

use super::*;

/// Values that differ from the model.
#[test]
fn orders_of_the_existing_producers() {
    let (dashes, digits) = ("d290f1ee-6c54-4b01-90e6-d701748f0851", "9f86d081884c7d65");
    for (pointer, values) in [
        ("/order_uid", vec![json!(dashes), json!(digits)]),
        ("/track_number", vec![json!("TRKA1B2C3D4E5")]),
        ("/entry", vec![json!("ENTR")]),
        ("/internal_signature", vec![json!("Test Signature")]),
        ("/customer_id", vec![json!("test_customer")]),
        (
            "/delivery_service",
            vec![json!("Russian Post"), json!("Test Delivery Service")],
        ),
        ("/shardkey", vec![json!("10")]),
        (
            "/delivery/phone",
            vec![
                json!("+1234567890"),
                json!("+10000000"),
                json!("+8112345678901"),
            ],
        ),
        ("/delivery/address", vec![json!("57 High St")]),
        ("/delivery/email", vec![json!("walter.white@mail.ru")]),
        ("/payment/transaction", vec![json!(dashes)]),
        ("/payment/provider", vec![json!("MIR")]),
        ("/items/0/rid", vec![json!(dashes), json!(digits)]),
        ("/items/0/sale", vec![json!(0), json!(70)]),
        ("/items/0/size", vec![json!("XL")]),
        ("/items/0/brand", vec![json!("L'Oreal")]),
        ("/items/0/status", vec![json!(1), json!(300)]),
        ("/locale", vec![json!("ru"), json!("fr")]),
        (
            "/date_created",
            vec![
                json!("2025-09-01T12:34:56.123456789+03:00"),
                json!("2020-01-01T00:00:00Z"),
            ],
        ),
    ] {
        for value in values {
            let outcome = read(&model_with(pointer, value));
            assert!(outcome.is_ok(), "{pointer}: {outcome:?}");
        }
    }
}

//! Optional fields, and rules that span fields.

#![allow(unreachable_pub, reason = "the macro makes its structs public")]

use std::collections::HashSet;
use std::fmt;

use serde::de::{Deserializer, MapAccess, Visitor};
use serde::ser::{Serialize, SerializeStruct, Serializer};
use serde_json::json;
use smol_str::SmolStr;
use validator::{Validate, ValidationErrors, ValidationErrorsKind};

use super::*;
use crate::order::decode::check_relations;
use crate::order::decode_state::{DecodeState, Fault};
use crate::order::entity::entity;
use crate::order::field_type::{FieldType, KeySeed, ValueSeed};
use crate::order::rule::{Entity, Field, Range, Relation, Rule, Text};
use crate::order::{Order, unknown};

entity! {
    /// A parcel with a note.
    Parcel [] {
        /// Identifies the parcel.
        code: SmolStr = Text(Text::CODE), "p1";
        /// A note for the recipient.
        note: Option<SmolStr> = Text(Text::NAME), "Congratulations";
        /// Its weight.
        weight: Option<i32> = Int32(Range::<i32>::POSITIVE), 7;
    }
}

/// Reads a parcel, or returns the error without its position.
fn parcel(json: &str) -> Result<Parcel, String> {
    let mut source = serde_json::Deserializer::from_str(json);
    let mut state = DecodeState::default();
    Parcel::read(&mut source, &mut state).map_err(|error| {
        let text = state.describe(&error);
        text.split(", line").next().unwrap_or_default().to_owned()
    })
}

#[test]
fn absent_optional_field_stays_absent() {
    for json in [
        r#"{"code":"p"}"#,
        r#"{"code":"p","note":"n"}"#,
        r#"{"code":"p","weight":2}"#,
        r#"{"code":"p","note":"n","weight":2}"#,
    ] {
        let parcel = parcel(json).unwrap();
        assert!(parcel.validate().is_ok());
        assert_eq!(serde_json::to_string(&parcel).unwrap(), json);
    }
    let empty = parcel(r#"{"code":"p"}"#).unwrap();
    assert_eq!((empty.note, empty.weight), (None, None));
}

#[test]
fn optional_field_is_neither_null_nor_duplicated_nor_of_another_type() {
    for (json, fault) in [
        (r#"{"note":"n"}"#, "code: missing"),
        (
            r#"{"code":"p","note":null}"#,
            "note: wrong type or out of range",
        ),
        (
            r#"{"code":"p","note":1}"#,
            "note: wrong type or out of range",
        ),
        (
            r#"{"code":"p","weight":1.5}"#,
            "weight: wrong type or out of range",
        ),
        (r#"{"code":"p","note":"n","note":"n"}"#, "note: duplicated"),
    ] {
        assert_eq!(parcel(json).unwrap_err(), fault, "{json}");
    }
}

#[test]
fn optional_field_that_is_present_satisfies_its_rule() {
    let broken = parcel(r#"{"code":"p","note":" ","weight":0}"#).unwrap();
    let errors = broken.validate().unwrap_err();
    let mut fields: Vec<_> = errors.errors().keys().cloned().collect();
    fields.sort_unstable();
    assert_eq!(fields, ["note", "weight"]);
}

#[test]
fn optional_field_is_marked_for_the_openapi_document() {
    let optional: Vec<bool> = Parcel::FIELDS.iter().map(|field| field.optional).collect();
    assert_eq!(optional, [false, true, true]);
    let example = json!({"code": "p1", "note": "Congratulations", "weight": 7});
    assert_eq!(Parcel::ENTITY.example(), example);
}

#[test]
fn rule_that_spans_fields_is_checked_and_named() {
    const RELATIONS: &[Relation<Order>] = &[
        Relation {
            code: "lines_belong_to_the_parcel",
            words: "each line has the track number of the order",
            holds: |order| {
                let lines = &order.items;
                lines
                    .iter()
                    .all(|item| item.track_number == order.track_number)
            },
        },
        Relation {
            code: "amount_is_the_sum",
            words: "the amount is goods, delivery and duty together",
            holds: |Order { payment, .. }| {
                payment.amount == payment.goods_total + payment.delivery_cost + payment.custom_fee
            },
        },
    ];
    let mut order = read(&model()).unwrap().order;
    assert_eq!(check_relations(&order, RELATIONS), Ok(()));
    order.payment.amount += 1;
    let rejection = check_relations(&order, RELATIONS).unwrap_err();
    assert_eq!(rejection.reason, Reason::InvalidOrder);
    assert_eq!(rejection.detail, "order: amount_is_the_sum");
    order.items[0].track_number = "OTHER".into();
    let rejection = check_relations(&order, RELATIONS).unwrap_err();
    assert_eq!(
        rejection.detail,
        "order: lines_belong_to_the_parcel, order: amount_is_the_sum"
    );
}

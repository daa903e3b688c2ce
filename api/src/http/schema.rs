//! Schemas of the OpenAPI document: the order and its summary, whose rules live in `shared`, and
//! the problem.

use std::sync::LazyLock;

use poem_openapi::registry::{
    MetaHeader, MetaMediaType, MetaResponse, MetaSchema, MetaSchemaRef, Registry,
};
use serde_json::json;
use shared::order::{Delivery, Entity, Field, Order, Payment, Version};
use strum::IntoEnumIterator;

use super::{
    cursor,
    dto::{MAX_LIMIT, MAX_UIDS, ORDER_PREFIX},
    problem::{self, Problem},
};
use crate::answer::MASKS;

const PROBLEM: &str = "Problem";
const LIST: &str = "OrderList";
const SUMMARY: &str = "OrderSummary";
const LINKS: &str = "OrderLinks";
const BATCH_REQUEST: &str = "BatchGetRequest";
const BATCH: &str = "OrderBatch";

const EXAMPLE_UID: &str = "b563feb7b2b84b6test";

/// Describes 403 of an operation with the filters of a list.
pub(super) const FORBIDDEN_FILTER: &str = "The caller lacks the scope `orders:list` \
    (`forbidden`), or filters by `phone` or `email` without the scope `orders:pii` \
    (`personal_data`).";

/// Type under which the registry keeps the schemas of this module.
struct ByHand;

/// Registers the order and its nested objects.
pub(super) fn register_order(registry: &mut Registry) {
    register_entity(Order::ENTITY, registry);
}

/// Registers the problem.
pub(super) fn register_problem(registry: &mut Registry) {
    let string = |description| {
        text(MetaSchema {
            description: Some(description),
            ..MetaSchema::new("string")
        })
    };
    let mut codes: Vec<_> = Problem::iter()
        .map(|problem| json!(problem.code()))
        .collect();
    // Two problems with one code are neighbours.
    codes.dedup();
    registry.create_schema::<ByHand, _>(PROBLEM.to_owned(), |_| MetaSchema {
        description: Some("An error (RFC 9457)."),
        required: vec!["type", "title", "status", "detail", "code"],
        properties: vec![
            ("type", string("URN of the kind of error.")),
            ("title", string("The kind of error, for people.")),
            (
                "status",
                text(MetaSchema {
                    description: Some("The HTTP status."),
                    minimum: Some(400.0),
                    maximum: Some(599.0),
                    ..MetaSchema::new_with_format("integer", "int32")
                }),
            ),
            ("detail", string("What is expected, and the next step.")),
            (
                "code",
                text(MetaSchema {
                    description: Some(
                        "The kind of error, for programs. A code never changes its meaning.",
                    ),
                    enum_items: codes,
                    ..MetaSchema::new("string")
                }),
            ),
        ],
        example: serde_json::to_value(Problem::OrderNotFound.details()).ok(),
        ..MetaSchema::new("object")
    });
}

/// A reference to the schema of the order.
pub(super) fn order() -> MetaSchemaRef {
    MetaSchemaRef::Reference(Order::ENTITY.name.to_owned())
}

/// Registers the page of a list and its parts.
pub(super) fn register_list(registry: &mut Registry) {
    for (name, schema) in [
        (LIST, page as fn() -> MetaSchema),
        (SUMMARY, summary),
        (LINKS, links),
    ] {
        registry.create_schema::<ByHand, _>(name.to_owned(), |_| schema());
    }
}

fn page() -> MetaSchema {
    let orders = MetaSchema {
        description: Some("The orders."),
        items: Some(Box::new(MetaSchemaRef::Reference(SUMMARY.to_owned()))),
        max_items: Some(MAX_LIMIT as usize),
        ..MetaSchema::new("array")
    };
    let next_cursor = MetaSchema {
        description: Some("The `cursor` of the next page; absent on the last page."),
        ..cursor()
    };
    MetaSchema {
        description: Some("A page of orders, newest first by the time they were first stored."),
        required: vec!["orders"],
        properties: vec![("orders", text(orders)), ("next_cursor", text(next_cursor))],
        ..MetaSchema::new("object")
    }
}

/// The fields of an order keep the limits that they have in the whole order.
fn summary() -> MetaSchema {
    let created_at = MetaSchema {
        description: Some("When the order was first stored: UTC, with microseconds."),
        example: Some(json!("2021-11-26T06:22:20.104815Z")),
        ..MetaSchema::new_with_format("string", "date-time")
    };
    let item_count = MetaSchema {
        description: Some("Number of items in the order."),
        minimum: Some(0.0),
        example: Some(json!(1)),
        ..MetaSchema::new_with_format("integer", "int64")
    };
    let properties = vec![
        ("order_uid", field_of(Order::FIELDS, "order_uid")),
        ("track_number", field_of(Order::FIELDS, "track_number")),
        ("customer_id", field_of(Order::FIELDS, "customer_id")),
        ("date_created", field_of(Order::FIELDS, "date_created")),
        ("created_at", text(created_at)),
        ("currency", field_of(Payment::FIELDS, "currency")),
        ("amount", field_of(Payment::FIELDS, "amount")),
        ("item_count", text(item_count)),
        ("links", MetaSchemaRef::Reference(LINKS.to_owned())),
    ];
    MetaSchema {
        description: Some("Summary of an order, as listed."),
        required: properties.iter().map(|(name, _)| *name).collect(),
        properties,
        ..MetaSchema::new("object")
    }
}

fn links() -> MetaSchema {
    let this = MetaSchema {
        description: Some("Path of the whole order."),
        example: Some(json!(format!("{ORDER_PREFIX}{EXAMPLE_UID}"))),
        ..MetaSchema::new_with_format("string", "uri-reference")
    };
    MetaSchema {
        description: Some("Related resources of a listed order."),
        required: vec!["self"],
        properties: vec![("self", text(this))],
        ..MetaSchema::new("object")
    }
}

/// A reference to the schema of a page.
pub(super) fn list() -> MetaSchemaRef {
    MetaSchemaRef::Reference(LIST.to_owned())
}

/// Registers the body of a batch-get request.
pub(super) fn register_batch_request(registry: &mut Registry) {
    registry.create_schema::<ByHand, _>(BATCH_REQUEST.to_owned(), |_| MetaSchema {
        description: Some("The orders to get."),
        required: vec!["order_uids"],
        properties: vec![(
            "order_uids",
            uids(
                "Uids of the orders. A uid that appears again counts once.",
                1,
            ),
        )],
        example: Some(json!({"order_uids": [EXAMPLE_UID, "unknown"]})),
        ..MetaSchema::new("object")
    });
}

/// A reference to the schema of the body of a batch-get request.
pub(super) fn batch_request() -> MetaSchemaRef {
    MetaSchemaRef::Reference(BATCH_REQUEST.to_owned())
}

/// Registers the body of a batch-get response.
pub(super) fn register_batch(registry: &mut Registry) {
    register_order(registry);
    registry.create_schema::<ByHand, _>(BATCH.to_owned(), |_| {
        let orders = MetaSchema {
            description: Some("The orders that exist, in the order of the request."),
            items: Some(Box::new(order())),
            max_items: Some(MAX_UIDS),
            ..MetaSchema::new("array")
        };
        MetaSchema {
            description: Some("Each uid of the request is in exactly one of the lists."),
            required: vec!["orders", "missing", "erased"],
            properties: vec![
                ("orders", text(orders)),
                ("missing", uids("Uids of no order.", 0)),
                ("erased", uids("Uids of orders that were erased.", 0)),
            ],
            ..MetaSchema::new("object")
        }
    });
}

/// A reference to the schema of the body of a batch-get response.
pub(super) fn batch() -> MetaSchemaRef {
    MetaSchemaRef::Reference(BATCH.to_owned())
}

/// A list of at least `min_items` uids, and of as many as one request may have.
fn uids(description: &'static str, min_items: usize) -> MetaSchemaRef {
    text(MetaSchema {
        description: Some(description),
        items: Some(Box::new(field_of(Order::FIELDS, "order_uid"))),
        min_items: Some(min_items),
        max_items: Some(MAX_UIDS),
        ..MetaSchema::new("array")
    })
}

/// The schema of a cursor.
pub(super) fn cursor() -> MetaSchema {
    MetaSchema {
        pattern: Some(cursor::PATTERN.to_owned()),
        example: Some(json!("0005d1e6f0a1b2c3000000000000002a")),
        ..MetaSchema::new("string")
    }
}

/// An `ETag`, with its quotes.
pub(super) fn etag_example() -> serde_json::Value {
    json!(format!("\"{}\"", Version::new(1_637_907_727_000, 42, 5)))
}

/// An export of one order.
pub(super) fn export_example(media_type: &str) -> serde_json::Value {
    json!(match media_type {
        "text/csv" => "order_uid,track_number,customer_id,date_created,created_at,currency,amount,\
             item_count\r\n\
             b563feb7b2b84b6test,WBILMTESTTRACK,test,2021-11-26T06:22:19Z,\
             2021-11-26T06:22:20.104815Z,USD,1817,1\r\n"
            .to_owned(),
        _ => format!("{}\n", Order::ENTITY.example()),
    })
}

/// The schema of the field `name` of `fields`, with an example.
pub(super) fn field_of(fields: &'static [Field], name: &str) -> MetaSchemaRef {
    text(match fields.iter().find(|field| field.name == name) {
        Some(found) => MetaSchema {
            example: Some(found.example()),
            ..field(found)
        },
        None => MetaSchema::new("string"),
    })
}

/// The schema of a field of the order, built from its rule.
pub(super) fn field(field: &'static Field) -> MetaSchema {
    let rule = &field.rule;
    MetaSchema {
        format: rule.format(),
        description: Some(field.doc),
        min_length: rule.min_length(),
        max_length: rule.max_length(),
        pattern: rule.pattern().map(str::to_owned),
        // A double holds each of our limits exactly.
        minimum: rule.minimum().map(|minimum| minimum as f64),
        maximum: rule.maximum().map(|maximum| maximum as f64),
        min_items: rule.min_items(),
        max_items: rule.max_items(),
        ..MetaSchema::new(rule.json_type())
    }
}

/// An inline schema.
pub(super) fn text(schema: MetaSchema) -> MetaSchemaRef {
    MetaSchemaRef::Inline(Box::new(schema))
}

/// A response header that is always present.
pub(super) fn header(name: &str, description: &str, schema: MetaSchema) -> MetaHeader {
    MetaHeader {
        name: name.to_owned(),
        description: Some(description.to_owned()),
        required: true,
        deprecated: false,
        schema: text(schema),
    }
}

/// A response with a problem as its body.
pub(super) fn problem(status: u16, description: &'static str) -> MetaResponse {
    let headers = match status {
        401 => vec![header(
            "WWW-Authenticate",
            "The authentication scheme.",
            MetaSchema::new("string"),
        )],
        429 | 503 => {
            let seconds = MetaSchema {
                minimum: Some(1.0),
                ..MetaSchema::new("integer")
            };
            vec![header(
                "Retry-After",
                "Seconds until the client may retry.",
                seconds,
            )]
        }
        _ => Vec::new(),
    };
    MetaResponse {
        description,
        status: Some(status),
        status_range: None,
        content: vec![MetaMediaType {
            content_type: problem::CONTENT_TYPE,
            schema: MetaSchemaRef::Reference(PROBLEM.to_owned()),
        }],
        headers,
    }
}

fn register_entity(entity: &'static Entity, registry: &mut Registry) {
    registry.create_schema::<ByHand, _>(entity.name.to_owned(), |registry| {
        for nested in entity.fields.iter().filter_map(|field| field.rule.entity()) {
            register_entity(nested, registry);
        }
        MetaSchema {
            description: Some(entity.doc),
            required: entity
                .fields
                .iter()
                .filter(|field| !field.optional)
                .map(|field| field.name)
                .collect(),
            properties: entity
                .fields
                .iter()
                .map(|field| (field.name, property(entity, field)))
                .collect(),
            example: Some(entity.example()),
            ..MetaSchema::new("object")
        }
    });
}

fn property(entity: &'static Entity, of: &'static Field) -> MetaSchemaRef {
    let nested = of
        .rule
        .entity()
        .map(|entity| MetaSchemaRef::Reference(entity.name.to_owned()));
    match (nested, of.rule.min_items()) {
        (None, _) => text(MetaSchema {
            description: Some(documentation(entity, of)),
            ..field(of)
        }),
        (Some(entity), None) => entity,
        (Some(entity), Some(_)) => text(MetaSchema {
            items: Some(Box::new(entity)),
            ..field(of)
        }),
    }
}

/// What a field means, and what its value is if it is masked.
fn documentation(entity: &'static Entity, of: &'static Field) -> &'static str {
    static MASKED: LazyLock<Vec<(&str, String)>> = LazyLock::new(|| {
        let fields = Delivery::FIELDS.iter();
        let masked = fields.filter_map(|field| {
            let mask = MASKS.iter().find(|mask| mask.field == field.name)?;
            let (doc, value) = (field.doc, mask.value);
            let text = format!("{doc} Without the scope `orders:pii` it is `{value}`.");
            Some((field.name, text))
        });
        masked.collect()
    });

    let masked = MASKED.iter().find(|(name, _)| *name == of.name);
    match masked.filter(|_| entity.name == Delivery::ENTITY.name) {
        Some((_, text)) => text,
        None => of.doc,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::dto::{OrderList, OrderSummary, sample_summary};

    #[test]
    fn the_example_of_a_csv_has_its_columns() {
        let example = export_example("text/csv");
        let mut lines = example.as_str().unwrap().split("\r\n");
        assert_eq!(lines.next().unwrap(), OrderSummary::COLUMNS.join(","));
        let cells = lines.next().unwrap().split(',').count();
        assert_eq!(cells, OrderSummary::COLUMNS.len());
    }

    #[test]
    fn the_schema_of_a_page_has_the_fields_of_a_page() {
        let list = OrderList::page(vec![sample_summary(), sample_summary()], 1);
        let written = serde_json::to_value(list).unwrap();
        for (object, schema) in [
            (&written, page()),
            (&written["orders"][0], summary()),
            (&written["orders"][0]["links"], links()),
        ] {
            let mut described: Vec<_> = schema.properties.iter().map(|(name, _)| *name).collect();
            described.sort_unstable();
            let fields: Vec<_> = object.as_object().unwrap().keys().collect();
            assert_eq!(fields, described);
        }
    }
}

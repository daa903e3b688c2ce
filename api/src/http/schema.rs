//! Schemas of the OpenAPI document that cannot be derived: the order, whose rules live in `shared`,
//! and the problem.

use poem_openapi::registry::{
    MetaHeader, MetaMediaType, MetaResponse, MetaSchema, MetaSchemaRef, Registry,
};
use serde_json::json;
use shared::order::{Entity, Field, Order};
use strum::IntoEnumIterator;

use super::problem::{self, Problem};

const PROBLEM: &str = "Problem";

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
    let codes = Problem::iter()
        .map(|problem| json!(problem.code()))
        .collect();
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
                .map(|field| (field.name, property(field)))
                .collect(),
            example: Some(entity.example()),
            ..MetaSchema::new("object")
        }
    });
}

fn property(of: &'static Field) -> MetaSchemaRef {
    let nested = of
        .rule
        .entity()
        .map(|entity| MetaSchemaRef::Reference(entity.name.to_owned()));
    match (nested, of.rule.min_items()) {
        (None, _) => text(field(of)),
        (Some(entity), None) => entity,
        (Some(entity), Some(_)) => text(MetaSchema {
            items: Some(Box::new(entity)),
            ..field(of)
        }),
    }
}

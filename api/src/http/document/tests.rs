use serde_json::{Map, Value};
use strum::IntoEnumIterator;

use super::{super::problem::Problem, *};

/// Clients are generated with these names, so they never change.
const OPERATION_IDS: &[(&str, &str, &str)] = &[
    ("/order/{order_uid}", "get", "getOrder"),
    ("/orders", "get", "listOrders"),
    ("/order/{order_uid}/events", "get", "watchOrder"),
    ("/orders/events", "get", "watchOrders"),
    ("/orders/batch-get", "post", "batchGetOrders"),
    ("/orders/export", "get", "exportOrders"),
];

/// An operation of the document.
struct Operation {
    path: String,
    method: String,
    operation: Value,
}

impl Operation {
    fn responses(&self) -> impl Iterator<Item = (u16, &Value)> {
        fields(&self.operation["responses"])
            .iter()
            .map(|(status, response)| (status.parse().unwrap(), response))
    }

    fn name(&self) -> String {
        format!("{} {}", self.method, self.path)
    }
}

fn fields(value: &Value) -> &Map<String, Value> {
    value.as_object().unwrap()
}

fn document() -> Value {
    serde_json::from_str(&render().json).unwrap()
}

fn operations() -> Vec<Operation> {
    let document = document();
    let paths = fields(&document["paths"]).iter();
    let operations = paths.flat_map(|(path, methods)| {
        fields(methods).iter().map(|(method, operation)| Operation {
            path: path.clone(),
            method: method.clone(),
            operation: operation.clone(),
        })
    });
    operations.collect()
}

#[track_caller]
fn assert_text(value: &Value, of: &str) {
    let text = value.as_str().unwrap_or_default();
    assert!(!text.trim().is_empty(), "{of} needs a text");
}

/// The document is part of the contract, so each change must be visible in a review. To renew it
/// after an intended change: `cargo run -p api -- openapi > api/openapi.json`.
#[test]
fn openapi_json_is_up_to_date() {
    let golden = include_str!("../../../openapi.json");
    assert!(
        golden == render().json,
        "api/openapi.json differs from the document; \
         run `cargo run -p api -- openapi > api/openapi.json`"
    );
}

#[test]
fn the_pages_show_the_same_document() {
    let Documentation {
        swagger_ui,
        json,
        yaml,
    } = render();
    assert!(swagger_ui.contains(&json));
    let from_yaml: Value = serde_yaml::from_str(&yaml).unwrap();
    assert_eq!(from_yaml, document());
}

#[test]
fn each_operation_has_its_id_and_texts() {
    let operations = operations();
    assert!(operations.len() >= 2);
    for of in operations {
        let (name, operation) = (of.name(), &of.operation);
        let id = OPERATION_IDS
            .iter()
            .find(|(path, method, _)| *path == of.path && *method == of.method)
            .map(|(_, _, id)| *id);
        assert_eq!(operation["operationId"].as_str(), id, "{name}");
        assert_text(&operation["summary"], &name);
        assert_text(&operation["description"], &name);
        assert_eq!(
            operation["tags"].as_array().map(Vec::len),
            Some(1),
            "{name}"
        );
        for parameter in operation["parameters"].as_array().unwrap_or(&Vec::new()) {
            assert_text(&parameter["description"], &format!("a parameter of {name}"));
            assert!(parameter["schema"]["type"].is_string(), "{name}");
        }
    }
}

#[test]
fn each_operation_describes_every_response() {
    for of in operations() {
        let name = of.name();
        let statuses: Vec<u16> = of.responses().map(|(status, _)| status).collect();
        let mut expected = vec![400, 401, 403, 429, 431, 500, 503];
        if of.operation["requestBody"].is_object() {
            expected.extend([408, 413, 415]);
        }
        for status in expected {
            assert!(statuses.contains(&status), "{name} needs {status}");
        }
        assert!(statuses.contains(&200), "{name}");
        for (status, response) in of.responses() {
            let name = format!("{status} of {name}");
            assert_text(&response["description"], &name);
            let mut headers = vec!["X-Request-Id"];
            match status {
                401 => headers.push("WWW-Authenticate"),
                429 | 503 => headers.push("Retry-After"),
                _ => {}
            }
            for header in headers {
                let described = &response["headers"][header];
                assert_eq!(described["required"], true, "{header} of {name}");
                assert_text(&described["description"], &name);
            }
            if status == 304 {
                assert!(response["content"].is_null(), "{name}");
                continue;
            }
            for (media_type, content) in fields(&response["content"]) {
                assert!(content["schema"].is_object(), "{media_type} of {name}");
            }
        }
    }
}

#[test]
fn each_error_has_examples_of_its_status() {
    for of in operations() {
        for (status, response) in of.responses().filter(|(status, _)| *status >= 400) {
            let name = format!("{status} of {}", of.name());
            let content = &response["content"]["application/problem+json"];
            assert_eq!(content["schema"]["$ref"], "#/components/schemas/Problem");
            let examples = fields(&content["examples"]);
            assert!(
                !examples.is_empty(),
                "{name}: its description names no code"
            );
            for (code, example) in examples {
                assert_eq!(example["value"]["status"], status, "{code} of {name}");
                assert_text(&example["value"]["detail"], &name);
            }
        }
    }
}

/// The query is checked before the operation runs.
#[test]
fn each_operation_rejects_unknown_and_repeated_parameters() {
    for of in operations() {
        let name = of.name();
        let parameters = of.operation["parameters"].as_array();
        let has_query = parameters
            .into_iter()
            .flatten()
            .any(|parameter| parameter["in"] == "query");
        let (_, malformed) = of.responses().find(|(status, _)| *status == 400).unwrap();
        let examples = &malformed["content"]["application/problem+json"]["examples"];
        assert!(examples["bad_request"].is_object(), "{name}");
        assert!(examples["unknown_parameter"].is_object(), "{name}");
        assert_eq!(
            examples["repeated_parameter"].is_object(),
            has_query,
            "{name}"
        );
    }
}

#[test]
fn examples_of_problems_are_those_of_the_operation() {
    for of in operations() {
        let name = of.name();
        let (_, malformed) = of.responses().find(|(status, _)| *status == 400).unwrap();
        let examples = &malformed["content"]["application/problem+json"]["examples"];
        let subjects = ["bad_request", "malformed_uid"].map(|code| {
            let detail = examples[code]["value"]["detail"].as_str();
            detail.and_then(|detail| detail.split([' ', '[']).next())
        });
        let expected = match of.operation["operationId"].as_str().unwrap() {
            "getOrder" => [Some("nocache"), Some("The")],
            "batchGetOrders" => [Some("order_uids"); 2],
            "listOrders" | "exportOrders" => [Some("phone"), None],
            "watchOrder" => [Some("The"); 2],
            _ => [Some("The"), None],
        };
        assert_eq!(subjects, expected, "{name}");
    }
}

/// A code that no text mentions cannot be found by a reader.
#[test]
fn each_code_is_described() {
    let document = document();
    let descriptions = operations()
        .iter()
        .flat_map(|of| {
            of.responses()
                .map(|(_, response)| response.to_string())
                .collect::<Vec<_>>()
        })
        .chain([document["info"]["description"].to_string()])
        .collect::<String>();
    for problem in Problem::iter() {
        let code = format!("`{}`", problem.code());
        assert!(descriptions.contains(&code), "no description has {code}");
    }
}

/// Generators make up a name for each part of an `allOf`.
#[test]
fn no_schema_is_combined() {
    let json = render().json;
    for keyword in ["\"allOf\"", "\"anyOf\"", "\"oneOf\""] {
        assert!(!json.contains(keyword), "{keyword}");
    }
}

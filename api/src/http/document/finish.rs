//! Changes to the document that poem-openapi's registry cannot express.

use serde_yaml::{Mapping, Value};
use strum::IntoEnumIterator;

use super::super::problem::{self, Problem};
use crate::auth::Scope;

/// Parses the JSON text of the registry and completes it. The result keeps the order of all fields.
pub(super) fn finish(registry: &str) -> Value {
    // The registry writes valid JSON. The golden file would show an empty document.
    let mut document = serde_json::from_str(registry).unwrap_or_default();
    tidy(&mut document);
    add_examples(&mut document);
    close_request_bodies(&mut document);
    document
}

/// States that a request body has no other fields: the api rejects them.
fn close_request_bodies(document: &mut Value) {
    const SUFFIX: &str = "Request";

    let components = document.get_mut("components");
    let schemas = components.and_then(|components| components.get_mut("schemas")?.as_mapping_mut());
    for (name, schema) in schemas.into_iter().flatten() {
        if name.as_str().is_some_and(|name| name.ends_with(SUFFIX))
            && let Some(schema) = schema.as_mapping_mut()
        {
            schema.insert("additionalProperties".into(), false.into());
        }
    }
}

/// Writes limits of whole numbers without a fraction, and omits what has no meaning.
///
/// poem-openapi keeps limits as floating-point numbers and writes `1.0`, which client generators
/// take for a fractional limit. `explode` has no meaning for parameters that are no lists.
fn tidy(value: &mut Value) {
    match value {
        Value::Mapping(map) => {
            map.retain(|key, value| {
                !(key == "deprecated" && *value == false || key == "explode" && *value == true)
            });
            for (key, value) in map.iter_mut() {
                match key.as_str() {
                    Some("minimum" | "maximum") => *value = whole(value),
                    // Data, not part of the document's own structure.
                    Some("example" | "default" | "enum") => {}
                    _ => tidy(value),
                }
            }
        }
        Value::Sequence(list) => list.iter_mut().for_each(tidy),
        _ => {}
    }
}

fn whole(limit: &Value) -> Value {
    match limit.as_f64() {
        // All our limits fit.
        Some(number) if number.fract() == 0.0 => Value::from(number as i64),
        _ => limit.clone(),
    }
}

fn add_examples(document: &mut Value) {
    for path in fields(document.get_mut("paths")) {
        for operation in fields(Some(path)) {
            let texts = Texts::of(operation);
            for response in fields(operation.get_mut("responses")) {
                add_examples_to(response, texts);
            }
        }
    }
}

/// Details of the problems whose text depends on the operation, as its requests get them.
#[derive(Clone, Copy)]
struct Texts {
    bad_request: &'static str,
    /// `None` if the path has the uid.
    malformed_uid: Option<&'static str>,
}

impl Texts {
    fn of(operation: &Value) -> Self {
        let parameters = operation["parameters"].as_sequence();
        let has = |name| parameters.is_some_and(|all| all.iter().any(|one| one["name"] == name));
        if operation["requestBody"].is_mapping() {
            return Self {
                bad_request: "order_uids has 101 elements; write 1 to 100.",
                malformed_uid: Some(
                    "order_uids[1] is not an order uid; write 1 to 64 of A-Z a-z 0-9 _ -.",
                ),
            };
        }
        let bad_request = if has("nocache") {
            "nocache is not 0 or 1; write nocache=1 or omit it."
        } else if has("phone") {
            "phone is not an E.164 number; write + as %2B: phone=%2B9720000000."
        } else {
            "The query is not UTF-8; percent-encode names and values as UTF-8."
        };
        Self {
            bad_request,
            malformed_uid: None,
        }
    }
}

fn fields(value: Option<&mut Value>) -> Vec<&mut Value> {
    let map = value.and_then(Value::as_mapping_mut);
    map.into_iter().flat_map(Mapping::values_mut).collect()
}

/// Adds an example for each problem whose code the description of `response` has in backticks.
fn add_examples_to(response: &mut Value, texts: Texts) {
    let description = response["description"].as_str().unwrap_or_default();
    let examples: Mapping = description
        .split('`')
        .filter_map(|code| Problem::iter().find(|problem| problem.code() == code))
        .filter_map(|problem| {
            let problem = match problem {
                Problem::Forbidden(_) => Problem::Forbidden(scope_in(description)),
                other => other,
            };
            let mut details = serde_yaml::to_value(problem.details()).ok()?;
            let detail = match problem {
                Problem::BadRequest(_) => Some(texts.bad_request),
                Problem::MalformedUid => texts.malformed_uid,
                _ => None,
            };
            if let Some(detail) = detail {
                details["detail"] = detail.into();
            }
            let mut example = Mapping::new();
            example.insert("summary".into(), details["title"].clone());
            example.insert("value".into(), details);
            Some((problem.code().into(), example.into()))
        })
        .collect();
    let content = response
        .get_mut("content")
        .and_then(|content| content.get_mut(problem::CONTENT_TYPE)?.as_mapping_mut());
    if let Some(content) = content {
        content.insert("examples".into(), examples.into());
    }
}

/// The scope that the description of a response names.
fn scope_in(description: &str) -> Scope {
    let named = |scope: &Scope| description.contains(<&str>::from(scope));
    Scope::iter().find(named).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_of_integers_are_integers() {
        let document = finish(
            r#"{"a": [{"minimum": 1.0, "maximum": 99.5}], "example": {"minimum": 1.0},
                "deprecated": false, "explode": true, "required": false}"#,
        );
        assert_eq!(
            serde_json::to_string(&document).unwrap(),
            r#"{"a":[{"minimum":1,"maximum":99.5}],"example":{"minimum":1.0},"required":false}"#
        );
    }

    #[test]
    fn a_problem_has_an_example_for_each_of_its_codes() {
        let document = finish(
            r#"{"paths": {"/": {"get": {"responses": {"503": {
                "description": "Down (`unavailable`, `timeout`, `nocache`).",
                "content": {"application/problem+json": {}}}}}}}}"#,
        );
        let response = &document["paths"]["/"]["get"]["responses"]["503"];
        let examples = &response["content"]["application/problem+json"]["examples"];
        let codes: Vec<_> = examples.as_mapping().unwrap().keys().collect();
        assert_eq!(codes, ["unavailable", "timeout"]);
        assert_eq!(examples["timeout"]["value"]["status"], 503);
    }

    #[test]
    fn the_example_of_a_missing_scope_names_it() {
        let document = finish(
            r#"{"paths": {"/": {"get": {"responses": {"403": {
                "description": "Lacks `orders:list` (`forbidden`).",
                "content": {"application/problem+json": {}}}}}}}}"#,
        );
        let response = &document["paths"]["/"]["get"]["responses"]["403"];
        let examples = &response["content"]["application/problem+json"]["examples"];
        let detail = examples["forbidden"]["value"]["detail"].as_str().unwrap();
        assert!(detail.contains("orders:list"), "{detail}");
    }
}

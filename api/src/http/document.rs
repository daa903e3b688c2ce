//! The OpenAPI document, generated from the routes.

use std::collections::HashMap;

use poem::{endpoint::BoxEndpoint, http::Method};
use poem_openapi::{
    LicenseObject, OpenApi, OpenApiService,
    registry::{MetaApi, Registry},
};

use super::orders::OrdersApi;

const DESCRIPTION: &str = "Looks orders up, from a local cache, Redis or Postgres, whichever knows first.\n\n\
    Errors are problem details (RFC 9457, `application/problem+json`) with a stable `code`. Every answer has the request's \
    `X-Request-Id`, or one of ours where it had none.";

/// The order routes without their dependencies, for the description only.
struct Described;

impl OpenApi for Described {
    fn meta() -> Vec<MetaApi> {
        OrdersApi::meta()
    }

    fn register(registry: &mut Registry) {
        OrdersApi::register(registry);
    }

    /// Adds no routes: the document only needs their description.
    fn add_routes(self, _: &mut HashMap<String, HashMap<Method, BoxEndpoint<'static>>>) {}
}

fn service() -> OpenApiService<Described, ()> {
    OpenApiService::new(Described, "Order service", env!("CARGO_PKG_VERSION"))
        .description(DESCRIPTION)
        .license(LicenseObject::new("MIT"))
        .server("/")
}

/// Writes limits of whole numbers without a fraction. poem-openapi keeps limits as floating-point
/// numbers and writes `1.0`, which client generators take for a fractional limit.
fn whole_limits(document: &str) -> String {
    let is_limit = |line: &str| {
        let key = line.trim_start().trim_start_matches('"');
        key.starts_with("minimum") || key.starts_with("maximum")
    };
    let line = |line: &str| {
        if is_limit(line) {
            line.replace(".0", "")
        } else {
            line.to_owned()
        }
    };
    document.lines().map(|text| line(text) + "\n").collect()
}

/// Returns the document as JSON, with a line feed at the end.
pub(crate) fn json() -> String {
    whole_limits(&service().spec())
}

/// Returns the document as YAML.
pub(crate) fn yaml() -> String {
    whole_limits(&service().spec_yaml())
}

/// Returns the Swagger UI page with the document embedded.
pub(crate) fn swagger_ui() -> String {
    let page = service().swagger_ui_html();
    page.replace(
        "<title>Swagger UI</title>",
        "<title>Order service: API</title>",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The document is part of the contract, so each change must be visible in a review. To renew
    /// it after an intended change: `cargo run -p api -- openapi > api/openapi.json`.
    #[test]
    fn is_the_one_in_openapi_json() {
        let golden = include_str!("../../openapi.json");
        assert!(
            golden == json(),
            "api/openapi.json is not the document; renew it by `cargo run -p api -- openapi > api/openapi.json`"
        );
    }

    #[test]
    fn limits_of_whole_numbers_are_whole() {
        for document in [json(), yaml()] {
            assert!(!document.contains("imum\": 1.0") && !document.contains("imum: 1.0"));
        }
        assert_eq!(
            whole_limits("  \"minimum\": 1.0,\n  maximum: 100.0\n  x: 1.0"),
            "  \"minimum\": 1,\n  maximum: 100\n  x: 1.0\n"
        );
    }
}

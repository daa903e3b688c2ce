//! The OpenAPI document, generated from the route table.

use std::collections::HashMap;

use poem::{endpoint::BoxEndpoint, http::Method};
use poem_openapi::{
    LicenseObject, OpenApi, OpenApiService,
    registry::{MetaApi, MetaSecurityScheme, Registry},
};

use super::{
    pages::Documentation,
    route::{Description, Handler, Route},
    routes::ROUTES,
};

const DESCRIPTION: &str = "Finds orders in a local cache, Redis or Postgres.\n\n\
    Errors are problem details (RFC 9457, `application/problem+json`) with a stable `code`. \
    Every response has an `X-Request-Id`: that of the request, or a new one.";

/// Name of the security scheme of API keys.
const API_KEY: &str = "api_key";

/// The operations of the route table, for the description only.
struct Described;

impl Described {
    fn operations() -> impl Iterator<Item = (&'static Route, &'static Description)> {
        ROUTES.iter().filter_map(|route| match &route.handler {
            Handler::Operation { description, .. } => Some((route, description)),
            Handler::Page(_) => None,
        })
    }
}

impl OpenApi for Described {
    /// Describes the operations. Those with a scope need an API key, unless the operator configured
    /// none; the document has no conditions, so it lists both.
    fn meta() -> Vec<MetaApi> {
        let described = Self::operations().flat_map(|(route, description)| {
            let mut apis = (description.meta)();
            let operations = apis.iter_mut().flat_map(|api| &mut api.paths);
            let operations = operations.flat_map(|path| &mut path.operations);
            if route.scope.is_some() {
                operations.for_each(|operation| {
                    operation.security = vec![HashMap::from([(API_KEY, vec![])]), HashMap::new()];
                });
            }
            apis
        });
        described.collect()
    }

    fn register(registry: &mut Registry) {
        let key = MetaSecurityScheme {
            ty: "http",
            description: Some(
                "An API key with the scope `orders:read`. \
                 Needed if the operator set `API_KEYS_FILE`.",
            ),
            name: None,
            key_in: None,
            scheme: Some("bearer"),
            bearer_format: None,
            flows: None,
            openid_connect_url: None,
        };
        registry.create_security_scheme(API_KEY, key);
        Self::operations().for_each(|(_, description)| (description.register)(registry));
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

/// Returns the document in every form.
pub(super) fn render() -> Documentation {
    let service = service();
    Documentation {
        swagger_ui: service.swagger_ui_html().replace(
            "<title>Swagger UI</title>",
            "<title>Order service: API</title>",
        ),
        // With a line feed at the end.
        json: whole_limits(&service.spec()),
        yaml: whole_limits(&service.spec_yaml()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The document is part of the contract, so each change must be visible in a review. To renew
    /// it after an intended change: `cargo run -p api -- openapi > api/openapi.json`.
    #[test]
    fn openapi_json_is_up_to_date() {
        let golden = include_str!("../../openapi.json");
        assert!(
            golden == render().json,
            "api/openapi.json differs from the document; \
             run `cargo run -p api -- openapi > api/openapi.json`"
        );
    }

    #[test]
    fn integer_limits_are_integers() {
        let Documentation { json, yaml, .. } = render();
        for document in [json, yaml] {
            assert!(!document.contains("imum\": 1.0") && !document.contains("imum: 1.0"));
        }
        assert_eq!(
            whole_limits("  \"minimum\": 1.0,\n  maximum: 100.0\n  x: 1.0"),
            "  \"minimum\": 1,\n  maximum: 100\n  x: 1.0\n"
        );
    }
}

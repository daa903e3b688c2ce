//! The OpenAPI document, generated from the route table.
//!
//! | module | responsibility |
//! |---|---|
//! | `mod` | the service and its operations |
//! | `completion` | what every operation has in common: request id, authorisation, usual errors |
//! | `finish` | what poem-openapi's registry cannot express |

mod completion;
mod finish;

use std::collections::HashMap;

use poem::{endpoint::BoxEndpoint, http::Method};
use poem_openapi::{
    ContactObject, LicenseObject, OpenApi, OpenApiService,
    registry::{MetaApi, MetaSecurityScheme, Registry},
};

use super::{
    pages::Documentation,
    route::{Description, Handler, Route},
    routes::ROUTES,
    schema,
};

const DESCRIPTION: &str = "Finds orders in a local cache, Redis or Postgres.\n\n\
    **Errors** are problem details (RFC 9457, `application/problem+json`) with a stable `code`, \
    on which programs may depend. A path without a route is 404 `not_found`. A method that a path \
    does not answer is 405 `method_not_allowed`, with `Allow`. `HEAD` returns the headers of `GET` \
    without a body. While the api does not know the keys of the OpenID Connect issuer, a request \
    with one of its tokens is 503 `issuer_unavailable`.\n\n\
    **Request ids**: every response has an `X-Request-Id`, that of the request or a new one. Quote \
    it when you report a problem.\n\n\
    **Integers** of format `int64` may exceed 2^53. `JSON.parse` of JavaScript rounds such values; \
    use a parser that returns `BigInt`, such as `lossless-json`.";

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
    fn meta() -> Vec<MetaApi> {
        let described = Self::operations().flat_map(|(route, description)| {
            let mut apis = (description.meta)();
            let paths = apis.iter_mut().flat_map(|api| &mut api.paths);
            for operation in paths.flat_map(|path| &mut path.operations) {
                completion::complete(operation, route);
            }
            apis
        });
        described.collect()
    }

    fn register(registry: &mut Registry) {
        let key = MetaSecurityScheme {
            ty: "http",
            description: Some(
                "The token of an API key, or of OpenID Connect, with the scope of the operation: \
                 `orders:read` for orders by their uid, `orders:list` for lists, exports and the \
                 changes of all orders. Needed where the operator configured keys or an issuer.",
            ),
            name: None,
            key_in: None,
            scheme: Some("bearer"),
            bearer_format: None,
            flows: None,
            openid_connect_url: None,
        };
        registry.create_security_scheme(API_KEY, key);
        schema::register_problem(registry);
        Self::operations().for_each(|(_, description)| (description.register)(registry));
    }

    /// Adds no routes: the document only needs their description.
    fn add_routes(self, _: &mut HashMap<String, HashMap<Method, BoxEndpoint<'static>>>) {}
}

fn service() -> OpenApiService<Described, ()> {
    OpenApiService::new(Described, "Order service", env!("CARGO_PKG_VERSION"))
        .description(DESCRIPTION)
        .contact(ContactObject::new().name("The operator of this service"))
        .license(LicenseObject::new("MIT").url("https://opensource.org/license/mit"))
        .server("/")
}

/// Returns the document in every form.
pub(super) fn render() -> Documentation {
    let service = service();
    let unfinished = service.spec();
    let document = finish::finish(&unfinished);
    // Text and numbers: serialization cannot fail. With a line feed at the end.
    let json = serde_json::to_string_pretty(&document).unwrap_or_default() + "\n";
    let yaml = serde_yaml::to_string(&document).unwrap_or_default();
    Documentation {
        swagger_ui: service
            .swagger_ui_html()
            .replace(
                "<title>Swagger UI</title>",
                "<title>Order service: API</title>",
            )
            .replace(&unfinished, &json),
        json,
        yaml,
    }
}

#[cfg(test)]
mod tests;

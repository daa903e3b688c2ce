//! The routes of the public port.

use crate::auth::Scope;

/// The route of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Route {
    Order,
    Orders,
    Page,
    Asset,
    Docs,
    OpenApiJson,
    OpenApiYaml,
    Unmatched,
}

/// Prefix of the path of an order.
pub(crate) const ORDER_PREFIX: &str = "/order/";

impl Route {
    /// All routes. The position of each is its number.
    pub(crate) const ALL: [Self; 8] = [
        Self::Order,
        Self::Orders,
        Self::Page,
        Self::Asset,
        Self::Docs,
        Self::OpenApiJson,
        Self::OpenApiYaml,
        Self::Unmatched,
    ];

    /// Returns the route of `path`.
    pub(crate) fn of(path: &str) -> Self {
        if let Some(uid) = path.strip_prefix(ORDER_PREFIX) {
            return if uid.is_empty() || uid.as_bytes().contains(&b'/') {
                Self::Unmatched
            } else {
                Self::Order
            };
        }
        match path {
            "/orders" => Self::Orders,
            "/" => Self::Page,
            "/docs" => Self::Docs,
            "/openapi.json" => Self::OpenApiJson,
            "/openapi.yaml" => Self::OpenApiYaml,
            _ if path.starts_with("/assets/") => Self::Asset,
            _ => Self::Unmatched,
        }
    }

    /// Name of the route in metrics and traces. Never the path itself, because there is one per
    /// order.
    pub(crate) const fn template(self) -> &'static str {
        match self {
            Self::Order => "/order/{order_uid}",
            Self::Orders => "/orders",
            Self::Page => "/",
            Self::Asset => "/assets/{name}",
            Self::Docs => "/docs",
            Self::OpenApiJson => "/openapi.json",
            Self::OpenApiYaml => "/openapi.yaml",
            Self::Unmatched => "unmatched",
        }
    }

    /// The scope that a caller needs; `None` for public routes.
    pub(crate) const fn scope(self) -> Option<Scope> {
        match self {
            Self::Order | Self::Orders => Some(Scope::OrdersRead),
            Self::Page
            | Self::Asset
            | Self::Docs
            | Self::OpenApiJson
            | Self::OpenApiYaml
            | Self::Unmatched => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_lead_to_their_routes() {
        for (path, route) in [
            ("/order/b563feb7b2b84b6test", Route::Order),
            ("/order/not%20a%20uid", Route::Order),
            ("/order/", Route::Unmatched),
            ("/order", Route::Unmatched),
            ("/order/a/b", Route::Unmatched),
            ("/orders", Route::Orders),
            ("/orders/", Route::Unmatched),
            ("/", Route::Page),
            ("/assets/app.js", Route::Asset),
            ("/docs", Route::Docs),
            ("/openapi.json", Route::OpenApiJson),
            ("/openapi.yaml", Route::OpenApiYaml),
            ("/metrics", Route::Unmatched),
            ("", Route::Unmatched),
        ] {
            assert_eq!(Route::of(path), route, "{path}");
        }
    }

    #[test]
    fn a_route_is_numbered_by_its_place() {
        for (place, route) in Route::ALL.into_iter().enumerate() {
            assert_eq!(route as usize, place);
        }
    }
}

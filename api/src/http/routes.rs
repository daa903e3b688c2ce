//! The route table. A new route is one entry here and its handler.

use poem::{EndpointExt, http::Method};

use super::{
    orders::{BatchGetOrders, ExportOrders, GetOrder, ListOrders, WatchOrder, WatchOrders},
    pages::{Assets, Page, WhoCalls},
    route::{Access, Cost, Handler, Route},
};
use crate::auth::Scope;

/// All routes of the public port. The first one whose path matches answers, so the busiest comes
/// first.
pub(super) static ROUTES: &[Route] = &[
    Route {
        path: "/order/{order_uid}",
        method: Method::GET,
        access: Access::With(Scope::OrdersRead),
        cost: Cost::Lookup {
            cached: 1,
            current: 10,
        },
        handler: Handler::operation::<GetOrder>(),
    },
    Route {
        path: "/orders",
        method: Method::GET,
        access: Access::With(Scope::OrdersList),
        cost: Cost::Fixed(10),
        handler: Handler::operation::<ListOrders>(),
    },
    Route {
        path: "/order/{order_uid}/events",
        method: Method::GET,
        access: Access::With(Scope::OrdersRead),
        cost: Cost::Fixed(1),
        handler: Handler::operation::<WatchOrder>(),
    },
    Route {
        path: "/orders/events",
        method: Method::GET,
        access: Access::With(Scope::OrdersList),
        cost: Cost::Fixed(1),
        handler: Handler::operation::<WatchOrders>(),
    },
    Route {
        path: "/orders/export",
        method: Method::GET,
        access: Access::With(Scope::OrdersList),
        // Many pages. It takes the rate of a second where the limit is lower.
        cost: Cost::Fixed(100),
        handler: Handler::operation::<ExportOrders>(),
    },
    Route {
        path: "/orders/batch-get",
        method: Method::POST,
        access: Access::With(Scope::OrdersRead),
        // Up to 100 lookups, without the work of as many requests.
        cost: Cost::Fixed(10),
        handler: Handler::operation::<BatchGetOrders>(),
    },
    Route {
        path: "/caller",
        method: Method::GET,
        access: Access::AnyCaller,
        cost: Cost::Fixed(1),
        handler: Handler::Page(|_| WhoCalls.boxed()),
    },
    // Free: the page loads many small files, and counted they would leave nothing for its requests.
    Route {
        path: "/",
        method: Method::GET,
        access: Access::Anyone,
        cost: Cost::Fixed(0),
        handler: Handler::Page(|_| Assets.boxed()),
    },
    Route {
        path: "/assets/{name}",
        method: Method::GET,
        access: Access::Anyone,
        cost: Cost::Fixed(0),
        handler: Handler::Page(|_| Assets.boxed()),
    },
    Route {
        path: "/docs",
        method: Method::GET,
        access: Access::Anyone,
        cost: Cost::Fixed(1),
        handler: Handler::Page(|resources| {
            Page::swagger_ui(&resources.documentation.swagger_ui).boxed()
        }),
    },
    Route {
        path: "/openapi.json",
        method: Method::GET,
        access: Access::Anyone,
        cost: Cost::Fixed(1),
        handler: Handler::Page(|resources| Page::json(&resources.documentation.json).boxed()),
    },
    Route {
        path: "/openapi.yaml",
        method: Method::GET,
        access: Access::Anyone,
        cost: Cost::Fixed(1),
        handler: Handler::Page(|resources| Page::yaml(&resources.documentation.yaml).boxed()),
    },
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use poem_openapi::registry::MetaApi;

    use super::*;

    /// A caller without a key must not reach an operation, and the document must describe each
    /// operation under the path and the method that the table has.
    #[test]
    fn operations_are_described_under_their_route_and_need_a_scope() {
        for route in ROUTES {
            let Handler::Operation { description, .. } = &route.handler else {
                continue;
            };
            let described: Vec<_> = (description.meta)()
                .into_iter()
                .flat_map(|MetaApi { paths }| paths)
                .flat_map(|path| {
                    path.operations
                        .into_iter()
                        .map(move |of| (path.path.clone(), of.method))
                })
                .collect();
            assert_eq!(described, [(route.path.to_owned(), route.method.clone())]);
            assert!(
                matches!(route.access, Access::With(_)),
                "{}: an operation needs a scope",
                route.path
            );
        }
    }

    #[test]
    fn each_path_has_one_route() {
        let paths: BTreeSet<_> = ROUTES.iter().map(|route| route.path).collect();
        assert_eq!(paths.len(), ROUTES.len());
    }

    /// The router would take a second parameter for plain text.
    #[test]
    fn each_path_has_at_most_one_parameter() {
        for route in ROUTES {
            assert!(route.path.matches('{').count() <= 1, "{}", route.path);
        }
    }
}

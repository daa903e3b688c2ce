//! What a route of the public port consists of. [`routes`](super::routes) lists them.

use std::collections::HashMap;

use poem::{
    endpoint::BoxEndpoint,
    http::{Method, Uri},
};
use poem_openapi::{
    OpenApi,
    registry::{MetaApi, Registry},
};

use super::{pages::Documentation, query::pairs};
use crate::{auth::Scope, events::Events, lookup::Lookup};

/// One route of the public port. Each path has one route, so it answers one method.
pub(super) struct Route {
    /// Template of its paths, and its name in metrics and traces. One segment may be a parameter,
    /// in braces.
    pub(super) path: &'static str,
    /// The method that it answers, besides `OPTIONS`. A `GET` route also answers `HEAD`.
    pub(super) method: Method,
    /// Who may call it, if callers need credentials.
    pub(super) access: Access,
    /// What one request counts in the rate limit.
    pub(super) cost: Cost,
    /// Answers the requests. It receives the whole request: method, URI, headers, extensions, body.
    pub(super) handler: Handler,
}

/// Who may call a route, if callers need credentials.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    /// Every client.
    Anyone,
    /// Every caller with valid credentials.
    AnyCaller,
    /// Callers with this scope.
    With(Scope),
}

/// What one request counts in the rate limit, about in proportion to its work for Postgres.
pub(super) enum Cost {
    /// The same for each request.
    Fixed(u32),
    /// More for a request that reads past the caches.
    Lookup {
        /// With the caches.
        cached: u32,
        /// With `nocache`.
        current: u32,
    },
}

impl Cost {
    /// The cost of a request for `uri`.
    pub(super) fn of(&self, uri: &Uri) -> u32 {
        match *self {
            Self::Fixed(cost) => cost,
            Self::Lookup { cached, current } => match uri.query() {
                Some(query) if is_past_caches(query) => current,
                _ => cached,
            },
        }
    }
}

/// Returns whether `query` has a `nocache` that is not `0`.
fn is_past_caches(query: &str) -> bool {
    pairs(query)
        .flatten()
        .any(|(name, value)| name == "nocache" && value != "0")
}

/// What handlers are built from.
pub(super) struct Resources {
    pub(super) lookup: Lookup,
    /// `None` if the caches are disabled.
    pub(super) events: Option<Events>,
    pub(super) documentation: Documentation,
}

/// The handler of a route.
pub(super) enum Handler {
    /// An operation of the OpenAPI document.
    Operation {
        /// Builds the endpoint; `None` if the operation does not have exactly one.
        build: fn(&Resources) -> Option<BoxEndpoint<'static>>,
        /// Its part of the document.
        description: Description,
    },
    /// A page, which is not in the document.
    Page(fn(&Resources) -> BoxEndpoint<'static>),
}

/// Part of the OpenAPI document.
pub(super) struct Description {
    pub(super) meta: fn() -> Vec<MetaApi>,
    pub(super) register: fn(&mut Registry),
}

/// An operation of the OpenAPI document. The type has exactly one endpoint.
pub(super) trait Operation: OpenApi + 'static {
    fn new(resources: &Resources) -> Self;
}

impl Handler {
    /// The handler that poem-openapi generates for `O`.
    pub(super) const fn operation<O: Operation>() -> Self {
        Self::Operation {
            build: endpoint_of::<O>,
            description: Description {
                meta: O::meta,
                register: O::register,
            },
        }
    }

    /// Builds the endpoint. Returns `None` if the operation does not have exactly one.
    pub(super) fn build(&self, resources: &Resources) -> Option<BoxEndpoint<'static>> {
        match self {
            Self::Operation { build, .. } => build(resources),
            Self::Page(build) => Some(build(resources)),
        }
    }
}

/// The only endpoint of `O`. poem-openapi's own router would cost more than the lookup.
fn endpoint_of<O: Operation>(resources: &Resources) -> Option<BoxEndpoint<'static>> {
    let mut endpoints = HashMap::new();
    O::new(resources).add_routes(&mut endpoints);
    let mut endpoints = endpoints.into_values().flat_map(HashMap::into_values);
    endpoints.next().filter(|_| endpoints.next().is_none())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_read_past_the_caches_costs_more() {
        let cost = Cost::Lookup {
            cached: 1,
            current: 10,
        };
        for (query, expected) in [
            ("", 1),
            ("?nocache=0", 1),
            ("?nocache=1", 10),
            ("?%6eocache=%31", 10),
            ("?nocache=0&nocache=1", 10),
            ("?cache=1", 1),
        ] {
            let uri = format!("/order/a{query}").parse().unwrap();
            assert_eq!(cost.of(&uri), expected, "{query}");
            assert_eq!(Cost::Fixed(3).of(&uri), 3);
        }
    }
}

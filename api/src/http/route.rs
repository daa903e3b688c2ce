//! What a route of the public port consists of. [`routes`](super::routes) lists them.

use std::collections::HashMap;

use poem::{endpoint::BoxEndpoint, http::Method};
use poem_openapi::{
    OpenApi,
    registry::{MetaApi, Registry},
};

use super::pages::Documentation;
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
    pub(super) cost: u32,
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

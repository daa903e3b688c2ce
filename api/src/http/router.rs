//! Finds the route of a path.

use poem::{
    endpoint::BoxEndpoint,
    http::{HeaderValue, Method, Uri},
};

use super::{
    query::{InvalidQuery, Parameters},
    route::{Handler, Resources, Route},
};

/// The routes with their endpoints.
pub(super) struct Router {
    routes: Vec<Mounted>,
    /// `Allow` of the whole server.
    pub(super) allow: HeaderValue,
}

/// A route, ready to answer.
pub(super) struct Mounted {
    /// Its position in the table.
    pub(super) index: usize,
    pub(super) route: &'static Route,
    pub(super) endpoint: BoxEndpoint<'static>,
    /// The query parameters that it accepts; `None` for a page, which accepts any.
    parameters: Option<Parameters>,
    /// The methods that it answers, besides `OPTIONS`.
    pub(super) methods: HeaderValue,
    /// The methods that it answers.
    pub(super) allow: HeaderValue,
    pattern: Pattern,
}

impl Router {
    /// Builds the endpoints of `table`.
    ///
    /// # Errors
    /// Returns an error if an operation does not have exactly one endpoint.
    pub(super) fn new(table: &'static [Route], resources: &Resources) -> anyhow::Result<Self> {
        let routes = table.iter().enumerate().map(|(index, route)| {
            let endpoint = route.handler.build(resources).ok_or_else(|| {
                anyhow::anyhow!("the operation of {} needs exactly one endpoint", route.path)
            })?;
            let methods = methods(&[&route.method]);
            Ok(Mounted {
                index,
                route,
                endpoint,
                parameters: parameters(&route.handler),
                allow: header(&[methods.as_slice(), &["OPTIONS"]].concat()),
                methods: header(&methods),
                pattern: Pattern::parse(route.path),
            })
        });
        let all: Vec<_> = table.iter().map(|route| &route.method).collect();
        Ok(Self {
            routes: routes.collect::<anyhow::Result<_>>()?,
            allow: header(&[methods(&all).as_slice(), &["OPTIONS"]].concat()),
        })
    }

    /// Number of routes.
    pub(super) fn len(&self) -> usize {
        self.routes.len()
    }

    /// Returns the route of `path`.
    pub(super) fn find(&self, path: &str) -> Option<&Mounted> {
        self.routes
            .iter()
            .find(|mounted| mounted.pattern.matches(path))
    }
}

impl Mounted {
    /// Returns whether the route answers requests with `method`. The connection omits the body of a
    /// response to `HEAD`.
    pub(super) fn answers(&self, method: &Method) -> bool {
        *method == self.route.method
            || (*method == Method::HEAD && self.route.method == Method::GET)
    }

    /// Returns the parameter in `path`, if the route has one.
    pub(super) fn parameter<'a>(&self, path: &'a str) -> Option<&'a str> {
        self.pattern.parameter(path)
    }

    /// What a request counts in the rate limit. One that the route does not answer takes no work.
    pub(super) fn cost(&self, method: &Method, uri: &Uri) -> u32 {
        match self.answers(method) {
            true => self.route.cost.of(uri),
            false => 1,
        }
    }

    /// Checks that a query, if `uri` has one, has only parameters of the operation, each once.
    ///
    /// # Errors
    /// Returns the first violation.
    pub(super) fn check_query(&self, uri: &Uri) -> Result<(), InvalidQuery> {
        match (&self.parameters, uri.query()) {
            (Some(parameters), Some(query)) => parameters.check(query),
            (None, _) | (_, None) => Ok(()),
        }
    }
}

/// The query parameters of an operation, from its description.
fn parameters(handler: &Handler) -> Option<Parameters> {
    match handler {
        Handler::Operation { description, .. } => Some(Parameters::of(&(description.meta)())),
        Handler::Page(_) => None,
    }
}

/// The methods of routes with the methods `of`, each once.
fn methods<'a>(of: &[&'a Method]) -> Vec<&'a str> {
    let mut names = Vec::new();
    for method in of {
        let head = (**method == Method::GET).then_some("HEAD");
        for name in [Some(method.as_str()), head].into_iter().flatten() {
            if !names.contains(&name) {
                names.push(name);
            }
        }
    }
    names
}

fn header(methods: &[&str]) -> HeaderValue {
    // The name of a method is always valid in a header.
    HeaderValue::try_from(methods.join(", ")).unwrap_or(HeaderValue::from_static(""))
}

/// A parsed path template.
enum Pattern {
    /// No parameter.
    Exact(&'static str),
    /// The text before and after one parameter, which is one segment and not empty.
    Parameter {
        before: &'static str,
        after: &'static str,
    },
}

impl Pattern {
    fn parse(template: &'static str) -> Self {
        let parts = template
            .split_once('{')
            .and_then(|(before, rest)| Some((before, rest.split_once('}')?.1)));
        match parts {
            Some((before, after)) => Self::Parameter { before, after },
            None => Self::Exact(template),
        }
    }

    fn matches(&self, path: &str) -> bool {
        match self {
            Self::Exact(exact) => path == *exact,
            Self::Parameter { .. } => self.parameter(path).is_some(),
        }
    }

    /// Returns the value of the parameter.
    fn parameter<'a>(&self, path: &'a str) -> Option<&'a str> {
        let Self::Parameter { before, after } = self else {
            return None;
        };
        let segment = path.strip_prefix(before)?.strip_suffix(after)?;
        (!segment.is_empty() && !segment.as_bytes().contains(&b'/')).then_some(segment)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::routes::ROUTES;

    fn template_of(path: &str) -> Option<&'static str> {
        let found = ROUTES
            .iter()
            .find(|route| Pattern::parse(route.path).matches(path));
        found.map(|route| route.path)
    }

    #[test]
    fn a_path_leads_to_its_route() {
        for (path, template) in [
            ("/order/b563feb7b2b84b6test", Some("/order/{order_uid}")),
            ("/order/not%20a%20uid", Some("/order/{order_uid}")),
            ("/order/", None),
            ("/order", None),
            ("/order/a/b", None),
            ("/orders", Some("/orders")),
            ("/orders/", None),
            ("/", Some("/")),
            ("/assets/app.js", Some("/assets/{name}")),
            ("/assets/", None),
            ("/docs", Some("/docs")),
            ("/openapi.json", Some("/openapi.json")),
            ("/openapi.yaml", Some("/openapi.yaml")),
            ("/metrics", None),
            ("*", None),
            ("", None),
        ] {
            assert_eq!(template_of(path), template, "{path}");
        }
    }

    #[test]
    fn a_parameter_is_one_segment() {
        let events = Pattern::parse("/order/{order_uid}/events");
        for (path, matches) in [
            ("/order/a/events", true),
            ("/order/a", false),
            ("/order//events", false),
            ("/order/events", false),
            ("/order/a/b/events", false),
        ] {
            assert_eq!(events.matches(path), matches, "{path}");
            assert_eq!(events.parameter(path), matches.then_some("a"), "{path}");
        }
    }

    #[test]
    fn allowed_methods_include_head_of_get() {
        let (get, post) = (&Method::GET, &Method::POST);
        assert_eq!(methods(&[get]), ["GET", "HEAD"]);
        assert_eq!(methods(&[post]), ["POST"]);
        assert_eq!(methods(&[get, get, post]), ["GET", "HEAD", "POST"]);
    }
}

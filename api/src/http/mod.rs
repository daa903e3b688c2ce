//! HTTP: parses requests and writes responses. [`lookup`](crate::lookup) finds the orders, and
//! [`transport`](shared::runtime::transport) is the port.
//!
//! | module | responsibility |
//! |---|---|
//! | `service` | before all routes: request id, credentials, rate limit, deadline, records |
//! | `routes` | the route table: path, method, access, cost, handler |
//! | `route`, `router` | what a route consists of; finds the route of a path |
//! | `orders` | the operations on orders |
//! | `query` | the names and values of a query, and which an operation accepts |
//! | `params`, `cursor`, `accept`, `conditional` | request parameters and headers |
//! | `dto`, `csv` | response bodies |
//! | `disclosed` | the orders of a response, for the records of the service |
//! | `problem` | errors |
//! | `document`, `schema` | the OpenAPI document |
//! | `pages` | the web page and the documentation |
//! | `cors`, `request_id`, `response_headers` | their headers |
//! | `fuzz` (only for tests) | what holds for every input |

mod accept;
mod conditional;
mod cors;
mod csv;
mod cursor;
mod disclosed;
mod document;
mod dto;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod orders;
mod pages;
mod params;
mod problem;
mod query;
mod request_id;
mod response_headers;
mod route;
mod router;
mod routes;
mod schema;
mod service;

pub use service::HttpService;

/// Returns the OpenAPI document as JSON, or as YAML.
pub fn openapi(yaml: bool) -> String {
    let document = document::render();
    if yaml { document.yaml } else { document.json }
}

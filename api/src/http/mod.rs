//! HTTP: parses requests and writes responses. [`lookup`](crate::lookup) finds the orders.
//!
//! | module | responsibility |
//! |---|---|
//! | `service` | the layer before all routes: request id, keys, rate limit, deadline, metrics |
//! | `route` | maps a path to a route |
//! | `orders` | the two order routes |
//! | `params`, `cursor`, `dto` | request parameters and response bodies |
//! | `problem` | errors |
//! | `schema`, `document` | the OpenAPI document |
//! | `pages` | the web page and the documentation |
//! | `cors`, `request_id` | their headers |
//! | `server`, `connection` | the port: limits, deadlines, drain |

mod connection;
mod cors;
mod cursor;
mod document;
mod dto;
mod orders;
mod pages;
mod params;
mod problem;
mod request_id;
mod route;
mod schema;
mod server;
mod service;

pub use server::HttpServer;
pub use service::HttpService;

/// Returns the OpenAPI document as JSON, or as YAML.
pub fn openapi(yaml: bool) -> String {
    if yaml {
        document::yaml()
    } else {
        document::json()
    }
}

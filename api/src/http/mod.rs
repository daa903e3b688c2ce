//! HTTP: what a request says, and how an answer is written. Asks [`lookup`](crate::lookup) for everything else.
//!
//! | module | responsibility |
//! |---|---|
//! | `front` | the layer in front of all routes: request id, keys, rate, time limit, metrics |
//! | `route` | which path leads where |
//! | `orders` | the two order routes |
//! | `params`, `cursor`, `dto` | what goes in, what comes out |
//! | `problem` | errors |
//! | `schema`, `document` | the OpenAPI document |
//! | `pages` | the web page and the documentation |
//! | `cors`, `request_id` | their headers |
//! | `server`, `connection` | the port, and what it owes to each client |

mod connection;
mod cors;
mod cursor;
mod document;
mod dto;
mod front;
mod orders;
mod pages;
mod params;
mod problem;
mod request_id;
mod route;
mod schema;
mod server;

pub use front::Front;
pub use server::HttpServer;

/// The OpenAPI document as JSON, or as YAML.
pub fn openapi(yaml: bool) -> String {
    if yaml {
        document::yaml()
    } else {
        document::json()
    }
}

//! Request heads: `Host`, forms of the target, methods (RFC 9112, section 3.2; RFC 9110, section
//! 9.3.7).

use crate::harness::{World, order};

/// The header that every response with a body has.
const NOSNIFF: &str = "x-content-type-options";

/// Heads that every port must reject: the fault and the lines.
const MALFORMED: &[(&str, &[&str])] = &[
    ("Host is missing", &["GET {path} HTTP/1.1"]),
    (
        "Host is missing beside an absolute target",
        &["GET http://localhost{path} HTTP/1.1"],
    ),
    (
        "Host is repeated",
        &["GET {path} HTTP/1.1", "Host: a", "Host: a"],
    ),
    (
        "Host is repeated in another case",
        &["HEAD {path} HTTP/1.0", "host: a", "HOST: b"],
    ),
    ("Host has a blank", &["GET {path} HTTP/1.1", "Host: a b"]),
    (
        "Host is a URL",
        &["GET {path} HTTP/1.1", "Host: http://localhost/"],
    ),
    (
        "Host has a user",
        &["GET {path} HTTP/1.1", "Host: me@localhost"],
    ),
    (
        "the port is not a number",
        &["GET {path} HTTP/1.1", "Host: localhost:http"],
    ),
    (
        "the IPv6 address has no brackets",
        &["GET {path} HTTP/1.1", "Host: ::1"],
    ),
    (
        "the target names another host",
        &["GET http://shop.example{path} HTTP/1.1", "Host: other"],
    ),
    (
        "a space before a colon",
        &["GET {path} HTTP/1.1", "Host: a", "X-Forwarded-For : b"],
    ),
    (
        "a folded line",
        &["GET {path} HTTP/1.1", "Host: a", "X: b", " c"],
    ),
    (
        "a length beside chunks",
        &[
            "POST {path} HTTP/1.1",
            "Host: a",
            "Content-Length: 5",
            "Transfer-Encoding: chunked",
        ],
    ),
    (
        "two equal lengths",
        &[
            "POST {path} HTTP/1.1",
            "Host: a",
            "Content-Length: 0",
            "Content-Length: 0",
        ],
    ),
    (
        "an unknown coding",
        &[
            "POST {path} HTTP/1.1",
            "Host: a",
            "Transfer-Encoding: xchunked",
        ],
    ),
    ("* without OPTIONS", &["GET * HTTP/1.1", "Host: localhost"]),
    (
        "a host as target",
        &["GET localhost HTTP/1.1", "Host: localhost"],
    ),
];

/// Heads that every port must accept.
const WELL_FORMED: &[&[&str]] = &[
    &["GET {path} HTTP/1.0"],
    &["GET {path} HTTP/1.0", "Host: localhost"],
    &["GET {path} HTTP/1.1", "Host: shop.example:8080"],
    &["GET {path} HTTP/1.1", "Host: [::1]:8080"],
    &["GET {path} HTTP/1.1", "Host:"],
    &[
        "GET http://shop.example{path} HTTP/1.1",
        "Host: shop.example",
    ],
    &["HEAD {path} HTTP/1.1", "Host: localhost"],
];

fn lines(head: &[&str], path: &str) -> Vec<String> {
    head.iter()
        .map(|line| line.replace("{path}", path))
        .collect()
}

#[tokio::test]
async fn malformed_heads_are_rejected_on_both_ports() {
    let world = World::new().await;
    world.store(&order("known"), 1).await;
    let replica = world.replica().await;
    for (fault, head) in MALFORMED {
        for path in ["/order/known", "/orders", "/", "/nothing/here"] {
            let lines = lines(head, path);
            let lines: Vec<_> = lines.iter().map(String::as_str).collect();
            let answer = replica.send_head(&lines).await;
            assert_eq!(answer.status, 400, "{fault}: {answer:?}");
            assert_eq!(answer.header(NOSNIFF), Some("nosniff"), "{fault}");
            if !lines[0].starts_with("HEAD") {
                answer.assert_problem(400, "bad_request");
            }
        }
        let lines = lines(head, "/livez");
        let lines: Vec<_> = lines.iter().map(String::as_str).collect();
        let answer = replica.send_admin_head(&lines).await;
        assert_eq!(answer.status, 400, "admin, {fault}: {answer:?}");
        assert_eq!(answer.header(NOSNIFF), Some("nosniff"), "admin, {fault}");
    }
}

#[tokio::test]
async fn well_formed_heads_are_accepted_on_both_ports() {
    let world = World::new().await;
    let known = order("known");
    world.store(&known, 1).await;
    let replica = world.replica().await;
    for head in WELL_FORMED {
        let order_lines = lines(head, "/order/known");
        let order_lines: Vec<_> = order_lines.iter().map(String::as_str).collect();
        let answer = replica.send_head(&order_lines).await;
        assert_eq!(answer.status, 200, "{order_lines:?}");
        if !order_lines[0].starts_with("HEAD") {
            assert_eq!(answer.body, known.to_json(), "{order_lines:?}");
        }
        let probe = lines(head, "/livez");
        let probe: Vec<_> = probe.iter().map(String::as_str).collect();
        assert_eq!(
            replica.send_admin_head(&probe).await.status,
            200,
            "{probe:?}"
        );
    }
}

#[tokio::test]
async fn options_lists_the_methods_on_both_ports() {
    let world = World::new().await;
    let replica = world.replica().await;
    for (target, methods) in [
        ("*", "GET, HEAD, POST, OPTIONS"),
        ("http://localhost", "GET, HEAD, OPTIONS"),
        ("/order/any", "GET, HEAD, OPTIONS"),
        ("/orders", "GET, HEAD, OPTIONS"),
        ("/orders/batch-get", "POST, OPTIONS"),
        ("/", "GET, HEAD, OPTIONS"),
    ] {
        let line = format!("OPTIONS {target} HTTP/1.1");
        let answer = replica.send_head(&[&line, "Host: localhost"]).await;
        let allow = answer.header("allow");
        assert_eq!((answer.status, allow), (204, Some(methods)), "{target}");
    }
    let nothing = replica
        .send_head(&["OPTIONS /nothing HTTP/1.1", "Host: a"])
        .await;
    nothing.assert_problem(404, "not_found");

    for target in ["*", "/livez", "/readyz", "/metrics"] {
        let line = format!("OPTIONS {target} HTTP/1.1");
        let answer = replica.send_admin_head(&[&line, "Host: localhost"]).await;
        let allow = answer.header("allow");
        assert_eq!(
            (answer.status, allow),
            (204, Some("GET, HEAD, OPTIONS")),
            "{target}"
        );
        assert!(answer.body.is_empty());
    }
    let put = replica
        .send_admin_head(&["DELETE /livez HTTP/1.1", "Host: a"])
        .await;
    assert_eq!(
        (put.status, put.header("allow")),
        (405, Some("GET, HEAD, OPTIONS"))
    );
    let nothing = replica
        .send_admin_head(&["OPTIONS /nothing HTTP/1.1", "Host: a"])
        .await;
    assert_eq!(nothing.status, 404);
}

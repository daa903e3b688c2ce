//! The api as a client sees it.

use e2e::{Draft, Http, Ledger, System, until};
use serde_json::Value;

use crate::orders;

/// Sends one order. Returns the ledger and the path of the order.
#[track_caller]
fn one_order(system: &System) -> (Ledger, String) {
    let mut ledger = Ledger::default();
    let order = orders(system).next().unwrap();
    system.send(&mut ledger, &[Draft::order(&order)]);
    system.await_status(&order.order_uid, 200);
    (ledger, format!("/order/{}", order.order_uid))
}

#[test]
fn an_answer_names_its_tier() {
    let system = System::join();
    let (_ledger, path) = one_order(&system);
    for url in system.api_urls() {
        let url = format!("{url}{path}");
        let http = Http::new();
        until(&format!("{url} from the local cache"), || {
            let answer = http.get(&url);
            assert_eq!(answer.header("Content-Type"), Some("application/json"));
            match answer.source() {
                "local" => Ok(()),
                other if ["redis", "postgres"].contains(&other) => Err(other.to_owned()),
                other => panic!("X-Source: {other}"),
            }
        });
        let answer = http.get(&format!("{url}?nocache=1"));
        assert_eq!((answer.status, answer.source()), (200, "postgres"));
    }
}

#[test]
fn a_known_version_returns_304() {
    let system = System::join();
    let (_ledger, path) = one_order(&system);
    for url in system.api_urls() {
        let (http, url) = (Http::new(), format!("{url}{path}"));
        let etag = http.get(&url).header("ETag").unwrap().to_owned();
        let lists = [
            etag.clone(),
            "*".to_owned(),
            format!("\"other\", {etag}"),
            format!("W/{etag}"),
        ];
        for known in &lists {
            for url in [&url, &format!("{url}?nocache=1")] {
                let answer = http.get_with(url, &[("If-None-Match", known)]);
                assert_eq!(answer.status, 304, "{known}: {}", answer.text());
                assert!(answer.body.is_empty());
                assert_eq!(answer.header("ETag"), Some(etag.as_str()));
            }
        }
        for unknown in ["\"other\"", "\"0\", \"1\""] {
            let answer = http.get_with(&url, &[("If-None-Match", unknown)]);
            assert_eq!(answer.status, 200, "{unknown}");
        }
    }
}

#[test]
fn missing_resources_are_problem_documents() {
    let system = System::join();
    let unknown = format!("unknown-{:016x}", system.seed);
    let long = "a".repeat(65);
    for url in system.api_urls() {
        let http = Http::new();
        for path in [
            &format!("/order/{unknown}"),
            &format!("/order/{unknown}"),
            &format!("/order/{unknown}?nocache=1"),
            "/nothing/here",
        ] {
            http.get(&format!("{url}{path}")).problem(404);
        }
        for uid in ["a%20b", "a.b", "%ff", "a%2Fb", "%C3%A4", &long] {
            http.get(&format!("{url}/order/{uid}")).problem(400);
        }
        for parameters in [
            "limit=0",
            "limit=101",
            "limit=ten",
            "limit=-1",
            "cursor=nonsense",
        ] {
            http.get(&format!("{url}/orders?{parameters}")).problem(400);
        }
    }
}

#[test]
fn the_openapi_document_matches_the_routes() {
    let system = System::join();
    for url in system.api_urls() {
        let http = Http::new();
        let json = http.get(&format!("{url}/openapi.json"));
        assert_eq!(json.status, 200);
        let document: Value = serde_json::from_slice(&json.body).unwrap();
        for path in ["/order/{order_uid}", "/orders"] {
            assert!(document["paths"][path]["get"].is_object(), "{path}");
        }
        let yaml = http.get(&format!("{url}/openapi.yaml"));
        assert_eq!(yaml.status, 200);
        assert!(yaml.text().contains("/order/{order_uid}"));
        let docs = http.get(&format!("{url}/docs"));
        let content_type = docs.header("Content-Type").unwrap_or_default();
        assert!(docs.status == 200 && content_type.contains("text/html"));
    }
}

#[test]
fn the_page_loads_no_external_assets() {
    let system = System::join();
    for url in system.api_urls() {
        let page = Http::new().get(&format!("{url}/"));
        assert_eq!(page.status, 200);
        let content_type = page.header("Content-Type").unwrap_or_default();
        assert!(content_type.contains("text/html"), "{content_type}");
        let text = page.text();
        for elsewhere in ["src=\"http", "src=\"//", "href=\"http", "url(http"] {
            assert!(!text.contains(elsewhere), "{elsewhere}");
        }
    }
}

//! The web page and the documentation.

use crate::harness::World;

#[tokio::test]
async fn pages_have_their_type_policy_and_etag() {
    let world = World::new().await;
    let replica = world.replica().await;
    for (path, content_type, policy) in [
        ("/", "text/html", true),
        ("/assets/app.js", "text/javascript", true),
        ("/assets/style.css", "text/css", true),
        ("/docs", "text/html", true),
        ("/openapi.json", "application/json", false),
        ("/openapi.yaml", "application/yaml", false),
    ] {
        let page = replica.get(path).await;
        assert_eq!(page.status, 200, "{path}");
        assert!(
            page.header("content-type")
                .is_some_and(|found| found.starts_with(content_type)),
            "{path}"
        );
        assert_eq!(
            page.header("content-security-policy").is_some(),
            policy,
            "{path}"
        );
        assert!(!page.body.is_empty());
        let etag = page.header("etag").unwrap();
        let again = replica
            .request("GET", path)
            .header("If-None-Match", etag)
            .send()
            .await;
        assert_eq!((again.status, again.body.len()), (304, 0), "{path}");
    }
    replica
        .get("/assets/nothing.js")
        .await
        .assert_problem(404, "not_found");
}

#[tokio::test]
async fn the_document_equals_the_output_of_the_command() {
    let world = World::new().await;
    let replica = world.replica().await;
    let served = replica.get("/openapi.json").await;
    assert_eq!(served.body, api::http::openapi(false).into_bytes());
    assert_eq!(
        replica.get("/openapi.yaml").await.body,
        api::http::openapi(true).into_bytes()
    );
    let document = served.json();
    assert!(
        document["openapi"]
            .as_str()
            .is_some_and(|version| version.starts_with("3."))
    );
    let operations = [
        &document["paths"]["/order/{order_uid}"]["get"],
        &document["paths"]["/orders"]["get"],
    ];
    for operation in operations {
        for status in ["200", "400", "401", "403", "429", "503"] {
            assert!(
                operation["responses"][status]["description"].is_string(),
                "{status}"
            );
        }
    }
    let uid = &operations[0]["parameters"][0];
    assert_eq!(
        (uid["name"].as_str(), uid["required"].as_bool()),
        (Some("order_uid"), Some(true))
    );
    assert_eq!(uid["schema"]["pattern"], "^[A-Za-z0-9_-]{1,64}$");
    let item = &document["components"]["schemas"]["Item"]["properties"];
    assert_eq!(
        (
            item["sale"]["minimum"].as_i64(),
            item["sale"]["maximum"].as_i64()
        ),
        (Some(0), Some(100))
    );
    assert_eq!(
        document["components"]["schemas"]["Order"]["properties"]["items"]["maxItems"],
        1000
    );
}

//! OpenID Connect, with a certified implementation of the issuer.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use e2e::{Answer, Draft, Http, Ledger, OidcIssuer, Stack, until};
use serde_json::{Value, json};
use shared::order::sample::Generator;

/// Clients of the issuer, by the algorithm of their tokens.
const ALGORITHMS: [&str; 3] = ["RS256", "ES256", "EdDSA"];

/// Requests an order, or what `url` names, with a token.
fn get(url: &str, token: &str) -> Answer {
    let authorization = format!("Bearer {token}");
    Http::new().get_with(url, &[("Authorization", &authorization)])
}

/// Returns `token` with another name of its key.
fn with_key_id(token: &str, id: &str) -> String {
    let (header, rest) = token.split_once('.').unwrap();
    let mut header: Value =
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(header).unwrap()).unwrap();
    header["kid"] = json!(id);
    format!("{}.{rest}", URL_SAFE_NO_PAD.encode(header.to_string()))
}

/// A system with one order, and its uid.
fn stack_with_order(test: &'static str) -> (Stack, String) {
    let stack = Stack::builder(test).workers(1).start();
    let mut ledger = Ledger::default();
    let order = Generator::new(25, 1..=3).next().unwrap();
    stack.send(&mut ledger, &[Draft::order(&order)]);
    stack.settle();
    let uid = ledger.some_uid();
    (stack, uid)
}

#[test]
fn tokens_of_the_issuer_are_accepted() {
    let issuer = OidcIssuer::start("tokens");
    let (mut stack, uid) = stack_with_order("tokens");
    let name = issuer.name();
    let api = stack.start_api_with(&[
        ("API_OIDC_ISSUER", &name),
        ("API_OIDC_AUDIENCE", "orders"),
        ("API_OIDC_CUSTOMER_CLAIM", "customer"),
    ]);
    let url = format!("{}/order/{uid}", api.url());
    for algorithm in ALGORITHMS {
        let token = issuer.token(algorithm, "orders:read");
        let answer = get(&url, &token);
        assert_eq!(answer.status, 200, "{algorithm}: {}", answer.text());
        // The signature covers everything.
        let last = token.len() - 10;
        let other = if &token[last..=last] == "A" { "B" } else { "A" };
        let forged = format!("{}{other}{}", &token[..last], &token[last + 1..]);
        assert_eq!(get(&url, &forged).problem(401), "unauthorized");
    }
    let token = issuer.token("RS256", "orders:read");
    let caller = |token: &str| -> Value {
        let answer = get(&format!("{}/caller", api.url()), token);
        serde_json::from_slice(&answer.body).unwrap()
    };
    let unbound = caller(&token);
    assert_eq!(
        (&unbound["name"], &unbound["customer"]),
        (&json!("RS256"), &Value::Null)
    );
    let bound = caller(&issuer.token("customer", "orders:read"));
    assert_eq!(
        (&bound["name"], &bound["customer"]),
        (&json!("customer"), &json!("acme"))
    );

    assert_eq!(Http::new().get(&url).problem(401), "unauthorized");
    let other_audience = issuer.token_for("urn:other", "RS256", "orders:read");
    assert_eq!(get(&url, &other_audience).problem(401), "unauthorized");
    let other_scope = issuer.token("RS256", "orders:list");
    assert_eq!(get(&url, &other_scope).problem(403), "forbidden");
    let rejected = |reason: &str| {
        let label = format!("reason=\"{reason}\"");
        api.admin.metric("oidc_rejected_tokens_total", &label)
    };
    assert_eq!((rejected("signature"), rejected("audience")), (3, 1));
}

#[test]
fn new_keys_are_fetched_when_a_token_names_one() {
    let mut issuer = OidcIssuer::start("rotation");
    let (mut stack, uid) = stack_with_order("rotation");
    let name = issuer.name();
    let api = stack.start_api_with(&[("API_OIDC_ISSUER", &name), ("API_OIDC_AUDIENCE", "orders")]);
    let url = format!("{}/order/{uid}", api.url());
    let old = issuer.token("RS256", "orders:read");
    assert_eq!(get(&url, &old).status, 200);
    assert_eq!(issuer.key_requests(), 1);

    issuer.rotate();
    let new = issuer.token("ES256", "orders:read");
    let status = |token: &str| get(&url, token).status;
    // Within 10 s of the last refresh there is no other one.
    until("the new key", || match status(&new) {
        200 => Ok(()),
        other => Err(other),
    });
    // The issuer has removed the old key.
    assert_eq!(status(&old), 401);
    let requests = issuer.key_requests();
    assert_eq!(requests, 2);

    // Invented key names: callers with a known key are served, and the issuer sees one request.
    let mut invented = 0;
    until("a refresh by an invented key name", || {
        for _ in 0..50 {
            invented += 1;
            let token = with_key_id(&new, &format!("invented-{invented}"));
            assert_eq!(status(&token), 401);
            assert_eq!(status(&new), 200);
        }
        match issuer.key_requests() {
            2 => Err("none"),
            _ => Ok(()),
        }
    });
    assert_eq!(issuer.key_requests(), 3, "{invented} invented names");

    // Without the issuer, its keys stay valid, and the replica stays ready.
    issuer.stop();
    until("a failed refresh", || {
        match status(&with_key_id(&new, "invented")) {
            // The key may exist.
            503 => Ok(()),
            other => Err(other),
        }
    });
    assert_eq!(api.admin.state_of("oidc issuer"), "down");
    assert_eq!(api.admin.get("/readyz").status, 200);
    assert_eq!(status(&new), 200);

    // The issuer returns with other keys.
    issuer.start_again();
    let newest = issuer.token("EdDSA", "orders:read");
    until("the newest key", || match status(&newest) {
        200 => Ok(()),
        other => Err(other),
    });
    assert_eq!(api.admin.state_of("oidc issuer"), "up");
}

#[test]
fn a_replica_waits_for_the_first_keys() {
    let mut issuer = OidcIssuer::reserve("waits");
    let certificate = issuer.certify();
    let (mut stack, uid) = stack_with_order("waits");
    let name = issuer.name();
    let trusted = certificate.to_string_lossy();
    let variables = [
        ("API_OIDC_ISSUER", name.as_str()),
        ("API_OIDC_AUDIENCE", "orders"),
    ];
    let api = stack.launch_api(&[&variables[..], &[("API_OIDC_CA_FILE", &trusted)]].concat());
    until("the stage of a replica without keys", || {
        match api.admin.try_state_of("stage") {
            Some(stage) if stage == "waiting for the OpenID Connect issuer" => Ok(()),
            stage => Err(format!("{stage:?}")),
        }
    });
    assert_eq!(api.admin.get("/readyz").status, 503);
    assert_eq!(api.admin.state_of("oidc issuer"), "down");
    assert_logged(
        &api.process.log(),
        &["oidc issuer does not answer", "cannot connect"],
    );
    let order = format!("{}/order/{uid}", api.url());
    assert_eq!(Http::new().get(&order).problem(401), "unauthorized");

    issuer.start_again();
    until("readiness", || match api.admin.get("/readyz") {
        ready if ready.status == 200 => Ok(()),
        other => Err(other.text()),
    });
    assert_eq!(api.admin.state_of("oidc issuer"), "up");
    assert_logged(&api.process.log(), &["oidc issuer is back"]);

    // A replica that does not trust the certificate.
    let distrustful = stack.launch_api(&variables);
    until("a failed refresh", || {
        match distrustful.admin.try_state_of("oidc issuer") {
            Some(state) if state == "down" => Ok(()),
            state => Err(format!("{state:?}")),
        }
    });
    assert_eq!(distrustful.admin.get("/readyz").status, 503);
    let log = distrustful.process.log();
    assert_logged(
        &log,
        &["TLS failed: invalid peer certificate", "API_OIDC_CA_FILE"],
    );
}

#[track_caller]
fn assert_logged(log: &str, texts: &[&str]) {
    for text in texts {
        assert!(log.contains(text), "{text} is not in\n{log}");
    }
}

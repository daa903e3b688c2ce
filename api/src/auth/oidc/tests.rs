//! Tokens of an issuer that the tests play.

use std::sync::atomic::{AtomicUsize, Ordering};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use parking_lot::Mutex;
use prometheus::Registry;
use serde_json::{Value, json};
use shared::{runtime::backoff::Backoff, telemetry::metrics::render};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use super::{issuer::Fetched, jwks::KeyDocument, testing::Signer, *};
use crate::{auth::Scope, metrics::AccessFamilies};

const ISSUER: &str = "https://issuer.example";

fn claims() -> Value {
    let now = seconds(SystemTime::now());
    json!({
        "iss": ISSUER, "aud": "orders", "sub": "alice", "iat": now, "exp": now + 300,
        "scope": "orders:read",
    })
}

fn api_config(issuer: &str) -> config::Api {
    config::Api {
        oidc_issuer: Some(issuer.to_owned()),
        oidc_audience: Some("orders".to_owned()),
        ..config::Api::default()
    }
}

fn oidc_of(issuer: &str) -> (Oidc, Registry) {
    let registry = Registry::new();
    let usage = Arc::new(Usage::new(AccessFamilies::register(&registry).unwrap()));
    let metrics = OidcMetrics::register(&registry).unwrap();
    let oidc = Oidc::new(&api_config(issuer), usage, metrics);
    (oidc.unwrap().unwrap(), registry)
}

/// Applies a successful refresh with these keys.
fn publish(oidc: &Oidc, keys: &[Value]) {
    let keys = KeyDocument::parse(json!({ "keys": keys }).to_string().as_bytes()).unwrap();
    let lifetime = Duration::from_secs(600);
    let delay = oidc.apply(Ok(Fetched { keys, lifetime }), &mut Backoff::default());
    assert!(delay > lifetime / 2 && delay <= lifetime, "{delay:?}");
}

/// Applies a failed refresh.
fn fail(oidc: &Oidc) -> Duration {
    oidc.apply(Err("no answer".to_owned()), &mut Backoff::default())
}

/// Checks a token for which nothing is fetched.
#[track_caller]
fn check(oidc: &Oidc, token: &str) -> Result<Arc<Identity>, Denial> {
    match oidc.check(token.as_bytes(), SystemTime::now()) {
        Check::Done(checked) => checked.map_err(|denied| denied.reason),
        Check::Pending(_) => panic!("the check waits for the issuer"),
    }
}

#[track_caller]
fn assert_denied(oidc: &Oidc, token: &str, denial: Denial) {
    assert_eq!(check(oidc, token).err(), Some(denial), "{token}");
}

fn rejected(registry: &Registry, reason: TokenRejection) -> u64 {
    let reason: &str = reason.into();
    let text = String::from_utf8(render(registry).unwrap()).unwrap();
    let series = format!("oidc_rejected_tokens_total{{reason=\"{reason}\"}} ");
    let value = text.lines().find_map(|line| line.strip_prefix(&series));
    value.unwrap_or_else(|| panic!("{text}")).parse().unwrap()
}

#[test]
fn a_token_that_the_issuer_signed_identifies_its_caller() {
    let (oidc, _) = oidc_of(ISSUER);
    let signers = [Signer::ed25519(), Signer::p256()];
    publish(&oidc, &[signers[0].jwk("a"), signers[1].jwk("b")]);
    for (signer, id) in signers.iter().zip(["a", "b"]) {
        let identity = check(&oidc, &signer.token(id, &claims())).unwrap();
        assert_eq!(&*identity.caller.name, "alice");
        assert!(identity.caller.scopes.contains(Scope::OrdersRead));
        assert!(!identity.caller.scopes.contains(Scope::OrdersList));
    }
}

#[test]
fn forged_tokens_are_rejected() {
    let (oidc, registry) = oidc_of(ISSUER);
    let (ours, other, p256) = (Signer::ed25519(), Signer::ed25519(), Signer::p256());
    publish(&oidc, &[ours.jwk("a"), p256.jwk("b")]);
    let good = ours.token("a", &claims());
    assert!(check(&oidc, &good).is_ok());
    let (signed, signature) = good.rsplit_once('.').unwrap();
    let (header, _) = signed.split_once('.').unwrap();
    let mut pii = claims();
    pii["scope"] = json!("orders:pii");
    let pii = URL_SAFE_NO_PAD.encode(pii.to_string());
    let symmetric = ours.sign(&json!({"alg": "HS256", "kid": "a"}), &claims());
    let unsigned = ours.sign(&json!({"alg": "none"}), &claims());
    for (token, reason) in [
        (other.token("a", &claims()), TokenRejection::Signature),
        (
            format!("{header}.{pii}.{signature}"),
            TokenRejection::Signature,
        ),
        (format!("{signed}."), TokenRejection::Signature),
        (
            p256.sign(&json!({"alg": "EdDSA", "kid": "a"}), &claims()),
            TokenRejection::Signature,
        ),
        (
            ours.sign(&json!({"alg": "ES256", "kid": "a"}), &claims()),
            TokenRejection::UnknownKey,
        ),
        (
            ours.sign(&json!({"alg": "RS256", "kid": "a"}), &claims()),
            TokenRejection::UnknownKey,
        ),
        (ours.token("c", &claims()), TokenRejection::UnknownKey),
        (symmetric, TokenRejection::Algorithm),
        (
            format!("{}.", unsigned.rsplit_once('.').unwrap().0),
            TokenRejection::Algorithm,
        ),
        ("secret".to_owned(), TokenRejection::Malformed),
        ("a".repeat(MAX_BYTES + 1), TokenRejection::Malformed),
    ] {
        let before = rejected(&registry, reason);
        assert_denied(&oidc, &token, Denial::Unauthorized);
        assert_eq!(
            rejected(&registry, reason),
            before + 1,
            "{reason:?} {token}"
        );
    }
}

#[test]
fn claims_for_others_are_rejected() {
    let (oidc, registry) = oidc_of(ISSUER);
    let signer = Signer::ed25519();
    publish(&oidc, &[signer.jwk("a")]);
    for (claim, value, reason, denial) in [
        (
            "iss",
            json!("https://other"),
            TokenRejection::Issuer,
            Denial::Unauthorized,
        ),
        (
            "aud",
            json!("other"),
            TokenRejection::Audience,
            Denial::Unauthorized,
        ),
        (
            "exp",
            json!(1_000_000),
            TokenRejection::Expired,
            Denial::Expired,
        ),
        (
            "nbf",
            json!(1e12),
            TokenRejection::NotYetValid,
            Denial::Unauthorized,
        ),
        (
            "sub",
            json!(1),
            TokenRejection::Malformed,
            Denial::Unauthorized,
        ),
    ] {
        let mut claims = claims();
        claims[claim] = value;
        let token = signer.token("a", &claims);
        assert_denied(&oidc, &token, denial);
        assert_eq!(rejected(&registry, reason), 1, "{claim}");
    }
}

#[test]
fn a_verified_token_is_kept_until_it_expires_or_its_key_is_removed() {
    let (oidc, _) = oidc_of(ISSUER);
    let (signer, next) = (Signer::ed25519(), Signer::p256());
    publish(&oidc, &[signer.jwk("a")]);
    let token = signer.token("a", &claims());
    let first = check(&oidc, &token).unwrap();
    assert!(Arc::ptr_eq(&first, &check(&oidc, &token).unwrap()));
    // A refresh with the same keys keeps it.
    publish(&oidc, &[signer.jwk("a")]);
    assert!(Arc::ptr_eq(&first, &check(&oidc, &token).unwrap()));
    // The lifetime and the skew are over.
    let late = SystemTime::now() + Duration::from_secs(361);
    let Check::Done(Err(denied)) = oidc.check(token.as_bytes(), late) else {
        panic!("an expired token is accepted")
    };
    assert_eq!(denied.reason, Denial::Expired);
    publish(&oidc, &[signer.jwk("a"), next.jwk("b")]);
    assert!(check(&oidc, &token).is_ok());
    publish(&oidc, &[next.jwk("b")]);
    assert_denied(&oidc, &token, Denial::Unauthorized);
}

#[tokio::test(start_paused = true)]
async fn a_token_with_a_new_key_waits_for_one_refresh() {
    let (oidc, _) = oidc_of(ISSUER);
    let (old, new) = (Signer::ed25519(), Signer::p256());
    publish(&oidc, &[old.jwk("a")]);
    let token = new.token("b", &claims());
    // The keys have just been refreshed.
    assert_denied(&oidc, &token, Denial::Unauthorized);
    tokio::time::advance(Duration::from_secs(10)).await;
    let unknown = old.token("c", &claims());
    let waiting = [token.as_bytes(), unknown.as_bytes()];
    let [Check::Pending(known), Check::Pending(unknown)] =
        waiting.map(|token| oidc.check(token, SystemTime::now()))
    else {
        panic!("the check does not wait")
    };
    // Tokens with a known key, and of other issuers, do not wait.
    assert!(check(&oidc, &old.token("a", &claims())).is_ok());
    let mut others = claims();
    others["iss"] = json!("https://other");
    let others = old.sign(&json!({"alg": "EdDSA", "kid": "x"}), &others);
    assert_denied(&oidc, &others, Denial::Unauthorized);

    publish(&oidc, &[old.jwk("a"), new.jwk("b")]);
    assert_eq!(&*known.await.ok().unwrap().caller.name, "alice");
    assert_eq!(unknown.await.err().unwrap().reason, Denial::Unauthorized);
    assert_denied(&oidc, &old.token("c", &claims()), Denial::Unauthorized);
}

#[tokio::test(start_paused = true)]
async fn keys_stay_valid_for_a_day_without_the_issuer() {
    let (oidc, _) = oidc_of(ISSUER);
    let signer = Signer::ed25519();
    let token = signer.token("a", &claims());
    assert!(
        fail(&oidc) <= Duration::from_secs(5),
        "no keys: try again soon"
    );
    // The token may be valid.
    assert_denied(&oidc, &token, Denial::Unavailable);
    publish(&oidc, &[signer.jwk("a")]);
    tokio::time::advance(Duration::from_secs(24 * 3600 - 1)).await;
    assert!(
        fail(&oidc) >= Duration::from_secs(15),
        "with keys: no hurry"
    );
    assert!(check(&oidc, &token).is_ok());
    assert_eq!(oidc.state(), "down");
    assert_denied(&oidc, &signer.token("b", &claims()), Denial::Unavailable);
    tokio::time::advance(Duration::from_secs(1)).await;
    fail(&oidc);
    assert_denied(&oidc, &token, Denial::Unavailable);
    publish(&oidc, &[signer.jwk("a")]);
    assert!(check(&oidc, &token).is_ok());
    assert_eq!(oidc.state(), "up");
}

#[test]
fn the_variables_belong_together() {
    type Change = fn(&mut config::Api);
    let problem = |change: Change| {
        let mut config = api_config(ISSUER);
        change(&mut config);
        let registry = Registry::new();
        let usage = Arc::new(Usage::new(AccessFamilies::register(&registry).unwrap()));
        let metrics = OidcMetrics::register(&registry).unwrap();
        match Oidc::new(&config, usage, metrics) {
            Ok(made) => made.map_or("off", |_| "on").to_owned(),
            Err(error) => error.to_string(),
        }
    };
    assert_eq!(problem(|_| {}), "on");
    let cases: [(Change, &str); 7] = [
        (|config| config.oidc_issuer = None, "API_OIDC_AUDIENCE: "),
        (|config| config.oidc_audience = None, "API_OIDC_AUDIENCE: "),
        (
            |config| config.oidc_audience = Some(" ".to_owned()),
            "API_OIDC_AUDIENCE: ",
        ),
        (
            |config| config.oidc_issuer = Some("issuer".to_owned()),
            "API_OIDC_ISSUER: ",
        ),
        (
            |config| config.oidc_customer_claim = Some(String::new()),
            "API_OIDC_CUSTOMER_CLAIM: ",
        ),
        (
            |config| {
                *config = config::Api {
                    oidc_ca_file: Some("/ca.pem".into()),
                    ..config::Api::default()
                }
            },
            "API_OIDC_CA_FILE: ",
        ),
        (|config| *config = config::Api::default(), "off"),
    ];
    for (change, expected) in cases {
        let problem = problem(change);
        assert!(problem.starts_with(expected), "{problem}");
    }
}

/// Answers of the server of an issuer, by path, and the number of requests.
#[derive(Default)]
struct Served {
    answers: Mutex<Vec<(&'static str, String)>>,
    requests: AtomicUsize,
}

impl Served {
    fn set(&self, path: &'static str, answer: String) {
        let mut answers = self.answers.lock();
        answers.retain(|(known, _)| *known != path);
        answers.push((path, answer));
    }

    fn answer(&self, head: &str) -> String {
        self.requests.fetch_add(1, Ordering::Relaxed);
        let answers = self.answers.lock();
        let path = head.split(' ').nth(1).unwrap_or_default();
        let found = answers.iter().find(|(known, _)| *known == path);
        found.map_or_else(
            || response("404 Not Found", ""),
            |(_, answer)| answer.clone(),
        )
    }
}

fn response(status: &str, body: &str) -> String {
    format!(
        "HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// Serves until the test ends. Returns the issuer.
async fn serve(served: Arc<Served>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                match stream.read_u8().await {
                    Ok(byte) => head.push(byte),
                    Err(_) => break,
                }
            }
            let answer = served.answer(&String::from_utf8_lossy(&head));
            // A client that does not want the rest has hung up.
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    format!("http://127.0.0.1:{port}")
}

const METADATA: &str = "/.well-known/openid-configuration";

fn serve_metadata(served: &Served, issuer: &str) {
    let metadata = json!({"issuer": issuer, "jwks_uri": format!("{issuer}/keys")});
    served.set(METADATA, response("200 OK", &metadata.to_string()));
}

#[tokio::test]
async fn the_keys_come_from_the_address_in_the_metadata() {
    let served = Arc::new(Served::default());
    let issuer = serve(served.clone()).await;
    let (oidc, _) = oidc_of(&issuer);
    let signer = Signer::ed25519();
    let keys = json!({"keys": [signer.jwk("a")]}).to_string();
    serve_metadata(&served, &issuer);
    let head = "200 OK\r\nCache-Control: max-age=420";
    served.set("/keys", response(head, &keys));
    let fetched = oidc.issuer.fetch().await.unwrap();
    assert_eq!(fetched.keys.keys.len(), 1);
    assert_eq!(fetched.lifetime, Duration::from_secs(420));

    let keys_url = format!("{issuer}/keys: ");
    for (answer, problem) in [
        (response("503 Service Unavailable", &keys), "status 503"),
        // A redirect, even to itself.
        (
            response(&format!("302 Found\r\nLocation: {issuer}/keys"), &keys),
            "status 302",
        ),
        (response("200 OK", "<html>"), "not a JSON Web Key Set"),
        (
            response("200 OK", &" ".repeat(256 * 1024 + 1)),
            "more than 262144 bytes",
        ),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{".to_owned(),
            "cannot read the body",
        ),
        ("SSH-2.0\r\n\r\n".to_owned(), "HTTP failed"),
        (String::new(), "HTTP failed"),
    ] {
        served.set("/keys", answer);
        let error = oidc.issuer.fetch().await.unwrap_err();
        assert!(
            error.starts_with(&keys_url) && error.contains(problem),
            "{error}"
        );
    }
    serve_metadata(&served, "https://other.example");
    let error = oidc.issuer.fetch().await.unwrap_err();
    assert!(
        error.contains("names issuer \"https://other.example\""),
        "{error}"
    );
}

#[tokio::test]
async fn the_first_keys_are_fetched_until_the_issuer_has_them() {
    let served = Arc::new(Served::default());
    let issuer = serve(served.clone()).await;
    let oidc = Arc::new(oidc_of(&issuer).0);
    let running = tokio::spawn({
        let oidc = oidc.clone();
        async move { oidc.run().await }
    });
    while served.requests.load(Ordering::Relaxed) < 2 {
        tokio::task::yield_now().await;
    }
    assert_eq!(oidc.state(), "down");
    let keys = json!({"keys": [Signer::p256().jwk("a")]}).to_string();
    served.set("/keys", response("200 OK", &keys));
    serve_metadata(&served, &issuer);
    oidc.ready().await;
    assert_eq!(oidc.state(), "up");
    running.abort();
}

//! What each caller may see: masked personal data, and the orders of one customer.

use std::{collections::BTreeSet, fs, path::PathBuf};

use api::answer::MASKS;
use redis::AsyncCommands;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use shared::order::{Order, UnknownFields, decode};

use crate::harness::{
    Event, EventStream, Replica, Request, Response, World, etag, event_id, order,
};

/// The callers: name, which is also the token, and the rest of the line in the key file.
const CALLERS: [(&str, &str); 5] = [
    ("whole", "orders:read,orders:list,orders:pii"),
    ("masked", "orders:read,orders:list"),
    ("own", "orders:read,orders:list,orders:pii customer=own"),
    ("own-masked", "orders:read,orders:list customer=own"),
    ("other", "orders:read,orders:list,orders:pii customer=other"),
];

/// The personal data of [`secret`].
const PERSONAL: [&str; 5] = [
    "Jane Private",
    "+15550001234",
    "PRIV 12",
    "Private Street 1",
    "jane.private@example.com",
];

/// An order of the customer `own`.
fn secret(uid: &str) -> Order {
    let mut order = order(uid);
    let [name, phone, zip, address, email] = PERSONAL.map(Into::into);
    let delivery = &mut order.delivery;
    (delivery.name, delivery.phone, delivery.zip) = (name, phone, zip);
    (delivery.address, delivery.email) = (address, email);
    order.customer_id = "own".into();
    order.track_number = "OWN-TRACK".into();
    order
}

/// The document that a caller without `orders:pii` gets.
fn masked(order: &Order) -> Value {
    let mut document: Value = serde_json::from_slice(&order.to_json()).unwrap();
    for mask in MASKS {
        document["delivery"][mask.field] = mask.value.into();
    }
    document
}

/// The ETag of the masked document of the version of `offset`.
fn masked_etag(offset: i64) -> String {
    format!("\"{}-masked\"", event_id(offset))
}

/// A key file with [`CALLERS`], deleted on drop.
struct Keys(PathBuf);

impl Keys {
    fn write(test: &str) -> Self {
        let name = format!("api-views-{test}-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        let lines = CALLERS.map(|(name, rest)| {
            let digest = hex::encode(Sha256::digest(name));
            format!("{name} sha256:{digest} {rest}\n")
        });
        fs::write(&path, lines.concat()).unwrap();
        Self(path)
    }

    /// Starts a replica that accepts the keys and has skipped the warm-up.
    async fn replica(&self, world: &World) -> Replica {
        let path = self.0.clone();
        let replica = world.cold_replica_with(|config| config.api.keys_file = Some(path));
        let replica = replica.await;
        replica.wait_for_check("announcements", "subscribed").await;
        replica.wait_for_check("redis", "up").await;
        replica
    }
}

impl Drop for Keys {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

fn ask(replica: &Replica, caller: &str, method: &str, path: &str) -> Request {
    let authorization = format!("Bearer {caller}");
    let request = replica.request(method, path);
    request.header("Authorization", &authorization)
}

async fn get(replica: &Replica, caller: &str, path: &str) -> Response {
    ask(replica, caller, "GET", path).send().await
}

/// One request to each operation. Each could return the order `secret`.
const PROBES: &[(&str, &str, &str)] = &[
    ("getOrder", "GET", "/order/secret"),
    ("getOrder", "GET", "/order/secret?nocache=1"),
    ("getOrder", "HEAD", "/order/secret"),
    ("watchOrder", "GET", "/order/secret/events"),
    ("listOrders", "GET", "/orders"),
    ("listOrders", "GET", "/orders?customer_id=own"),
    ("listOrders", "GET", "/orders?phone=%2B15550001234"),
    (
        "listOrders",
        "GET",
        "/orders?email=jane.private@example.com",
    ),
    ("listOrders", "GET", "/orders?track_number=OWN-TRACK"),
    ("exportOrders", "GET", "/orders/export"),
    ("exportOrders", "GET", "/orders/export?customer_id=own"),
    ("exportOrders", "GET", "/orders/export?phone=%2B15550001234"),
    (
        "exportOrders",
        "GET",
        "/orders/export?email=jane.private@example.com",
    ),
    (
        "exportOrders",
        "GET",
        "/orders/export?track_number=OWN-TRACK",
    ),
    ("watchOrders", "GET", "/orders/events"),
    ("batchGetOrders", "POST", "/orders/batch-get"),
];

/// Sends a probe. Returns the head and all text of the response; of a stream, the first event.
async fn probe(
    world: &World,
    replica: &Replica,
    caller: &str,
    (operation, method, path): (&str, &str, &str),
    offset: &mut i64,
) -> (u16, String) {
    let mut request = ask(replica, caller, method, path);
    match operation {
        "batchGetOrders" => {
            request = request
                .header("Content-Type", "application/json")
                .body(r#"{"order_uids":["secret"]}"#);
        }
        "watchOrder" | "watchOrders" => {
            let mut stream = EventStream::open(request).await;
            let head = format!("{:?}", stream.head);
            if stream.head.status != 200 {
                return (stream.head.status, head);
            }
            *offset += 1;
            let revision = world.store(&secret("secret"), *offset).await;
            world.announce(&revision).await;
            let event = stream.event().await;
            return (200, format!("{head}{event:?}"));
        }
        _ => {}
    }
    let response = request.send().await;
    let body = String::from_utf8_lossy(&response.body).into_owned();
    (response.status, format!("{response:?}{body}"))
}

/// A new operation fails here until its probe is added, and the probe fails if the operation
/// reveals what its caller may not see.
#[tokio::test]
async fn no_operation_reveals_what_its_caller_may_not_see() {
    let world = World::new().await;
    let revision = world.store(&secret("secret"), 1).await;
    world.announce(&revision).await;
    let keys = Keys::write("operations");
    let replica = keys.replica(&world).await;
    let document = replica.get("/openapi.json").await.json();
    let operations: BTreeSet<_> = document["paths"]
        .as_object()
        .unwrap()
        .values()
        .flat_map(|path| path.as_object().unwrap().values())
        .map(|operation| operation["operationId"].as_str().unwrap())
        .collect();
    let probed: BTreeSet<_> = PROBES.iter().map(|(operation, ..)| *operation).collect();
    assert_eq!(probed, operations, "each operation needs a probe");

    let (mut offset, mut shown) = (1, BTreeSet::new());
    for (caller, _) in CALLERS {
        for of in PROBES {
            let (operation, method, path) = *of;
            let (status, text) = probe(&world, &replica, caller, *of, &mut offset).await;
            let name = format!("{caller}: {method} {path}: {text}");
            let has_personal = PERSONAL.iter().any(|value| text.contains(value));
            if has_personal {
                shown.insert((caller, operation));
            }
            if caller.ends_with("masked") {
                let is_refused = status == 403 && text.contains("personal_data");
                let by_contact = path.contains("phone=") || path.contains("email=");
                assert_eq!(is_refused, by_contact, "{name}");
            }
            if caller == "other" {
                // Of a batch, the uid is what the caller sent.
                for value in ["OWN-TRACK", "Mascaras", "\"own\"", &event_id(offset)] {
                    assert!(!text.contains(value), "{value} in {name}");
                }
            }
        }
    }
    // The probes reach what other callers must not see.
    let documents = ["batchGetOrders", "exportOrders", "getOrder", "watchOrder"];
    let expected = ["own", "whole"].map(|caller| documents.map(|of| (caller, of)));
    assert_eq!(shown, expected.into_iter().flatten().collect());
}

#[tokio::test]
async fn a_masked_document_is_a_valid_order_from_every_tier() {
    let world = World::new().await;
    let order = secret("secret");
    let revision = world.store(&order, 1).await;
    let keys = Keys::write("tiers");
    let replica = keys.replica(&world).await;
    let read = async |source: &str, path: &str| {
        let answer = get(&replica, "masked", path).await;
        assert_eq!(
            (answer.status, answer.source()),
            (200, Some(source)),
            "{answer:?}"
        );
        assert_eq!(answer.json(), masked(&order));
        assert_eq!(answer.header("etag"), Some(&*masked_etag(1)));
        assert!(decode(&answer.body, UnknownFields::Reject).is_ok());
        answer.body
    };
    let path = "/order/secret";
    let first = read("postgres", path).await;
    let mut bodies = vec![read("local", path).await];
    bodies.push(read("postgres", "/order/secret?nocache=1").await);
    world.announce(&revision).await;
    let other = keys.replica(&world).await;
    let answer = get(&other, "masked", path).await;
    assert_eq!(answer.source(), Some("redis"));
    bodies.push(answer.body);
    for body in bodies {
        assert_eq!(body, first);
    }
    // The caches hold the whole order.
    get(&replica, "whole", path)
        .await
        .assert_order("local", &order);
    get(&other, "whole", path)
        .await
        .assert_order("local", &order);
}

#[tokio::test]
async fn an_etag_confirms_only_the_document_that_the_caller_gets() {
    let world = World::new().await;
    world.store(&secret("secret"), 1).await;
    let keys = Keys::write("etags");
    let replica = keys.replica(&world).await;
    for (caller, sent, status) in [
        ("whole", etag(1), 304),
        ("whole", masked_etag(1), 200),
        ("masked", masked_etag(1), 304),
        ("masked", etag(1), 200),
        ("own", etag(1), 304),
        ("own-masked", masked_etag(1), 304),
        ("own-masked", etag(1), 200),
        ("own-masked", "*".to_owned(), 304),
        // A foreign order does not exist, even if the client has its ETag.
        ("other", etag(1), 404),
        ("other", masked_etag(1), 404),
        ("other", "*".to_owned(), 404),
    ] {
        for method in ["GET", "HEAD"] {
            let request = ask(&replica, caller, method, "/order/secret");
            let answer = request.header("If-None-Match", &sent).send().await;
            assert_eq!(answer.status, status, "{caller}, {sent}: {answer:?}");
            assert_eq!(answer.header("vary"), Some("Authorization"));
            if status == 304 {
                let is_masked = caller.ends_with("masked");
                let own = if is_masked { masked_etag(1) } else { etag(1) };
                assert_eq!(answer.header("etag"), Some(&*own));
            }
        }
    }
}

/// A foreign order and an unknown one have the same status, code and headers, in any tier.
#[tokio::test]
async fn a_foreign_order_looks_like_an_unknown_one() {
    let world = World::new().await;
    let revision = world.store(&secret("foreign"), 1).await;
    world.announce(&revision).await;
    world.store(&secret("erased"), 1).await;
    world.announce(&world.erase("erased", 2).await).await;
    let keys = Keys::write("foreign");
    let replica = keys.replica(&world).await;
    for path in ["", "", "?nocache=1", "/events"] {
        let answers = ["unknown", "foreign", "erased"].map(|uid| {
            let path = format!("/order/{uid}{path}");
            let replica = &replica;
            async move { get(replica, "other", &path).await }
        });
        for answer in answers {
            let answer = answer.await;
            answer.assert_problem(404, "order_not_found");
            for header in ["x-source", "x-duration-ms", "etag"] {
                assert_eq!(answer.header(header), None, "{path}: {answer:?}");
            }
        }
    }
    for caller in ["whole", "masked"] {
        for path in ["/order/erased", "/order/erased/events"] {
            let answer = get(&replica, caller, path).await;
            answer.assert_problem(410, "order_erased");
        }
        let unknown = get(&replica, caller, "/order/unknown").await;
        assert!(unknown.source().is_some());
    }
    let batch = async |caller| {
        let request = ask(&replica, caller, "POST", "/orders/batch-get")
            .header("Content-Type", "application/json")
            .body(r#"{"order_uids":["foreign","unknown","erased"]}"#);
        request.send().await.json()
    };
    assert_eq!(
        batch("other").await,
        json!({"orders": [], "missing": ["foreign", "unknown", "erased"], "erased": []})
    );
    let foreign = masked(&secret("foreign"));
    assert_eq!(
        batch("own-masked").await,
        json!({"orders": [foreign], "missing": ["unknown", "erased"], "erased": []})
    );
    assert_eq!(
        batch("masked").await,
        json!({"orders": [foreign], "missing": ["unknown"], "erased": ["erased"]})
    );
}

#[tokio::test]
async fn lists_and_exports_have_only_visible_orders() {
    let world = World::new().await;
    let mut others = order("theirs");
    others.customer_id = "other".into();
    world.store(&secret("first"), 1).await;
    world.store(&others, 2).await;
    world.store(&secret("second"), 3).await;
    let keys = Keys::write("lists");
    let replica = keys.replica(&world).await;
    for (caller, query, expected) in [
        ("whole", "", &["second", "theirs", "first"][..]),
        ("masked", "?customer_id=other", &["theirs"]),
        ("own", "", &["second", "first"]),
        ("own-masked", "?customer_id=own", &["second", "first"]),
        ("own", "?phone=%2B15550001234", &["second", "first"]),
        ("own", "?customer_id=other", &[]),
        ("own", "?track_number=WBILMTESTTRACK", &[]),
        ("other", "?phone=%2B15550001234", &[]),
        ("other", "", &["theirs"]),
    ] {
        let list = get(&replica, caller, &format!("/orders{query}"))
            .await
            .json();
        let listed = list["orders"].as_array().unwrap().iter();
        let uids: Vec<_> = listed.map(|order| order["order_uid"].as_str()).collect();
        let wanted: Vec<_> = expected.iter().copied().map(Some).collect();
        assert_eq!(uids, wanted, "{caller}: {query}");
        assert!(list["next_cursor"].is_null());

        for accept in ["text/csv", "application/x-ndjson"] {
            let request = ask(&replica, caller, "GET", &format!("/orders/export{query}"));
            let export = request.header("Accept", accept).send().await;
            assert_eq!(export.status, 200, "{export:?}");
            let text = String::from_utf8(export.body).unwrap();
            for uid in ["first", "theirs", "second"] {
                let is_exported = text.contains(&format!("\n{uid},"))
                    || text.contains(&format!("\"order_uid\":\"{uid}\""));
                assert_eq!(
                    is_exported,
                    expected.contains(&uid),
                    "{caller}: {query}: {text}"
                );
            }
        }
    }
    let page = get(&replica, "own", "/orders?limit=1").await.json();
    let next = page["next_cursor"].as_str().unwrap();
    let path = format!("/orders?limit=1&cursor={next}");
    let page = get(&replica, "own", &path).await.json();
    assert_eq!(page["orders"][0]["order_uid"], "first");
    assert!(page["next_cursor"].is_null());
}

#[tokio::test]
async fn filters_by_personal_data_need_its_scope() {
    let world = World::new().await;
    let keys = Keys::write("filters");
    let replica = keys.replica(&world).await;
    for path in ["/orders", "/orders/export"] {
        for filter in ["phone=%2B15550001234", "email=a@example.com"] {
            let answer = get(&replica, "masked", &format!("{path}?{filter}")).await;
            answer.assert_problem(403, "personal_data");
            let detail = answer.json()["detail"].to_string();
            assert!(detail.contains("orders:pii"), "{detail}");
        }
    }
}

#[tokio::test]
async fn watchers_get_what_they_may_see() {
    let world = World::new().await;
    let order = secret("secret");
    let revision = world.store(&order, 1).await;
    world.announce(&revision).await;
    let keys = Keys::write("events");
    let replica = keys.replica(&world).await;
    let watch = async |caller: &str, last: &str| {
        let request = ask(&replica, caller, "GET", "/order/secret/events");
        EventStream::open(request.header("Last-Event-ID", last)).await
    };
    let mut whole = watch("own", "").await;
    let mut hidden = watch("own-masked", "").await;
    let json = String::from_utf8(order.to_json()).unwrap();
    let event = |id: String, data: &str| Event {
        name: "order".to_owned(),
        id: Some(id),
        data: data.to_owned(),
    };
    assert_eq!(whole.event().await, Some(event(event_id(1), &json)));
    let received = hidden.event().await.unwrap();
    assert_eq!(received.id, Some(format!("{}-masked", event_id(1))));
    assert_eq!(received.json(), masked(&order));
    // A caller whose scopes have changed gets the document that it may see now.
    let mut again = watch("own", received.id.as_deref().unwrap()).await;
    assert_eq!(again.event().await, Some(event(event_id(1), &json)));

    // The order goes to another customer.
    let mut moved = order.clone();
    moved.customer_id = "other".into();
    let revision = world.store(&moved, 2).await;
    world.announce(&revision).await;
    for stream in [&mut whole, &mut hidden, &mut again] {
        assert_eq!(stream.event().await, None);
    }
    let mut other = watch("other", "").await;
    other.expect("order").await;
    let answer = get(&replica, "own", "/orders/events").await;
    answer.assert_problem(403, "bound_to_customer");
}

/// An entry that cannot be masked is never sent to a caller that needs a mask.
#[tokio::test]
async fn an_entry_that_is_no_order_is_read_from_postgres() {
    let world = World::new().await;
    let orders = ["first", "second", "third"].map(secret);
    for order in &orders {
        let revision = world.store(order, 1).await;
        world.announce(&revision).await;
        let key = format!("order:{}", order.order_uid);
        let json = format!(
            "{{\"order_uid\":\"{}\",\"phone\":\"+15550001234\"}}",
            order.order_uid
        );
        let mut redis = world.redis.connect().await;
        let _: () = redis.hset(key, "json", json).await.unwrap();
    }
    let keys = Keys::write("entries");
    let replica = keys.replica(&world).await;
    let answer = get(&replica, "masked", "/order/first").await;
    assert_eq!((answer.status, answer.source()), (200, Some("postgres")));
    assert_eq!(answer.json(), masked(&orders[0]));
    let request = ask(&replica, "own-masked", "POST", "/orders/batch-get")
        .header("Content-Type", "application/json")
        .body(r#"{"order_uids":["second","unknown"]}"#);
    let batch = request.send().await.json();
    let expected = json!({"orders": [masked(&orders[1])], "missing": ["unknown"], "erased": []});
    assert_eq!(batch, expected);
    let request = ask(&replica, "own-masked", "GET", "/order/third/events");
    let event = EventStream::open(request).await.event().await.unwrap();
    assert_eq!(event.json(), masked(&orders[2]));
}

/// Without keys there are no callers, so nothing is masked.
#[tokio::test]
async fn without_keys_everything_is_visible() {
    let world = World::new().await;
    let order = secret("secret");
    world.store(&order, 1).await;
    let replica = world.cold_replica().await;
    let answer = replica.order("secret").await;
    answer.assert_order("postgres", &order);
    assert_eq!(answer.header("vary"), None);
    assert_eq!(
        replica.get("/orders?phone=%2B15550001234").await.status,
        200
    );
}

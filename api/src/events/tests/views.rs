//! What watchers with a restricted view get.

use super::*;
use crate::{
    answer::MASKS,
    auth::{Caller, Scopes},
};

/// An order of the customer `own`.
fn document(offset: i64) -> Answer {
    let delivery = MASKS
        .iter()
        .map(|mask| (mask.field.to_owned(), serde_json::Value::from("private")));
    let document = serde_json::json!({
        "delivery": delivery.collect::<serde_json::Value>(),
        "customer_id": "own",
    });
    Answer::new(version(offset), Some(document.to_string().as_bytes()))
}

fn bound_to(customer: &str) -> View {
    View::of(Some(&Caller {
        name: "caller".into(),
        scopes: Scopes::default(),
        customer: Some(customer.into()),
    }))
}

#[tokio::test(start_paused = true)]
async fn a_bound_watcher_watches_only_orders_of_its_customer() {
    let replica = Replica::start();
    let put = |answer| replica.store.inner.postgres.lock().insert(uid("a"), answer);
    put(document(1));
    let watch = async |known, view: &View| replica.events.watch_order(uid("a"), known, view).await;
    let (own, other) = (bound_to("own"), bound_to("other"));
    let mut reader = Reader::of(watch(None, &own).await.unwrap());
    let event = reader.event().await.unwrap();
    assert!(
        event.contains(&format!("id: {}-masked\n", version(1))),
        "{event}"
    );
    assert!(!event.contains("private"), "{event}");
    // An edition that the client knows from elsewhere confirms nothing.
    for known in [None, Some(Edition::whole(version(1)))] {
        assert_eq!(watch(known, &other).await.err(), Some(Refusal::Unknown));
    }
    put(Answer::new(version(2), None));
    assert_eq!(watch(None, &own).await.err(), Some(Refusal::Unknown));
    let all = replica.events.watch_orders(false, &own);
    assert_eq!(all.err(), Some(Refusal::Bound));
}

#[tokio::test(start_paused = true)]
async fn a_client_that_knows_the_order_only_masked_gets_what_it_may_see_now() {
    let replica = Replica::start();
    let put = |answer| replica.store.inner.postgres.lock().insert(uid("a"), answer);
    put(document(1));
    let whole = Edition::whole(version(1));
    let masked = Edition {
        is_masked: true,
        ..whole
    };
    for (known, view, is_sent) in [
        (whole, View::EVERYTHING, false),
        (masked, View::EVERYTHING, true),
        (masked, View::MASKED, false),
        (whole, View::MASKED, true),
    ] {
        let watcher = replica.events.watch_order(uid("a"), Some(known), &view);
        let mut reader = Reader::of(watcher.await.unwrap());
        let event = reader.event().now_or_never().flatten();
        assert_eq!(event.is_some(), is_sent, "{known}, {view:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_cached_document_that_cannot_be_masked_is_read_from_postgres() {
    let replica = Replica::start();
    replica.store.put("a", 1);
    replica.store.cache("a");
    let postgres = || replica.store.inner.postgres.lock();
    postgres().insert(uid("a"), document(1));
    let watch = async || {
        replica
            .events
            .watch_order(uid("a"), None, &View::MASKED)
            .await
    };
    let event = Reader::of(watch().await.unwrap()).event().await.unwrap();
    assert!(event.contains("MASKED"), "{event}");
    replica.store.put("a", 2);
    replica.store.cache("a");
    let refused = Refusal::Lookup(LookupError::Unavailable);
    assert_eq!(watch().await.err(), Some(refused));
}

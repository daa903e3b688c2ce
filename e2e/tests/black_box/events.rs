//! Event streams, while other users change orders.

use e2e::{Draft, Event, EventStream, Http, Ledger, System};
use serde_json::{Value, json};

use crate::{order, orders};

/// Waits for the change of the order `uid`.
#[track_caller]
fn change_of(stream: &mut EventStream, uid: &str) -> Event {
    loop {
        let event = stream.next_event();
        assert_eq!(event.name, "change");
        let data: Value = serde_json::from_str(&event.data).unwrap();
        assert_eq!(data["version"], json!(event.id));
        if data["order_uid"] == json!(uid) {
            return event;
        }
    }
}

#[test]
fn watchers_get_each_change_of_an_order() {
    let system = System::join();
    let mut ledger = Ledger::default();
    let first = orders(&system).next().unwrap();
    let uid = first.order_uid.to_string();
    let open = |path: &str| -> Vec<EventStream> {
        let urls = system.api_urls().iter();
        urls.map(|url| EventStream::open(&format!("{url}{path}"), None))
            .collect()
    };
    let mut all = open("/orders/events");
    system.send(&mut ledger, &[Draft::order(&first)]);
    for stream in &mut all {
        change_of(stream, &uid);
    }
    system.await_status(&uid, 200);
    let mut watchers = open(&format!("/order/{uid}/events"));
    for (stream, url) in watchers.iter_mut().zip(system.api_urls()) {
        let event = stream.next_event();
        let answer = Http::new().get(&format!("{url}/order/{uid}"));
        assert_eq!((event.name.as_str(), event.data), ("order", answer.text()));
        assert_eq!(
            Some(format!("\"{}\"", event.id).as_str()),
            answer.header("ETag")
        );
    }
    for seed in 0..3 {
        let changed = order(&uid, seed);
        system.send(&mut ledger, &[Draft::order(&changed)]);
        for (stream, all) in watchers.iter_mut().zip(&mut all) {
            let event = stream.next_event();
            assert_eq!(event.name, "order");
            assert_eq!(event.data.as_bytes(), changed.to_json());
            assert_eq!(change_of(all, &uid).id, event.id);
        }
    }
    system.send(&mut ledger, &[Draft::erasure(&uid)]);
    for (stream, url) in watchers.iter_mut().zip(system.api_urls()) {
        let event = stream.next_event();
        assert_eq!(event.name, "erased");
        let expected = json!({"order_uid": uid, "version": event.id});
        assert_eq!(
            serde_json::from_str::<Value>(&event.data).unwrap(),
            expected
        );
        Http::new()
            .get(&format!("{url}/order/{uid}/events"))
            .problem(410);
    }
    system.settle(&ledger);
    system.check_all(&ledger);
}

#[test]
fn a_client_that_reconnects_gets_what_it_missed() {
    let system = System::join();
    let mut ledger = Ledger::default();
    let first = orders(&system).next().unwrap();
    let uid = first.order_uid.to_string();
    system.send(&mut ledger, &[Draft::order(&first)]);
    system.await_status(&uid, 200);
    for (seed, url) in system.api_urls().iter().enumerate() {
        let url = format!("{url}/order/{uid}/events");
        let last = EventStream::open(&url, None).next_event().id;
        let changed = order(&uid, seed as u64);
        system.send(&mut ledger, &[Draft::order(&changed)]);
        system.settle(&ledger);
        let event = EventStream::open(&url, Some(&last)).next_event();
        assert_eq!(event.data.as_bytes(), changed.to_json());
        assert_ne!(event.id, last);
    }
}

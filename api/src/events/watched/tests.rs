use futures_util::FutureExt;

use super::*;
use crate::{
    answer::{Answer, MASKS, View},
    auth::{Caller, Scope},
};

fn uid(text: &str) -> OrderUid {
    OrderUid::parse(text).unwrap()
}

fn version(offset: i64) -> Version {
    Version::new(1, offset, 0)
}

fn shape(offset: i64, representation: u8) -> DocumentVersion {
    DocumentVersion {
        version: version(offset),
        representation,
    }
}

fn order(offset: i64, representation: u8) -> Answer {
    Answer::new(shape(offset, representation), Some(b"{}"))
}

fn erased(offset: i64) -> Answer {
    Answer::new(shape(offset, 1), None)
}

fn announce(watched: &Watched, uid: OrderUid, offset: i64) {
    let version = version(offset);
    watched.announce(&[Announcement { uid, version }]);
}

fn watched(max_bytes: usize) -> Arc<Watched> {
    Arc::new(Watched::new(max_bytes))
}

/// The next frame or end, if there is one now.
fn next(changes: &mut OrderChanges) -> Option<Result<String, End>> {
    let next = changes.next().now_or_never()?;
    Some(next.map(|frame| String::from_utf8(frame.text.to_vec()).unwrap()))
}

#[track_caller]
fn assert_next(changes: &mut OrderChanges, event: &str, id: &str) {
    let text = next(changes).expect("a frame").expect("no end");
    assert!(
        text.starts_with(&format!("event: {event}\nid: {id}\n")),
        "{text}"
    );
}

fn id(offset: i64) -> String {
    version(offset).to_string()
}

#[test]
fn a_watcher_never_gets_an_older_frame_after_a_newer_one() {
    let watched = watched(1 << 20);
    let mut changes = watched.watch(uid("a"), View::EVERYTHING).unwrap();
    assert_eq!(next(&mut changes), None);
    watched.show(&uid("a"), &order(2, 1));
    assert_next(&mut changes, "order", &id(2));
    for older in [order(1, 1), order(2, 1), erased(1), Answer::Unknown] {
        watched.show(&uid("a"), &older);
        assert_eq!(next(&mut changes), None, "{older:?}");
        let mut new = watched.watch(uid("a"), View::EVERYTHING).unwrap();
        assert_next(&mut new, "order", &id(2));
    }
    watched.show(&uid("a"), &order(2, 2));
    assert_next(&mut changes, "order", &format!("{}-2", id(2)));
    // The shape of an older program does not replace it.
    watched.show(&uid("a"), &order(2, 1));
    assert_eq!(next(&mut changes), None);
    watched.show(&uid("a"), &erased(3));
    assert_next(&mut changes, "erased", &id(3));
    // An erased order may be stored again.
    watched.show(&uid("a"), &order(4, 1));
    assert_next(&mut changes, "order", &id(4));
}

#[test]
fn a_watcher_that_reads_late_gets_only_the_newest_frame() {
    let watched = watched(1 << 20);
    let mut changes = watched.watch(uid("a"), View::EVERYTHING).unwrap();
    for offset in 0..1000 {
        watched.show(&uid("a"), &order(offset, 1));
    }
    assert_next(&mut changes, "order", &id(999));
    assert_eq!(next(&mut changes), None);
}

#[test]
fn an_order_that_is_not_watched_costs_nothing() {
    let watched = watched(1 << 20);
    announce(&watched, uid("b"), 1);
    let (first, second) = (
        watched.watch(uid("a"), View::EVERYTHING),
        watched.watch(uid("a"), View::EVERYTHING),
    );
    announce(&watched, uid("b"), 1);
    watched.show(&uid("b"), &order(1, 1));
    assert_eq!(watched.take(), None);
    watched.show(&uid("a"), &order(1, 1));
    drop(first);
    assert_eq!(watched.uids(), [uid("a")]);
    drop(second);
    let table = watched.table.lock();
    assert!(table.orders.is_empty() && table.held.is_empty());
    assert_eq!(table.held_bytes, 0);
}

#[test]
fn announcements_during_a_lookup_lead_to_one_more() {
    let watched = watched(1 << 20);
    let _changes = watched.watch(uid("a"), View::EVERYTHING).unwrap();
    announce(&watched, uid("a"), 1);
    announce(&watched, uid("a"), 2);
    let running = watched.take().unwrap();
    assert_eq!(running, (uid("a"), Some(version(2))));
    for offset in 3..100 {
        announce(&watched, uid("a"), offset);
    }
    assert_eq!(watched.take(), None, "one lookup at a time");
    watched.show(&uid("a"), &order(2, 1));
    watched.finish(&uid("a"), running.1);
    let again = watched.take().unwrap();
    assert_eq!(again, (uid("a"), Some(version(99))));
    watched.show(&uid("a"), &order(99, 1));
    watched.finish(&uid("a"), again.1);
    // Known versions are not looked up.
    announce(&watched, uid("a"), 99);
    announce(&watched, uid("a"), 98);
    assert_eq!(watched.take(), None);
}

#[test]
fn a_lookup_without_the_announced_version_is_retried_later() {
    let watched = watched(1 << 20);
    let _changes = watched.watch(uid("a"), View::EVERYTHING).unwrap();
    announce(&watched, uid("a"), 2);
    for _ in 0..3 {
        let (_, announced) = watched.take().unwrap();
        watched.show(&uid("a"), &order(1, 1));
        watched.finish(&uid("a"), announced);
        assert_eq!(watched.take(), None);
        watched.retry_late();
    }
    // An announcement does not wait for the retry, which then finds nothing to do.
    let (_, announced) = watched.take().unwrap();
    watched.finish(&uid("a"), announced);
    announce(&watched, uid("a"), 3);
    watched.retry_late();
    assert_eq!(watched.take(), Some((uid("a"), Some(version(3)))));
    assert_eq!(watched.take(), None);
}

#[test]
fn frames_have_a_limit_and_a_watcher_whose_frame_is_released_ends() {
    let frame = Event::of(&uid("a"), &order(1, 1), Form::Whole);
    let frame = frame.unwrap().bytes();
    let watched = watched(2 * frame);
    let mut slow = watched.watch(uid("a"), View::EVERYTHING).unwrap();
    let mut fast = watched.watch(uid("a"), View::EVERYTHING).unwrap();
    watched.show(&uid("a"), &order(1, 1));
    assert_next(&mut fast, "order", &id(1));
    let _others = ["b", "c"].map(|name| {
        let changes = watched.watch(uid(name), View::EVERYTHING).unwrap();
        for offset in 1..10 {
            watched.show(&uid(name), &order(offset, 1));
        }
        changes
    });
    assert!(slow.is_behind() && !fast.is_behind());
    assert_eq!(next(&mut slow), Some(Err(End::Slow)));
    assert_eq!(next(&mut fast), None);
    assert_eq!(watched.table.lock().held_bytes, 2 * frame);
    // A new watcher looks the order up, which brings the frame back.
    let mut new = watched.watch(uid("a"), View::EVERYTHING).unwrap();
    watched.show(&uid("a"), &order(1, 1));
    assert_next(&mut new, "order", &id(1));
    assert_eq!(next(&mut fast), None);
    assert!(watched.table.lock().held_bytes <= 2 * frame);
}

#[test]
fn a_closed_table_ends_watchers_after_the_last_frame() {
    let watched = watched(1 << 20);
    let mut changes = watched.watch(uid("a"), View::EVERYTHING).unwrap();
    watched.show(&uid("a"), &order(1, 1));
    watched.close();
    assert_next(&mut changes, "order", &id(1));
    assert_eq!(next(&mut changes), Some(Err(End::Closed)));
    assert!(watched.watch(uid("a"), View::EVERYTHING).is_none());
}

#[test]
fn a_reset_comes_before_the_next_frame() {
    let watched = watched(1 << 20);
    let mut changes = watched.watch(uid("a"), View::EVERYTHING).unwrap();
    watched.reset(Reset::Lost);
    watched.reset(Reset::Resumed);
    watched.show(&uid("a"), &order(1, 1));
    let reset = next(&mut changes).unwrap().unwrap();
    assert_eq!(reset, "event: reset\ndata: {\"reason\":\"resumed\"}\n\n");
    assert_next(&mut changes, "order", &id(1));
    // Resets before the watch are not of interest.
    let mut new = watched.watch(uid("a"), View::EVERYTHING).unwrap();
    assert_next(&mut new, "order", &id(1));
}

/// The order of a customer, whose recipient has the name of the customer.
fn order_of(customer: &str, offset: i64) -> Answer {
    let delivery = MASKS
        .iter()
        .map(|mask| (mask.field.to_owned(), serde_json::Value::from(customer)));
    let document = serde_json::json!({
        "delivery": delivery.collect::<serde_json::Value>(),
        "customer_id": customer,
    });
    Answer::new(shape(offset, 1), Some(document.to_string().as_bytes()))
}

fn view(scopes: &[Scope], customer: Option<&str>) -> View {
    View::of(Some(&Caller {
        name: "caller".into(),
        scopes: scopes.iter().copied().collect(),
        customer: customer.map(Into::into),
    }))
}

#[test]
fn each_watcher_gets_what_its_view_shows() {
    let watched = watched(1 << 20);
    let watch = |view| watched.watch(uid("a"), view).unwrap();
    let mut whole = watch(View::EVERYTHING);
    watched.show(&uid("a"), &order_of("own", 1));
    // They join after the event was formatted for the others.
    let (mut masked, mut second) = (watch(View::MASKED), watch(View::MASKED));
    let mut bound = watch(view(&[Scope::OrdersPii], Some("own")));
    watched.show(&uid("a"), &order_of("own", 1));
    for offset in [1, 2] {
        watched.show(&uid("a"), &order_of("own", offset));
        let texts = [&mut whole, &mut bound].map(|watcher| next(watcher).unwrap().unwrap());
        for text in texts {
            assert!(text.starts_with(&format!("event: order\nid: {}\n", id(offset))));
            assert!(text.contains(r#""name":"own""#), "{text}");
        }
        let frames = [&mut masked, &mut second].map(|watcher| {
            let frame = watcher.next().now_or_never().unwrap();
            frame.unwrap().text
        });
        // Both share the text.
        assert_eq!(frames[0].as_ptr(), frames[1].as_ptr());
        let text = std::str::from_utf8(&frames[0]).unwrap();
        assert!(text.starts_with(&format!("event: order\nid: {}-masked\n", id(offset))));
        assert!(text.contains(r#""name":"MASKED""#), "{text}");
        assert!(!text.contains(r#""name":"own""#), "{text}");
    }
    let table = watched.table.lock();
    let held = table.orders[&uid("a")].held.unwrap().1;
    assert_eq!(table.held_bytes, held);
    drop(table);
    drop((masked, second, bound));
    assert_eq!(watched.table.lock().orders[&uid("a")].restricted, 0);
}

#[test]
fn an_order_that_another_customer_gets_ends_the_stream_of_a_bound_watcher() {
    let watched = watched(1 << 20);
    for scopes in [&[Scope::OrdersPii][..], &[]] {
        let mut bound = watched.watch(uid("a"), view(scopes, Some("own"))).unwrap();
        let mut other = watched.watch(uid("a"), View::MASKED).unwrap();
        watched.show(&uid("a"), &order_of("own", 1));
        assert!(next(&mut bound).unwrap().is_ok() && next(&mut other).unwrap().is_ok());
        watched.show(&uid("a"), &order_of("other", 2));
        assert_eq!(next(&mut bound), Some(Err(End::Hidden)));
        assert!(next(&mut other).unwrap().is_ok());
    }
}

#[test]
fn the_end_of_a_visible_order_is_sent_to_its_bound_watcher() {
    let watched = watched(1 << 20);
    let mut bound = watched.watch(uid("a"), view(&[], Some("own"))).unwrap();
    watched.show(&uid("a"), &order_of("own", 1));
    assert!(next(&mut bound).unwrap().is_ok());
    watched.show(&uid("a"), &erased(2));
    assert_next(&mut bound, "erased", &id(2));
}

/// An unreadable document of a cache must not take the place of the one that Postgres holds.
#[test]
fn what_cannot_be_masked_ends_masked_streams_until_it_can_be() {
    let watched = watched(1 << 20);
    let mut whole = watched.watch(uid("a"), View::EVERYTHING).unwrap();
    let mut masked = watched.watch(uid("a"), View::MASKED).unwrap();
    watched.show(&uid("a"), &order(1, 1));
    assert_next(&mut whole, "order", &id(1));
    assert_eq!(next(&mut masked), Some(Err(End::Hidden)));
    let mut again = watched.watch(uid("a"), View::MASKED).unwrap();
    watched.show(&uid("a"), &order_of("own", 1));
    assert_next(&mut again, "order", &format!("{}-masked", id(1)));
    assert_eq!(next(&mut whole), None);
}

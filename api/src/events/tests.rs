//! Events over a store in memory.

use std::{
    collections::HashMap,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
};

use futures_util::FutureExt;
use prometheus::Registry;
use shared::order::{DocumentVersion, Version};
use tokio::{task::JoinHandle, time::timeout};

use super::*;
use crate::metrics::Metrics;

mod views;

/// Longer than any wait of the events. The clock of the tests only moves while all tasks wait.
const LONG: Duration = Duration::from_secs(60);

#[derive(Clone, Default)]
struct Store {
    inner: Arc<Stored>,
}

#[derive(Default)]
struct Stored {
    postgres: Mutex<HashMap<OrderUid, Answer>>,
    /// What the caches hold instead, if anything.
    cached: Mutex<HashMap<OrderUid, Answer>>,
    is_down: AtomicBool,
    lookups: AtomicUsize,
    /// Lookups of [`Freshness::Current`].
    current: AtomicUsize,
    rechecks: AtomicUsize,
}

impl Store {
    fn put(&self, name: &str, offset: i64) {
        let text = format!("{{\"offset\":{offset}}}");
        let answer = Answer::new(version(offset), Some(text.as_bytes()));
        self.inner.postgres.lock().insert(uid(name), answer);
    }

    fn erase(&self, name: &str, offset: i64) {
        let answer = Answer::new(version(offset), None);
        self.inner.postgres.lock().insert(uid(name), answer);
    }

    /// Keeps what Postgres holds now in the caches.
    fn cache(&self, name: &str) {
        let answer = self.inner.postgres.lock()[&uid(name)].clone();
        self.inner.cached.lock().insert(uid(name), answer);
    }

    fn lookups(&self) -> usize {
        self.inner.lookups.load(Ordering::Relaxed)
    }
}

impl Orders for Store {
    async fn find(&self, uid: OrderUid, freshness: Freshness) -> Result<Answer, LookupError> {
        self.inner.lookups.fetch_add(1, Ordering::Relaxed);
        tokio::task::yield_now().await;
        if self.inner.is_down.load(Ordering::Relaxed) {
            return Err(LookupError::Unavailable);
        }
        if freshness == Freshness::Current {
            self.inner.current.fetch_add(1, Ordering::Relaxed);
        } else if let Some(answer) = self.inner.cached.lock().get(&uid) {
            return Ok(answer.clone());
        }
        let found = self.inner.postgres.lock().get(&uid).cloned();
        Ok(found.unwrap_or(Answer::Unknown))
    }

    async fn versions(&self, uids: &[OrderUid]) -> Result<Vec<Announcement>, LookupError> {
        self.inner.rechecks.fetch_add(1, Ordering::Relaxed);
        if self.inner.is_down.load(Ordering::Relaxed) {
            return Err(LookupError::Unavailable);
        }
        let postgres = self.inner.postgres.lock();
        let version = |uid: &OrderUid| {
            let version = postgres.get(uid)?.version()?;
            Some(Announcement { uid: *uid, version })
        };
        Ok(uids.iter().filter_map(version).collect())
    }
}

fn uid(text: &str) -> OrderUid {
    OrderUid::parse(text).unwrap()
}

fn version(offset: i64) -> DocumentVersion {
    DocumentVersion::current(Version::new(1, offset, 0))
}

/// The events of a replica that runs until the test ends.
struct Replica {
    events: Events<Store>,
    store: Store,
    metrics: Arc<EventMetrics>,
    running: JoinHandle<()>,
}

impl Replica {
    fn start() -> Self {
        let metrics = Metrics::register(&Registry::new()).unwrap().events;
        let (store, settings) = (
            Store::default(),
            Settings {
                watchers: 100,
                staleness: Duration::from_secs(5),
            },
        );
        let events = Events::new(store.clone(), settings, metrics.clone());
        events.set_subscribed(true);
        events.set_redis_usable(true);
        Self {
            running: tokio::spawn(events.clone().run()),
            events,
            store,
            metrics,
        }
    }

    fn announce(&self, name: &str, offset: i64) {
        self.events.announce(&[Announcement {
            uid: uid(name),
            version: version(offset).version,
        }]);
    }

    async fn watch(&self, name: &str) -> Reader {
        Reader::of(
            self.events
                .watch_order(uid(name), None, &View::EVERYTHING)
                .await
                .unwrap(),
        )
    }

    async fn watch_from(&self, name: &str, known: DocumentVersion) -> Reader {
        let known = Some(Edition::whole(known));
        let watcher = self.events.watch_order(uid(name), known, &View::EVERYTHING);
        Reader::of(watcher.await.unwrap())
    }

    fn watch_all(&self, is_known: bool) -> Reader {
        Reader::of(
            self.events
                .watch_orders(is_known, &View::EVERYTHING)
                .unwrap(),
        )
    }

    async fn refusal(&self, name: &str) -> Refusal {
        let watcher = self
            .events
            .watch_order(uid(name), None, &View::EVERYTHING)
            .await;
        watcher.err().expect("a refusal")
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        self.running.abort();
    }
}

/// A client that reads events.
struct Reader {
    watcher: Watcher,
    text: String,
}

impl Reader {
    fn of(watcher: Watcher) -> Self {
        Self {
            watcher,
            text: String::new(),
        }
    }

    /// The next event, without comments and the time for a retry. `None` at the end of the stream.
    async fn event(&mut self) -> Option<String> {
        timeout(LONG, self.read()).await.expect("an event")
    }

    async fn read(&mut self) -> Option<String> {
        loop {
            while let Some((event, rest)) = self.text.split_once("\n\n") {
                let (event, rest) = (event.to_owned(), rest.to_owned());
                self.text = rest;
                if event.starts_with("event: ") {
                    return Some(event);
                }
            }
            let next = self.watcher.next().await?;
            self.text += std::str::from_utf8(&next).unwrap();
        }
    }

    #[track_caller]
    fn assert_none(&mut self) {
        assert!(self.event().now_or_never().is_none());
    }

    /// Asserts that the next event is the document of `offset`.
    async fn assert_order(&mut self, offset: i64) {
        let id = version(offset);
        let expected = format!("event: order\nid: {id}\ndata: {{\"offset\":{offset}}}");
        assert_eq!(self.event().await, Some(expected));
    }

    async fn assert_reset(&mut self, reason: &str) {
        let expected = format!("event: reset\ndata: {{\"reason\":\"{reason}\"}}");
        assert_eq!(self.event().await, Some(expected));
    }
}

#[tokio::test(start_paused = true)]
async fn watchers_of_an_order_share_one_lookup_of_a_change() {
    let replica = Replica::start();
    replica.store.put("a", 1);
    let mut readers = Vec::new();
    for _ in 0..100 {
        readers.push(replica.watch("a").await);
    }
    for reader in &mut readers {
        reader.assert_order(1).await;
    }
    let before = replica.store.lookups();
    replica.store.put("a", 2);
    replica.announce("a", 2);
    for reader in &mut readers {
        reader.assert_order(2).await;
    }
    assert_eq!(replica.store.lookups() - before, 1);
    assert_eq!(replica.metrics.watchers(StreamKind::Order).get(), 100);
    drop(readers);
    assert_eq!(replica.metrics.watchers(StreamKind::Order).get(), 0);
}

#[tokio::test(start_paused = true)]
async fn an_order_that_changes_quickly_ends_with_its_newest_version() {
    let replica = Replica::start();
    replica.store.put("a", 0);
    let mut reader = replica.watch("a").await;
    reader.assert_order(0).await;
    for offset in 1..=1000 {
        replica.store.put("a", offset);
        replica.announce("a", offset);
    }
    reader.assert_order(1000).await;
    assert!(replica.store.lookups() < 10, "{}", replica.store.lookups());
    reader.assert_none();
}

#[tokio::test(start_paused = true)]
async fn an_erased_order_may_return() {
    let replica = Replica::start();
    replica.store.put("a", 1);
    let mut reader = replica.watch("a").await;
    reader.assert_order(1).await;
    replica.store.erase("a", 2);
    replica.announce("a", 2);
    let id = version(2);
    let erased =
        format!("event: erased\nid: {id}\ndata: {{\"order_uid\":\"a\",\"version\":\"{id}\"}}");
    assert_eq!(reader.event().await, Some(erased));
    assert_eq!(replica.refusal("a").await, Refusal::Erased);
    replica.store.put("a", 3);
    replica.announce("a", 3);
    reader.assert_order(3).await;
}

#[tokio::test(start_paused = true)]
async fn a_cache_that_missed_a_change_is_bypassed() {
    let replica = Replica::start();
    replica.store.put("a", 1);
    replica.store.cache("a");
    let mut reader = replica.watch("a").await;
    reader.assert_order(1).await;
    replica.store.put("a", 2);
    replica.announce("a", 2);
    reader.assert_order(2).await;
    // A new watcher does not get the older document either.
    replica.watch("a").await.assert_order(2).await;
}

#[tokio::test(start_paused = true)]
async fn a_failed_lookup_is_retried() {
    let replica = Replica::start();
    replica.store.put("a", 1);
    let mut reader = replica.watch("a").await;
    reader.assert_order(1).await;
    replica.store.put("a", 2);
    replica.store.inner.is_down.store(true, Ordering::Relaxed);
    let before = replica.store.lookups();
    replica.announce("a", 2);
    while replica.store.lookups() == before {
        tokio::task::yield_now().await;
    }
    assert_eq!(
        replica.refusal("a").await,
        Refusal::Lookup(LookupError::Unavailable)
    );
    replica.store.inner.is_down.store(false, Ordering::Relaxed);
    reader.assert_order(2).await;
}

#[tokio::test(start_paused = true)]
async fn a_client_that_reconnects_gets_the_document_only_if_it_is_another_one() {
    let replica = Replica::start();
    replica.store.put("a", 2);
    let mut same = replica.watch_from("a", version(2)).await;
    let mut older = replica.watch_from("a", version(1)).await;
    older.assert_order(2).await;
    same.assert_none();
    replica.store.put("a", 3);
    replica.announce("a", 3);
    same.assert_order(3).await;
    older.assert_order(3).await;
}

#[tokio::test(start_paused = true)]
async fn a_client_that_is_ahead_of_the_caches_gets_no_older_document() {
    let replica = Replica::start();
    replica.store.put("a", 1);
    replica.store.cache("a");
    replica.store.put("a", 2);
    let mut reader = replica.watch_from("a", version(2)).await;
    reader.assert_none();
    // The client claims a version that Postgres does not hold: a restored backup, or a forged id.
    replica
        .watch_from("a", version(9))
        .await
        .assert_order(2)
        .await;
}

#[tokio::test(start_paused = true)]
async fn while_announcements_may_be_missing_watched_orders_are_rechecked() {
    let replica = Replica::start();
    replica.store.put("a", 1);
    let mut reader = replica.watch("a").await;
    reader.assert_order(1).await;
    let rechecks = || replica.store.inner.rechecks.load(Ordering::Relaxed);
    tokio::time::sleep(LONG).await;
    let before = rechecks();

    replica.events.set_redis_usable(false);
    reader.assert_reset("lost").await;
    replica.store.put("a", 2);
    let changed = tokio::time::Instant::now();
    reader.assert_order(2).await;
    assert!(
        changed.elapsed() <= Duration::from_secs(5),
        "{:?}",
        changed.elapsed()
    );
    assert!(rechecks() > before);
    // A new watcher learns that the stream is late.
    replica.watch("a").await.assert_reset("lost").await;
    replica.watch_all(true).assert_reset("lost").await;

    replica.store.inner.is_down.store(true, Ordering::Relaxed);
    replica.store.put("a", 3);
    replica.events.set_redis_usable(true);
    reader.assert_reset("resumed").await;
    let failed = rechecks();
    while rechecks() == failed {
        tokio::task::yield_now().await;
    }
    // The recheck after the link is back is repeated until Postgres answers.
    replica.store.inner.is_down.store(false, Ordering::Relaxed);
    reader.assert_order(3).await;
    let done = rechecks();
    tokio::time::sleep(LONG).await;
    assert_eq!(rechecks(), done, "rechecks end");
}

#[tokio::test(start_paused = true)]
async fn watchers_of_all_orders_get_each_change() {
    let replica = Replica::start();
    let mut reader = replica.watch_all(false);
    let mut again = replica.watch_all(true);
    again.assert_reset("reconnected").await;
    replica.announce("a", 1);
    replica.announce("b", 2);
    for reader in [&mut reader, &mut again] {
        for (name, offset) in [("a", 1), ("b", 2)] {
            let id = version(offset);
            let data = format!("{{\"order_uid\":\"{name}\",\"version\":\"{id}\"}}");
            let change = format!("event: change\nid: {id}\ndata: {data}");
            assert_eq!(reader.event().await, Some(change));
        }
    }
    replica.events.set_subscribed(false);
    reader.assert_reset("lost").await;
    replica.events.set_redis_usable(false);
    replica.events.set_subscribed(true);
    reader.assert_none();
    replica.events.set_redis_usable(true);
    reader.assert_reset("resumed").await;
    assert_eq!(replica.store.lookups(), 0);
}

#[tokio::test(start_paused = true)]
async fn the_number_of_watchers_is_limited() {
    let replica = Replica::start();
    replica.store.put("a", 1);
    let mut watchers: Vec<_> = (0..99).map(|_| replica.watch_all(false)).collect();
    assert_eq!(replica.refusal("unknown").await, Refusal::Unknown);
    watchers.push(replica.watch("a").await);
    assert_eq!(replica.refusal("a").await, Refusal::TooMany);
    let refused = replica.events.watch_orders(false, &View::EVERYTHING).err();
    assert_eq!(refused, Some(Refusal::TooMany));
    watchers.pop();
    replica.watch("a").await.assert_order(1).await;
    assert!(replica.events.inner.watched.uids().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_stream_begins_with_the_time_for_a_retry_and_has_a_comment_every_15_seconds() {
    let replica = Replica::start();
    let mut watcher = replica
        .events
        .watch_orders(false, &View::EVERYTHING)
        .unwrap();
    let opening = watcher.next().await.unwrap();
    let opening = std::str::from_utf8(&opening).unwrap();
    let millis = opening.strip_prefix("retry: ").unwrap().trim_end();
    assert!((500..2500).contains(&millis.parse().unwrap()), "{opening}");
    let began = tokio::time::Instant::now();
    for beat in 1..=3 {
        assert_eq!(watcher.next().await.unwrap(), ":\n\n");
        assert_eq!(began.elapsed().as_secs(), 15 * beat);
    }
}

#[tokio::test(start_paused = true)]
async fn a_slow_watcher_of_all_orders_is_disconnected_and_counted() {
    let replica = Replica::start();
    let (mut ended, vanished) = (replica.watch_all(false), replica.watch_all(false));
    let mut fast = replica.watch_all(false);
    for offset in 0..3000 {
        replica.announce("a", offset);
        assert!(fast.event().await.is_some());
    }
    assert_eq!(ended.event().await, None);
    assert_eq!(ended.event().await, None);
    drop((ended, vanished, fast));
    assert_eq!(replica.metrics.slow_watchers(), 2);
}

#[tokio::test(start_paused = true)]
async fn closed_events_end_all_streams_and_refuse_new_ones() {
    let replica = Replica::start();
    replica.store.put("a", 1);
    let (mut one, mut all) = (replica.watch("a").await, replica.watch_all(false));
    replica.events.close();
    one.assert_order(1).await;
    assert_eq!((one.event().await, all.event().await), (None, None));
    assert_eq!(replica.refusal("a").await, Refusal::Closed);
    assert_eq!(
        replica.events.watch_orders(false, &View::EVERYTHING).err(),
        Some(Refusal::Closed)
    );
}

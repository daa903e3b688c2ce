use prometheus::Registry as MetricsRegistry;
use shared::{
    config,
    storage::{Postgres, Role},
    telemetry::Dependency,
};

use super::*;
use crate::{
    local_cache::{LocalCache, Settings},
    lookup::Tiers,
    metrics::Metrics,
};

const LAST: Page = Page {
    body: Bytes::from_static(b"line\n"),
    is_last: true,
};

/// Pages of a database that does not exist.
fn pages() -> Pages {
    let settings = Settings {
        max_bytes: 0,
        ttl: Duration::ZERO,
        negative_ttl: Duration::ZERO,
    };
    let url = "postgres://none@localhost:1/none";
    let database = config::Database::default();
    let tiers = Tiers {
        local: Arc::new(LocalCache::new(settings)),
        redis: None,
        postgres: Postgres::new(url, &database, Role::Api).unwrap(),
        health: Dependency::new("postgres", "db_up"),
        replica: None,
    };
    let metrics = Metrics::register(&MetricsRegistry::new()).unwrap();
    Pages {
        lookup: Lookup::new(tiers, metrics.cache),
        selection: View::EVERYTHING.select(ListFilter::default()).unwrap(),
        format: Format::Ndjson,
        rows: MAX_ROWS,
        may_grow: true,
        orders: Arc::default(),
    }
}

fn slot() -> (Arc<Semaphore>, OwnedSemaphorePermit) {
    let slots = Arc::new(Semaphore::new(1));
    let slot = slots.clone().try_acquire_owned().unwrap();
    (slots, slot)
}

#[tokio::test]
async fn the_body_of_a_whole_export_ends() {
    let (sender, receiver) = mpsc::channel(1);
    let (slots, slot) = slot();
    let sending = tokio::spawn(pages().send(LAST, sender, slot));
    let bytes = body(receiver).into_bytes().await.unwrap();
    assert_eq!(bytes, "line\n");
    sending.await.unwrap();
    assert_eq!(slots.available_permits(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_takes_no_page_in_time_gets_an_error() {
    let (sender, receiver) = mpsc::channel(1);
    let (slots, slot) = slot();
    pages().send(LAST, sender, slot).await;
    assert_eq!(slots.available_permits(), 1);
    assert!(body(receiver).into_bytes().await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_page_that_fails_again_and_again_aborts_the_export() {
    let (sender, receiver) = mpsc::channel(1);
    let (_, slot) = slot();
    let first = Page {
        is_last: false,
        ..LAST
    };
    let sending = tokio::spawn(pages().send(first, sender, slot));
    assert!(body(receiver).into_bytes().await.is_err());
    sending.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn failed_pages_shrink() {
    let mut pages = pages();
    assert!(pages.read_with_retries().await.is_err());
    assert_eq!((pages.rows, pages.may_grow), (1, false));
}

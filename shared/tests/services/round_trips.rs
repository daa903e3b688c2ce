//! The work of a batch in Postgres, counted on the wire. Unlike time, work is the same on every
//! machine.
//!
//! A statement is a `Query` or an `Execute`. A round trip is a message after which the client
//! waits: `Query`, the `Sync` after an `Execute`, and `CopyDone`. So a `COPY` is one statement and
//! two round trips.
//!
//! The pool sends a `Sync` alone to test a returned connection. The caller has its answer by then,
//! so these are counted separately.

use std::{
    io,
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
};

use shared::{
    config::Database,
    order::OrderUid,
    storage::{Change, ChangeSet, Postgres, Role},
    testing::{TestDatabase, eventually},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
};

use super::{change, erasure, order, uid};

/// `BEGIN` and `COMMIT`, which every batch needs.
const TRANSACTION: Work = work(2, 2);
/// The lookup of known uids, for batches that are large enough for a `COPY`.
const LOOKUP: Work = work(1, 1);
/// The `COPY` of the four tables.
const COPY: Work = work(4, 8);
/// A failed attempt: `BEGIN`, a `COPY` of the first table that a unique key rejects, `ROLLBACK`.
const FAILED_COPY: Work = work(3, 4);
/// The statement that compares versions.
const UPSERT_ORDERS: Work = work(1, 1);
/// Deletes the children of replaced orders and notes the write for Redis.
const REPLACE: Work = work(1, 1);
/// Inserts the children of upserted orders.
const INSERT_CHILDREN: Work = work(3, 3);
/// Reserves a block of 1000 ids when the last block is too small.
const ID_BLOCK: Work = work(1, 1);

/// A batch with new orders, updates and stale records.
const MIXED: [Work; 6] = [
    LOOKUP,
    TRANSACTION,
    COPY,
    UPSERT_ORDERS,
    REPLACE,
    INSERT_CHILDREN,
];

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Work {
    statements: usize,
    round_trips: usize,
}

const fn work(statements: usize, round_trips: usize) -> Work {
    Work {
        statements,
        round_trips,
    }
}

fn sum(parts: &[Work]) -> Work {
    parts.iter().fold(Work::default(), |sum, part| {
        work(
            sum.statements + part.statements,
            sum.round_trips + part.round_trips,
        )
    })
}

#[derive(Default)]
struct Counters {
    statements: AtomicUsize,
    round_trips: AtomicUsize,
    tests_of_the_pool: AtomicUsize,
}

impl Counters {
    /// Counts a message of the client by its type and the type of the previous message:
    /// <https://www.postgresql.org/docs/current/protocol-message-formats.html>.
    fn count(&self, kind: u8, previous: u8) {
        let counters: &[&AtomicUsize] = match (kind, previous) {
            (b'Q', _) => &[&self.statements, &self.round_trips],
            (b'E', _) => &[&self.statements],
            (b'c', _) | (b'S', b'P' | b'B' | b'D' | b'E' | b'C') => &[&self.round_trips],
            (b'S', _) => &[&self.tests_of_the_pool],
            _ => &[],
        };
        for counter in counters {
            counter.fetch_add(1, SeqCst);
        }
    }

    fn take(&self) -> Work {
        work(
            self.statements.swap(0, SeqCst),
            self.round_trips.swap(0, SeqCst),
        )
    }
}

/// Forwards all messages between its clients and Postgres, and counts them.
struct CountingProxy {
    url: String,
    counters: Arc<Counters>,
}

impl CountingProxy {
    async fn to(url: &str) -> Self {
        let authority = url.split(['/', '?']).nth(2).unwrap();
        let server = authority.rsplit('@').next().unwrap().to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let own = listener.local_addr().unwrap().to_string();
        let counters = Arc::<Counters>::default();
        // Encrypted messages could not be counted.
        let url = format!("{}?sslmode=disable", url.replacen(&server, &own, 1));
        let shared = Arc::clone(&counters);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = TcpStream::connect(&server).await.unwrap();
                client.set_nodelay(true).unwrap();
                server.set_nodelay(true).unwrap();
                let (from_client, mut to_client) = client.into_split();
                let (mut from_server, to_server) = server.into_split();
                tokio::spawn(requests(from_client, to_server, Arc::clone(&shared)));
                tokio::spawn(async move { copy(&mut from_server, &mut to_client).await });
            }
        });
        Self { url, counters }
    }
}

/// Forwards and counts the messages of the client. The first message has no type.
async fn requests(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    counters: Arc<Counters>,
) -> io::Result<()> {
    pass_on_body(&mut from, &mut to).await?;
    let mut previous = 0;
    loop {
        let kind = from.read_u8().await?;
        counters.count(kind, previous);
        previous = kind;
        to.write_u8(kind).await?;
        pass_on_body(&mut from, &mut to).await?;
    }
}

async fn pass_on_body(from: &mut OwnedReadHalf, to: &mut OwnedWriteHalf) -> io::Result<()> {
    let length = from.read_u32().await?;
    let mut body = vec![0; length as usize - 4];
    from.read_exact(&mut body).await?;
    to.write_u32(length).await?;
    to.write_all(&body).await
}

/// A Postgres with prepared statements and counters of its work.
struct Counted {
    postgres: Postgres,
    counters: Arc<Counters>,
    _database: TestDatabase,
}

impl Counted {
    async fn new() -> Self {
        let database = TestDatabase::migrated().await;
        let proxy = CountingProxy::to(&database.url).await;
        // One connection only, because each connection prepares its statements again.
        let config = Database {
            max_connections: 1,
            ..Database::default()
        };
        let counted = Self {
            postgres: Postgres::new(&proxy.url, &config, Role::Worker).unwrap(),
            counters: proxy.counters,
            _database: database,
        };
        // The first batch is copied, and the second one replaces half of it. 250 ids of the first
        // block are left.
        counted.apply(orders("warm", 0..500, 1)).await;
        counted.apply(orders("warm", 0..250, 2)).await;
        let uid = uid("warm-0");
        assert!(counted.postgres.read(&uid).await.unwrap().is_some());
        assert_eq!(counted.postgres.read_many(&[uid]).await.unwrap().len(), 1);
        counted.counters.take();
        counted
    }

    /// Returns how many changes won, and the work of the batch.
    async fn apply(&self, changes: Vec<Change>) -> (usize, Work) {
        let (set, _) = ChangeSet::new(changes);
        let applied = self.postgres.apply(&set).await.unwrap();
        let won = applied.won.iter().filter(|won| **won).count();
        (won, self.counters.take())
    }
}

/// Returns orders with these numbers, all with one version.
fn orders(name: &str, numbers: Range<u64>, offset: i64) -> Vec<Change> {
    numbers
        .map(|number| change(&order(&format!("{name}-{number}"), number), offset))
        .collect()
}

#[tokio::test]
async fn new_orders_cost_only_a_lookup_and_copies() {
    let counted = Counted::new().await;
    let new = sum(&[LOOKUP, TRANSACTION, COPY]);
    assert_eq!(counted.apply(orders("a", 0..250, 1)).await, (250, new));
    // The first block of ids is used up.
    let with_ids = sum(&[ID_BLOCK, new]);
    assert_eq!(counted.apply(orders("b", 0..500, 1)).await, (500, with_ids));
    assert_eq!(counted.apply(orders("c", 0..500, 1)).await, (500, new));
    assert_eq!(new, work(7, 11));
}

/// After sixteen batches of new orders only, the worker skips the lookup. One known order restores
/// it.
#[tokio::test]
async fn after_many_new_batches_the_lookup_is_skipped_until_an_order_is_known() {
    let counted = Counted::new().await;
    for batch in 0..16 {
        let name = format!("new-{batch}");
        let (won, work) = counted.apply(orders(&name, 0..50, 1)).await;
        assert_eq!((won, asks(work)), (50, true), "batch {batch}");
    }
    let trusted = sum(&[TRANSACTION, COPY]);
    assert_eq!(
        counted.apply(orders("trusted", 0..50, 1)).await,
        (50, trusted)
    );
    assert_eq!(trusted, work(6, 10));

    let mut changes = orders("mixed", 0..50, 1);
    changes.extend(orders("trusted", 0..5, 2));
    changes.extend(orders("trusted", 5..10, 1));
    let mixed = sum(&[FAILED_COPY, sum(&MIXED)]);
    assert_eq!(counted.apply(changes).await, (55, mixed));
    let (won, work) = counted.apply(orders("after", 0..50, 1)).await;
    assert_eq!((won, asks(work)), (50, true));
}

/// Whether a batch of new orders was looked up, with or without a new block of ids.
fn asks(work: Work) -> bool {
    let new = sum(&[LOOKUP, TRANSACTION, COPY]);
    work == new || work == sum(&[ID_BLOCK, new])
}

#[tokio::test]
async fn a_small_batch_is_upserted() {
    let counted = Counted::new().await;
    let few = sum(&[TRANSACTION, UPSERT_ORDERS, INSERT_CHILDREN]);
    for count in [1, 31] {
        let name = format!("few-{count}");
        assert_eq!(
            counted.apply(orders(&name, 0..count, 1)).await,
            (count as usize, few)
        );
    }
    assert_eq!(few, work(6, 6));
}

#[tokio::test]
async fn updates_replace_all_children_with_one_statement_per_table() {
    let counted = Counted::new().await;
    let update = sum(&[LOOKUP, TRANSACTION, UPSERT_ORDERS, REPLACE, INSERT_CHILDREN]);
    assert_eq!(
        counted.apply(orders("warm", 0..250, 3)).await,
        (250, update)
    );
    assert_eq!(update, work(8, 8));
}

#[tokio::test]
async fn an_erasure_deletes_children_and_inserts_none() {
    let counted = Counted::new().await;
    let erasures = (0..250)
        .map(|number| erasure(&format!("warm-{number}"), 3))
        .collect();
    let erase = sum(&[LOOKUP, TRANSACTION, UPSERT_ORDERS, REPLACE]);
    assert_eq!(counted.apply(erasures).await, (250, erase));
    assert_eq!(erase, work(5, 5));
}

#[tokio::test]
async fn stale_records_cost_one_comparison() {
    let counted = Counted::new().await;
    let rejected = sum(&[LOOKUP, TRANSACTION, UPSERT_ORDERS]);
    assert_eq!(
        counted.apply(orders("warm", 0..250, 1)).await,
        (0, rejected)
    );
    assert_eq!(rejected, work(4, 4));
    // The worker then reads what Postgres holds, to update Redis.
    let uids: Vec<OrderUid> = (0..250)
        .map(|number| uid(&format!("warm-{number}")))
        .collect();
    assert_eq!(counted.postgres.read_many(&uids).await.unwrap().len(), 250);
    assert_eq!(counted.counters.take(), work(1, 1));
}

#[tokio::test]
async fn a_mixed_batch_costs_no_more_than_its_kinds_together() {
    let counted = Counted::new().await;
    let mut changes = orders("new", 0..100, 1);
    changes.extend(orders("warm", 0..100, 3));
    changes.extend(orders("warm", 100..150, 1));
    let mixed = sum(&MIXED);
    assert_eq!(counted.apply(changes).await, (200, mixed));
    assert_eq!(mixed, work(12, 16));
}

#[tokio::test]
async fn a_cold_read_is_one_round_trip() {
    let counted = Counted::new().await;
    for number in 0..20 {
        let uid = uid(&format!("warm-{number}"));
        assert!(counted.postgres.read(&uid).await.unwrap().is_some());
        assert_eq!(counted.counters.take(), work(1, 1));
    }
    // The four calls of the warm-up, and these twenty.
    eventually("the pool's tests", async || {
        (counted.counters.tests_of_the_pool.load(SeqCst) == 24).then_some(())
    })
    .await;
}

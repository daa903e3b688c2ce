//! Tests of the storage against a real Postgres.

mod columns;
mod copy;
mod grants;
mod inspect;
mod lists;
mod migrations;
mod read;
mod rejections;
mod replays;
mod sequences;
mod tls;
mod versions;
mod write;

use shared::{
    order::Revision,
    storage::{Change, ChangeSet, Class, Postgres},
};
use sqlx::{Connection, PgConnection};

use super::uid;

async fn apply(postgres: &Postgres, changes: Vec<Change>) -> Vec<bool> {
    let (set, _) = ChangeSet::new(changes);
    postgres.apply(&set).await.unwrap().won
}

async fn connect(url: &str) -> PgConnection {
    PgConnection::connect(url).await.unwrap()
}

/// Returns a statement that inserts blank rows of `orders`, as a writer that is not ours would: one
/// for each `n` of `series`, with `columns` from `values`.
fn insert_blank(columns: &str, values: &str, series: &str) -> String {
    format!(
        "INSERT INTO orders (track_number, entry, locale, internal_signature, customer_id, \
                             delivery_service, shard_key, oof_shard, sm_id, date_created, \
                             {columns}) \
         SELECT '', '', '', '', '', '', '', '', 1, now(), {values} \
         FROM generate_series({series}) n"
    )
}

async fn read(postgres: &Postgres, text: &str) -> Option<Revision> {
    postgres.read(&uid(text)).await.unwrap()
}

/// Applies changes and retries like the worker. Concurrent writers can cause a deadlock or a unique
/// violation, and a prepared statement can be older than a column.
async fn apply_as_the_worker_does(postgres: &Postgres, changes: Vec<Change>) {
    let (set, _) = ChangeSet::new(changes);
    while let Err(error) = postgres.apply(&set).await {
        assert!(
            matches!(
                error.class(),
                Class::Transient | Class::Rival | Class::StalePlan
            ),
            "{error}"
        );
    }
}

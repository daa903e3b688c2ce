//! Tests of the storage against a real Postgres.

mod columns;
mod copy;
mod migrations;
mod read;
mod rejections;
mod sequences;
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

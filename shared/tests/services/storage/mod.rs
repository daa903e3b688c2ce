//! Storage against a real Postgres.

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

/// Two writers that meet may choose one of them as a deadlock's victim, or be told so by a key, and statements may be older
/// than a column: the writer tries again.
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

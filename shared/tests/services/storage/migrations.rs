//! Migrations.

use shared::{
    config,
    storage::{
        Postgres, Role,
        schema::{self, Migrated, RevertError},
    },
    testing::TestDatabase,
};

async fn down(
    database: &TestDatabase,
    steps: usize,
    drop_orders: bool,
) -> Result<Migrated, RevertError> {
    schema::migrate_down(&database.url, steps, drop_orders, |_| ()).await
}

#[tokio::test]
async fn migrations_go_down_and_up_again() {
    let database = TestDatabase::empty().await;
    let postgres = database.connect(Role::Api);
    let newest = schema::required_version();
    assert_eq!(postgres.schema_version().await.unwrap(), 0);
    let migrated = schema::migrate(&database.url).await.unwrap();
    assert_eq!((migrated.from, migrated.to), (0, newest));
    for step in 1..=newest {
        let undone = down(&database, 1, true).await.unwrap();
        assert_eq!(undone.to, newest - step);
    }
    let left: i64 = database
        .value(
            "SELECT count(*) FROM pg_class \
             WHERE relnamespace = 'public'::regnamespace AND relname NOT LIKE '_sqlx%'",
        )
        .await;
    assert_eq!(left, 0, "the down files leave nothing behind");
    schema::migrate(&database.url).await.unwrap();
    let all = usize::try_from(newest).unwrap();
    assert_eq!(down(&database, all, true).await.unwrap().to, 0);
    schema::migrate(&database.url).await.unwrap();
    assert_eq!(postgres.schema_version().await.unwrap(), newest);
}

/// An index build waits for the snapshots of all sessions, and so for one that waits for the lock.
#[tokio::test]
async fn migrations_that_start_together_do_not_block_each_other() {
    let database = TestDatabase::empty().await;
    let newest = schema::required_version();
    let migrate = || schema::migrate(&database.url);
    let (one, two, three) = tokio::join!(migrate(), migrate(), migrate());
    let mut before = [one, two, three].map(|migrated| {
        let migrated = migrated.unwrap();
        assert_eq!(migrated.to, newest);
        migrated.from
    });
    before.sort_unstable();
    assert_eq!(before, [0, newest, newest]);
}

#[tokio::test]
async fn an_index_whose_build_was_interrupted_is_built_again() {
    let database = TestDatabase::migrated().await;
    let valid = "SELECT count(*) FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid \
                 WHERE indisvalid AND relname LIKE 'idx_deliveries%'";
    assert_eq!(database.value::<i64>(valid).await, 2);
    // As an interrupted build leaves it.
    database
        .execute(
            "DELETE FROM _sqlx_migrations WHERE description IN ('index phones', 'index emails')",
        )
        .await;
    database
        .execute(
            "UPDATE pg_index SET indisvalid = false \
             WHERE indexrelid = 'idx_deliveries_phone'::regclass",
        )
        .await;
    database.execute("DROP INDEX idx_deliveries_email").await;
    database.migrate().await;
    assert_eq!(database.value::<i64>(valid).await, 2);
}

#[tokio::test]
async fn a_newer_schema_is_not_changed() {
    let database = TestDatabase::migrated().await;
    let newer = schema::required_version() + 1;
    database
        .execute(&format!(
            "INSERT INTO _sqlx_migrations \
                 (version, description, success, checksum, execution_time) \
             VALUES ({newer}, 'later', true, '', 0)"
        ))
        .await;
    let migrated = schema::migrate(&database.url).await.unwrap();
    assert_eq!((migrated.from, migrated.to), (newer, newer));
    assert!(down(&database, 1, true).await.is_err());
}

#[tokio::test]
async fn a_revert_names_why_it_is_rejected_and_changes_nothing() {
    let database = TestDatabase::migrated().await;
    let postgres = database.connect(Role::Api);
    let newest = schema::required_version();
    let all = usize::try_from(newest).unwrap();
    for (steps, drop_orders, expected) in [
        (
            all + 1,
            true,
            format!(
                "--down {}: only {all} migrations are applied; write a number from 1 to {all}",
                all + 1
            ),
        ),
        (
            0,
            true,
            format!("--down 0: only {all} migrations are applied; write a number from 1 to {all}"),
        ),
        (
            all,
            false,
            format!(
                "--down {all} reverts migration 1, which drops every order; write a smaller \
                 number, or add --yes-drop-orders"
            ),
        ),
    ] {
        let error = down(&database, steps, drop_orders).await.unwrap_err();
        assert_eq!(error.to_string(), expected);
        assert_eq!(postgres.schema_version().await.unwrap(), newest);
    }
}

#[tokio::test]
async fn a_worker_of_the_same_schema_keeps_its_migrations() {
    let database = TestDatabase::migrated().await;
    database.execute("CREATE SCHEMA other").await;
    let other = format!("{}?options=-c%20search_path%3Dother", database.url);
    let elsewhere = Postgres::new(&other, &config::Database::default(), Role::Worker).unwrap();
    elsewhere.now().await.unwrap();
    let api = database.connect(Role::Api);
    api.now().await.unwrap();
    down(&database, 1, false).await.unwrap();
    schema::migrate(&database.url).await.unwrap();

    let worker = database.connect(Role::Worker);
    worker.now().await.unwrap();
    let error = down(&database, 1, false).await.unwrap_err().to_string();
    assert!(
        error.starts_with("1 sessions of workers use this schema (from "),
        "{error}"
    );
    assert!(error.ends_with("; stop every worker first"), "{error}");
    worker.close().await;
    down(&database, 1, false).await.unwrap();
}

#[tokio::test]
async fn a_migration_reports_a_table_that_was_dropped_by_other_means() {
    let database = TestDatabase::migrated().await;
    database.execute("DROP TABLE items").await;
    let error = schema::migrate(&database.url).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "every migration is applied, but items is missing, dropped by other means; restore a \
         backup, or drop the whole schema and migrate again"
    );
}

#[tokio::test]
async fn a_database_that_cannot_be_reached_is_named_with_the_next_step() {
    let database = TestDatabase::empty().await;
    let (server, _) = database.url.rsplit_once('/').unwrap();
    for (url, expected) in [
        (
            "orders",
            "DATABASE_URL: not a postgres:// URL; write postgres://",
        ),
        (
            "postgres://127.0.0.1:1/orders",
            "DATABASE_URL: connection to Postgres: Connection refused",
        ),
        (
            &format!("{server}/no_such_database"),
            "DATABASE_URL: Postgres: SQLSTATE 3D000: the database does not exist; create it or \
             correct its name",
        ),
    ] {
        let up = schema::migrate(url).await.unwrap_err().to_string();
        assert!(up.starts_with(expected), "{up}");
        let down = schema::migrate_down(url, 1, false, |_| ()).await;
        let down = down.unwrap_err().to_string();
        assert!(down.starts_with(expected), "{down}");
    }
}

//! Migrations.

use shared::{
    storage::{Role, schema},
    testing::TestDatabase,
};

#[tokio::test]
async fn migrations_go_down_and_up_again() {
    let database = TestDatabase::empty().await;
    let postgres = database.connect(Role::Api);
    let newest = schema::required_version();
    assert_eq!(postgres.schema_version().await.unwrap(), 0);
    let migrated = schema::migrate(&database.url).await.unwrap();
    assert_eq!((migrated.from, migrated.to), (0, newest));
    for step in 1..=newest {
        let undone = schema::migrate_down(&database.url, 1).await.unwrap();
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
    assert_eq!(schema::migrate_down(&database.url, 99).await.unwrap().to, 0);
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
        .execute("DELETE FROM _sqlx_migrations WHERE description LIKE 'index %s'")
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
    assert!(schema::migrate_down(&database.url, 1).await.is_err());
}

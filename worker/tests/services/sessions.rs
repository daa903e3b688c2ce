use shared::{storage::Role, testing::TestDatabase};

/// A pooler drops the settings that a session requests at its start. Then the database must set
/// them.
#[tokio::test]
async fn sessions_without_lock_limits_are_detected() {
    let database = TestDatabase::empty().await;
    assert!(database.connect(Role::Worker).limits_locks().await.unwrap());
    // A role that requests no settings, as all sessions behind a pooler.
    let without_settings = || database.connect(Role::Api);
    assert!(!without_settings().limits_locks().await.unwrap());
    for setting in ["lock_timeout", "idle_in_transaction_session_timeout"] {
        let name: String = database.value("SELECT current_database()::text").await;
        database
            .execute(&format!("ALTER DATABASE {name} SET {setting} = '5s'"))
            .await;
    }
    assert!(without_settings().limits_locks().await.unwrap());
}

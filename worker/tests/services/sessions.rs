use shared::{storage::Role, testing::TestDatabase};

/// A pooler drops the settings that a session requests at its start. Then the database must set
/// them.
#[tokio::test]
async fn it_is_seen_whether_sessions_give_up_locks() {
    let database = TestDatabase::empty().await;
    assert!(
        database
            .connect(Role::Worker)
            .gives_up_locks()
            .await
            .unwrap()
    );
    // A role that requests no settings, as all sessions behind a pooler.
    let asks_for_nothing = || database.connect(Role::Api);
    assert!(!asks_for_nothing().gives_up_locks().await.unwrap());
    for setting in ["lock_timeout", "idle_in_transaction_session_timeout"] {
        let name: String = database.value("SELECT current_database()::text").await;
        database
            .execute(&format!("ALTER DATABASE {name} SET {setting} = '5s'"))
            .await;
    }
    assert!(asks_for_nothing().gives_up_locks().await.unwrap());
}

use shared::{storage::Role, testing::TestDatabase};

/// A pooler drops what a session asks for at its start; then it has to come from the database.
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
    // A role that asks for nothing, as all are behind a pooler.
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

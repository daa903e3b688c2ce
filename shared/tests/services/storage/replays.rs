use shared::{
    storage::{LetterPlace, Postgres, Role},
    testing::TestDatabase,
};

const TOPIC: &str = "orders-dlq";

fn place(partition: i32, offset: i64) -> LetterPlace {
    LetterPlace {
        partition,
        offset,
        timestamp_ms: 7,
    }
}

/// Returns for each place whether it was replayed, and if so, whether as a new record.
async fn marks(postgres: &Postgres, places: &[LetterPlace]) -> Vec<Option<bool>> {
    let replayed = postgres.replayed(TOPIC, places).await.unwrap();
    let as_new = replayed.iter().map(|replayed| replayed.map(|it| it.as_new));
    as_new.collect()
}

#[tokio::test]
async fn a_mark_counts_for_one_record_and_keeps_that_it_was_sent_as_new() {
    let database = TestDatabase::migrated().await;
    let postgres = database.connect(Role::Worker);
    let places = [place(1, 5), place(0, 5), place(1, 4)];
    assert_eq!(marks(&postgres, &places).await, [None; 3]);

    // A place that is listed twice is no error.
    let twice = [places[0], places[0]];
    postgres.mark_replayed(TOPIC, &twice, true).await.unwrap();
    postgres
        .mark_replayed(TOPIC, &places[1..2], false)
        .await
        .unwrap();
    let expected = [Some(true), Some(false), None];
    assert_eq!(marks(&postgres, &places).await, expected);
    let other = postgres.replayed("another-dlq", &places).await.unwrap();
    assert_eq!(other, [None; 3]);

    let first = postgres.replayed(TOPIC, &places[..1]).await.unwrap()[0].unwrap();
    postgres.mark_replayed(TOPIC, &twice, false).await.unwrap();
    let second = postgres.replayed(TOPIC, &places[..1]).await.unwrap()[0].unwrap();
    assert!(second.as_new && second.at > first.at, "{second:?}");

    // The topic was recreated.
    let mut reused = places[0];
    reused.timestamp_ms = 8;
    assert_eq!(marks(&postgres, &[reused]).await, [None]);
    postgres
        .mark_replayed(TOPIC, &[reused], false)
        .await
        .unwrap();
    assert_eq!(marks(&postgres, &[reused]).await, [Some(false)]);
}

#[tokio::test]
async fn marks_of_deleted_dead_letters_are_forgotten() {
    let database = TestDatabase::migrated().await;
    let postgres = database.connect(Role::Worker);
    let places = [place(0, 1), place(0, 2), place(1, 1), place(2, 1)];
    for topic in [TOPIC, "another-dlq"] {
        postgres.mark_replayed(topic, &places, false).await.unwrap();
    }
    postgres
        .forget_replays(TOPIC, &[(0, 2), (1, 9)])
        .await
        .unwrap();
    let left = [None, Some(false), None, Some(false)];
    assert_eq!(marks(&postgres, &places).await, left);
    let other: i64 = database
        .value("SELECT count(*) FROM dead_letter_replays WHERE topic = 'another-dlq'")
        .await;
    assert_eq!(other, 4);
}

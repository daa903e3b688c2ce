//! Columns of every kind, written and read in Postgres.

use sqlx::{Connection as _, PgConnection, Row as _};

use super::*;
use crate::{order::REPRESENTATION, storage::rows::Rows, testing::TestDatabase};

#[derive(Clone, Debug, PartialEq)]
struct Sample {
    always: SmolStr,
    note: Option<SmolStr>,
    number: i32,
}

columns! {
    Sample {
        always: text;
        note: text since 2;
        number: int4 as amount since 3 else "7";
    }
}

static SAMPLES: Table = Table {
    name: "samples",
    columns: &[&[Column::new("representation", "int2")], Sample::COLUMNS],
};

const CREATE: &str = "CREATE TABLE samples \
    (representation SMALLINT NOT NULL, always TEXT NOT NULL, note TEXT, amount INTEGER NOT NULL)";

fn sample(always: &str, note: Option<&str>, number: i32) -> Sample {
    Sample {
        always: always.into(),
        note: note.map(SmolStr::from),
        number,
    }
}

/// Returns one sample as writers of each shape left it, and one without a note.
fn samples() -> Vec<(i16, Sample)> {
    let full = |always| sample(always, Some("a note"), 3);
    vec![
        (1, full("a")),
        (2, full("b")),
        (3, full("c")),
        (3, sample("d", None, 4)),
    ]
}

/// Returns the samples as they are read: without what their writers did not know.
fn readable() -> Vec<Sample> {
    vec![
        sample("a", None, 7),
        sample("b", Some("a note"), 7),
        sample("c", Some("a note"), 3),
        sample("d", None, 4),
    ]
}

async fn database() -> (TestDatabase, PgConnection) {
    let database = TestDatabase::empty().await;
    database.execute(CREATE).await;
    let connection = PgConnection::connect(&database.url).await.unwrap();
    (database, connection)
}

async fn read(connection: &mut PgConnection) -> Vec<Sample> {
    let columns = selected("s", Sample::COLUMNS);
    let select = format!("SELECT {columns} FROM samples s ORDER BY always");
    let rows = sqlx::query(sqlx::AssertSqlSafe(select));
    let rows = rows.fetch_all(connection).await.unwrap();
    let read = |row| Sample::read(&mut Reader::new(row)).unwrap();
    rows.iter().map(read).collect()
}

#[tokio::test]
async fn copied_row_of_an_older_shape_lacks_later_columns() {
    let (_database, mut connection) = database().await;
    let mut rows = Rows::new();
    for (representation, sample) in samples() {
        let mut row = rows.row();
        representation.copy(&mut row);
        sample.copy(&mut row);
        row.end();
    }
    let mut copy = connection.copy_in_raw(&SAMPLES.copy()).await.unwrap();
    copy.send(rows.finish()).await.unwrap();
    copy.finish().await.unwrap();
    assert_eq!(read(&mut connection).await, readable());
}

#[tokio::test]
async fn inserted_row_of_an_older_shape_lacks_later_columns() {
    let (_database, mut connection) = database().await;
    let samples = samples();
    let representations: Vec<i16> = samples.iter().map(|(number, _)| *number).collect();
    let statement: &'static str = SAMPLES.insert().leak();
    let insert = sqlx::query(statement).bind(representations);
    let insert = Sample::bind(insert, samples.iter().map(|(_, sample)| Some(sample)));
    insert.execute(&mut connection).await.unwrap();
    assert_eq!(read(&mut connection).await, readable());

    let columns = aggregated("s", Sample::COLUMNS);
    let select = format!("SELECT {columns} FROM (SELECT * FROM samples ORDER BY always) s");
    let row = sqlx::query(sqlx::AssertSqlSafe(select));
    let row = row.fetch_one(&mut connection).await.unwrap();
    let all = Sample::read_all(&mut Reader::new(&row)).unwrap();
    assert_eq!(all, readable());
}

#[tokio::test]
async fn row_of_nothing_is_blank() {
    let (_database, mut connection) = database().await;
    let statement: &'static str = SAMPLES.insert().leak();
    let insert = Sample::bind(sqlx::query(statement).bind(vec![3_i16]), [None].into_iter());
    insert.execute(&mut connection).await.unwrap();
    assert_eq!(read(&mut connection).await, [sample("", None, 0)]);
}

#[tokio::test]
async fn arrays_of_different_lengths_are_an_error() {
    let (_database, mut connection) = database().await;
    let select = "SELECT ARRAY['a', 'b'], ARRAY['n'], ARRAY[1, 2]";
    let row = sqlx::query(select)
        .fetch_one(&mut connection)
        .await
        .unwrap();
    assert_eq!(row.len(), Sample::COLUMNS.len());
    assert!(Sample::read_all(&mut Reader::new(&row)).is_err());
}

#[test]
fn statements_follow_from_the_list() {
    assert_eq!(
        SAMPLES.copy(),
        "COPY samples (representation, always, note, amount) FROM STDIN (FORMAT binary) \
         WHERE true OR (representation | amount | 0) = 0"
    );
    assert_eq!(
        SAMPLES.insert(),
        "INSERT INTO samples (representation, always, note, amount) \
         SELECT * FROM unnest($1::int2[], $2::text[], $3::text[], $4::int4[])"
    );
    assert_eq!(
        SAMPLES.assignments(&["representation", "always"]),
        "note = EXCLUDED.note, amount = EXCLUDED.amount"
    );
    assert_eq!(
        selected("s", Sample::COLUMNS),
        "s.always::text, (CASE WHEN s.representation >= 2 THEN s.note ELSE NULL END)::text, \
         (CASE WHEN s.representation >= 3 THEN s.amount ELSE 7 END)::int4"
    );
}

/// Without `since`, a row that an older worker replaced shows a value of an earlier version. The
/// rows of child tables are always inserted anew, so their columns need none.
#[test]
fn each_later_column_of_orders_states_its_shape() {
    let first = Order::COLUMNS.iter().filter(|column| column.since == 1);
    let first: Vec<&str> = first.map(|column| column.name).collect();
    assert_eq!(
        first,
        [
            "track_number",
            "entry",
            "locale",
            "internal_signature",
            "customer_id",
            "delivery_service",
            "shard_key",
            "sm_id",
            "date_created",
            "oof_shard",
        ],
        "a later column needs `since`"
    );
    for column in Order::COLUMNS {
        assert!(
            column.since <= REPRESENTATION,
            "{}: raise REPRESENTATION",
            column.name
        );
    }
    let children = [Delivery::COLUMNS, Payment::COLUMNS, Item::COLUMNS];
    assert!(
        children
            .iter()
            .copied()
            .flatten()
            .all(|column| column.since == 1)
    );
}

//! Rows that only Postgres rejects, each in a different way.

use shared::{
    config,
    order::Order,
    storage::{ChangeSet, Class, Postgres, Role, StorageError},
    testing::TestDatabase,
};

use super::apply;
use crate::{change, order};

/// The customer whose orders are rejected.
const CUSTOMER: &str = "rejected";

fn rejected(name: &str) -> Order {
    let mut order = order(name, 1);
    order.customer_id = CUSTOMER.into();
    order
}

/// Creates a trigger that raises `code` for orders of the customer.
async fn raise(database: &TestDatabase, code: &str) {
    database
        .execute(&format!(
            "CREATE OR REPLACE FUNCTION reject() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
             IF NEW.customer_id = '{CUSTOMER}' THEN \
                 RAISE EXCEPTION 'no' USING ERRCODE = '{code}'; \
             END IF; \
             RETURN NEW; END $$"
        ))
        .await;
    database
        .execute(
            "CREATE OR REPLACE TRIGGER reject BEFORE INSERT ON orders \
             FOR EACH ROW EXECUTE FUNCTION reject()",
        )
        .await;
}

/// Returns the error of a batch with one rejected order. The batch is upserted if `others` is
/// small, and copied otherwise.
async fn rejection(postgres: &Postgres, others: u64) -> StorageError {
    let mut orders: Vec<Order> = (0..others).map(|n| order(&format!("u{n}"), n)).collect();
    orders.push(rejected("bad"));
    let (set, _) = ChangeSet::new(orders.iter().map(|order| change(order, 1)).collect());
    postgres.apply(&set).await.unwrap_err()
}

#[tokio::test]
async fn errors_of_triggers_are_record_errors() {
    let database = TestDatabase::migrated().await;
    let postgres = database.connect(Role::Worker);
    for (code, class) in [
        ("P0001", Class::Record),
        ("20000", Class::Record),
        ("38000", Class::Record),
        ("44000", Class::Record),
        ("UE001", Class::Record),
        ("75000", Class::Record),
        ("42501", Class::Unknown),
        ("0A000", Class::Unknown),
        ("55000", Class::Unknown),
        ("XX000", Class::Unknown),
        ("40001", Class::Transient),
    ] {
        raise(&database, code).await;
        for others in [0, 50] {
            let error = rejection(&postgres, others).await;
            assert_eq!(
                (error.sqlstate(), error.class()),
                (Some(code), class),
                "{others} others"
            );
        }
    }
}

#[tokio::test]
async fn an_oversized_index_row_is_a_record_error() {
    let database = TestDatabase::migrated().await;
    // Sixteen thousand characters that barely compress.
    for statement in [
        "CREATE FUNCTION long(text) RETURNS text IMMUTABLE LANGUAGE sql AS \
         $$ SELECT string_agg(md5(n || $1), '') FROM generate_series(1, 500) n \
            WHERE $1 = 'rejected' $$",
        "CREATE INDEX test ON orders (long(customer_id))",
    ] {
        database.execute(statement).await;
    }
    let postgres = database.connect(Role::Worker);
    for others in [0, 50] {
        let error = rejection(&postgres, others).await;
        assert_eq!(
            (error.sqlstate(), error.class()),
            (Some("54000"), Class::Record)
        );
    }
}

/// A role that owns nothing, as `docs/operations.md` requires, and that may not store every row.
#[tokio::test]
async fn a_policy_violation_is_a_record_error_and_a_missing_privilege_a_deployment_error() {
    let database = TestDatabase::migrated().await;
    let role = format!("role_{:016x}", rand::random::<u64>());
    for statement in [
        format!("CREATE ROLE {role} LOGIN PASSWORD 'secret'"),
        format!("GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {role}"),
        format!("GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO {role}"),
        "ALTER TABLE orders ENABLE ROW LEVEL SECURITY".to_owned(),
        format!(
            "CREATE POLICY test ON orders USING (true) WITH CHECK (customer_id <> '{CUSTOMER}')"
        ),
    ] {
        database.execute(&statement).await;
    }
    let (scheme, rest) = database.url.split_once("://").unwrap();
    let (_, server) = rest.split_once('@').unwrap();
    let url = format!("{scheme}://{role}:secret@{server}");
    let postgres = Postgres::new(&url, &config::Database::default(), Role::Worker).unwrap();
    // Postgres rejects `COPY FROM` into a table with row-level security.
    let orders = (0..50).map(|n| change(&order(&format!("good-{n}"), n), 1));
    assert_eq!(apply(&postgres, orders.collect()).await, [true; 50]);
    for others in [0, 50] {
        let error = rejection(&postgres, others).await;
        assert_eq!(
            (error.sqlstate(), error.class()),
            (Some("42501"), Class::Unknown)
        );
    }
    database
        .execute(&format!("REVOKE INSERT ON items FROM {role}"))
        .await;
    let (set, _) = ChangeSet::new(vec![change(&order("good", 1), 1)]);
    let error = postgres.apply(&set).await.unwrap_err();
    assert_eq!(
        (error.sqlstate(), error.class()),
        (Some("42501"), Class::Deployment)
    );
    postgres.close().await;
    database.execute(&format!("DROP OWNED BY {role}")).await;
    database.execute(&format!("DROP ROLE {role}")).await;
}

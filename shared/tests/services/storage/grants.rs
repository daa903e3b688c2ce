//! The least rights of each role.

use shared::{
    config,
    grants::Names,
    storage::{
        ChangeSet, Postgres, Role,
        schema::{self, grants},
    },
    testing::TestDatabase,
};
use uuid::Uuid;

use super::apply;
use crate::{change, order};

/// Roles of one test, because roles belong to the whole server.
struct Roles {
    suffix: String,
    names: Names,
}

impl Roles {
    fn new() -> Self {
        let suffix = Uuid::new_v4().simple().to_string();
        let name = |role: &str| format!("{role}_{suffix}");
        let names = Names {
            migrate: name("migrate"),
            worker: name("Worker-1"),
            api: name("api"),
            operator: name("operator"),
        };
        Self { suffix, names }
    }

    fn all(&self) -> [&str; 4] {
        let names = &self.names;
        [&names.migrate, &names.worker, &names.api, &names.operator]
    }

    /// Lets every role log in.
    async fn set_passwords(&self, database: &TestDatabase) {
        for name in self.all() {
            database
                .execute(&format!("ALTER ROLE \"{name}\" PASSWORD 'secret'"))
                .await;
        }
    }

    async fn remove(&self, database: &TestDatabase) {
        let admin = format!("admin_{}", self.suffix);
        for name in self.all().into_iter().chain([admin.as_str()]) {
            let exists = format!("SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = '{name}')");
            if database.value::<bool>(&exists).await {
                // The database itself, too.
                database
                    .execute(&format!("REASSIGN OWNED BY \"{name}\" TO CURRENT_USER"))
                    .await;
                database
                    .execute(&format!("DROP OWNED BY \"{name}\" CASCADE"))
                    .await;
                database.execute(&format!("DROP ROLE \"{name}\"")).await;
            }
        }
    }
}

/// Returns the URL of the database with another user.
fn url_of(database: &TestDatabase, name: &str) -> String {
    let (_, address) = database.url.split_once('@').unwrap();
    format!("postgres://{name}:secret@{address}")
}

async fn run(url: &str, sql: &str) -> Result<(), sqlx::Error> {
    use sqlx::Connection as _;
    let mut connection = sqlx::PgConnection::connect(url).await?;
    sqlx::raw_sql(sqlx::AssertSqlSafe(sql.to_owned()))
        .execute(&mut connection)
        .await?;
    connection.close().await
}

async fn store(worker: &Postgres, uid: &str, offset: i64) {
    let won = apply(worker, vec![change(&order(uid, 1), offset)]).await;
    assert_eq!(won, [true]);
}

fn connect(database: &TestDatabase, name: &str, role: Role) -> Postgres {
    let url = url_of(database, name);
    Postgres::new(&url, &config::Database::default(), role).unwrap()
}

#[tokio::test]
async fn the_owner_of_the_database_can_give_the_rights_before_and_after_the_migration() {
    let database = TestDatabase::empty().await;
    let roles = Roles::new();
    let admin = format!("admin_{}", roles.suffix);
    database
        .execute(&format!(
            "CREATE ROLE {admin} LOGIN CREATEROLE PASSWORD 'secret'"
        ))
        .await;
    let name: String = database.value("SELECT current_database()::text").await;
    database
        .execute(&format!("ALTER DATABASE {name} OWNER TO {admin}"))
        .await;
    let admin = url_of(&database, &admin);
    let sql = grants(&roles.names, "public");
    run(&admin, &sql).await.unwrap();
    roles.set_passwords(&database).await;
    schema::migrate(&url_of(&database, &roles.names.migrate))
        .await
        .unwrap();

    // Before the grants are renewed, default privileges suffice.
    let worker = connect(&database, &roles.names.worker, Role::Worker);
    let api = connect(&database, &roles.names.api, Role::Api);
    store(&worker, "first", 1).await;
    assert_eq!(api.newest(10).await.unwrap().len(), 1);
    for _ in 0..2 {
        run(&admin, &sql).await.unwrap();
    }
    store(&worker, "second", 2).await;
    assert_eq!(api.newest(10).await.unwrap().len(), 2);
    assert_eq!(api.schema_defect().await.unwrap(), None);
    let (third, _) = ChangeSet::new(vec![change(&order("third", 3), 3)]);
    assert!(api.apply(&third).await.is_err());
    let may = format!(
        "SELECT has_table_privilege('{}', 'dead_letter_replays', 'SELECT') \
             OR has_table_privilege('{}', 'orders', 'DELETE')",
        roles.names.api, roles.names.worker
    );
    assert!(!database.value::<bool>(&may).await, "too many rights");
    worker.close().await;
    api.close().await;
    schema::migrate_down(&url_of(&database, &roles.names.migrate), 1, false, |_| ())
        .await
        .unwrap();
    roles.remove(&database).await;
}

/// Until now, one role had every right.
#[tokio::test]
async fn tables_of_another_owner_are_taken_over() {
    let database = TestDatabase::migrated().await;
    let roles = Roles::new();
    run(&database.url, &grants(&roles.names, "public"))
        .await
        .unwrap();
    let others: i64 = database
        .value(&format!(
            "SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace \
             AND relkind IN ('r', 'S') AND relowner <> '{}'::regrole",
            roles.names.migrate
        ))
        .await;
    assert_eq!(others, 0);
    roles.set_passwords(&database).await;
    let worker = connect(&database, &roles.names.worker, Role::Worker);
    store(&worker, "taken", 1).await;
    worker.close().await;
    roles.remove(&database).await;
}

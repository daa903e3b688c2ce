//! The checks at the start of a process.

use std::{
    io::{self, Write},
    mem,
    sync::{Arc, Mutex},
};

use shared::{
    cache::Cache,
    startup::{self, EvictionCheck, SchemaProblem},
    storage::{
        Role,
        schema::{self, SchemaDefect},
    },
    testing::{TestDatabase, TestRedis, eventually},
};
use tracing::subscriber::DefaultGuard;

/// Collects the log of the current thread until it is dropped.
struct Log {
    text: Arc<Mutex<Vec<u8>>>,
    _guard: DefaultGuard,
}

#[derive(Clone)]
struct Writer(Arc<Mutex<Vec<u8>>>);

impl Write for Writer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Log {
    fn collect() -> Self {
        let text = Arc::<Mutex<Vec<u8>>>::default();
        let writer = Writer(Arc::clone(&text));
        let subscriber = tracing_subscriber::fmt()
            // A busy machine makes sqlx warn, too.
            .with_env_filter("shared=warn")
            .with_ansi(false)
            .with_writer(move || writer.clone())
            .finish();
        Self {
            text,
            _guard: tracing::subscriber::set_default(subscriber),
        }
    }

    /// Returns the lines since the last call.
    fn take(&self) -> String {
        String::from_utf8(mem::take(&mut self.text.lock().unwrap())).unwrap()
    }
}

#[tokio::test]
async fn the_wait_for_the_schema_reports_each_problem_once_and_ends_after_the_migration() {
    let database = TestDatabase::empty().await;
    let postgres = database.connect(Role::Api);
    let log = Log::collect();
    let seen = Mutex::new((0, 0));
    let wait = startup::wait_for_schema(&postgres, |problem| {
        let mut seen = seen.lock().unwrap();
        match problem {
            SchemaProblem::Defect(SchemaDefect::TooOld { found, required }) => {
                // Between two migrations, the version is in between.
                assert!(found < required && *required == schema::required_version());
                seen.0 += 1;
            }
            SchemaProblem::Unreachable(_) => seen.1 += 1,
            other => panic!("{other:?}"),
        }
    });
    let script = async {
        eventually("two checks of an old schema", async || {
            (seen.lock().unwrap().0 >= 2).then_some(())
        })
        .await;
        let lines = log.take();
        assert_eq!(lines.lines().count(), 1, "{lines}");
        let expected = "the database schema is too old; run `worker migrate` found=0";
        assert!(lines.contains(expected), "{lines}");
        database.shut().await;
        eventually("two checks without Postgres", async || {
            (seen.lock().unwrap().1 >= 2).then_some(())
        })
        .await;
        let lines = log.take();
        assert_eq!(lines.lines().count(), 1, "{lines}");
        assert!(
            lines.contains("waiting for Postgres (DATABASE_URL)"),
            "{lines}"
        );
        database.open().await;
        database.migrate().await;
    };
    tokio::join!(wait, script);
}

#[tokio::test]
async fn an_unsuitable_eviction_policy_is_logged_once() {
    let mut redis = TestRedis::start();
    let cache = Cache::pooled(&redis.config()).unwrap();
    let log = Log::collect();
    EvictionCheck::default().run(&cache).await;
    assert_eq!(log.take(), "", "allkeys-lru is right");

    let mut check = EvictionCheck::default();
    redis.kill();
    check.run(&cache).await;
    assert_eq!(
        log.take(),
        "",
        "without an answer there is nothing to compare"
    );
    redis.restart();
    let _: () = redis::cmd("CONFIG")
        .arg(&["SET", "maxmemory-policy", "noeviction"])
        .query_async(&mut redis.connect().await)
        .await
        .unwrap();
    let lines = eventually("the check of a Redis that is back", async || {
        check.run(&cache).await;
        Some(log.take()).filter(|lines| !lines.is_empty())
    })
    .await;
    let expected =
        r#"unsuitable maxmemory-policy of Redis policy="noeviction" recommended="allkeys-lru""#;
    assert!(lines.contains(expected), "{lines}");
    check.run(&cache).await;
    assert_eq!(log.take(), "");
}

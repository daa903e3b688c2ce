//! Procedures of `docs/operations.md`, step by step: a restore from a backup.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
    time::SystemTime,
};

use chrono::{DateTime, SecondsFormat, Utc};
use e2e::{Draft, Feed, Ledger, Stack, Worker, entries, until};
use shared::order::sample::{Defect, Generator};

const RESTORED: &str = "Postgres lacks records that this group has finished";
const NOT_RESTORED: &str = "Postgres holds the newest records that this group has finished";

fn drafts(seed: u64, count: usize) -> Vec<Draft> {
    Generator::new(seed, 1..=3)
        .take(count)
        .map(|order| Draft::order(&order))
        .collect()
}

/// A backup file. Dropping this value removes the file.
struct Backup(PathBuf);

impl Backup {
    #[track_caller]
    fn take(stack: &Stack) -> Self {
        let backup = Self(env::temp_dir().join(format!("{:016x}.dump", rand::random::<u64>())));
        let url = format!("--dbname={}", stack.addresses().database_url);
        postgres_tool("pg_dump", &["--format=custom", &url, "--file"], &backup.0);
        backup
    }

    #[track_caller]
    fn restore(&self, stack: &Stack) {
        let url = format!("--dbname={}", stack.addresses().database_url);
        let options = ["--clean", "--if-exists", "--single-transaction", &url];
        postgres_tool("pg_restore", &options, &self.0);
    }
}

impl Drop for Backup {
    fn drop(&mut self) {
        // A file that remains in the temporary folder is harmless.
        let _ = std::fs::remove_file(&self.0);
    }
}

#[track_caller]
fn postgres_tool(name: &str, options: &[&str], file: &Path) {
    let folder =
        env::var("ORDER_SERVICE_PG_BIN").expect("ORDER_SERVICE_PG_BIN: `make test` sets it");
    let output = Command::new(Path::new(&folder).join(name))
        .args(options)
        .arg(file)
        .output()
        .unwrap_or_else(|error| panic!("{name}: {error}"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{name}: {said}");
}

#[track_caller]
fn await_log(worker: &Worker, text: &str) {
    until(text, || match worker.process.log() {
        log if log.contains(text) => Ok(()),
        _ => Err("not said"),
    });
}

/// Sends changes and an erasure of orders in the backup, and rejected records at the very end.
/// Returns the uid of the erased order.
fn send_changes(stack: &Stack, since: &mut Ledger) -> String {
    let mut order = Generator::new(201, 1..=3).nth(7).unwrap();
    order.track_number = "CHANGED-SINCE".into();
    stack.send(since, &[Draft::order(&order)]);
    let gone = Generator::new(201, 1..=3).nth(8).unwrap().order_uid;
    stack.send(since, &[Draft::erasure(&gone)]);
    stack.send(since, &drafts(203, 60));
    let spoilt: Vec<Draft> = Generator::new(204, 1..=1)
        .take(12)
        .map(|order| Draft::rejected(Defect::Phone.reason(), Defect::Phone.apply(&order)))
        .collect();
    stack.send(since, &spoilt);
    gone.into()
}

/// Rewinds the group, once no worker runs, to the offsets of the time `quiet`.
fn rewind(stack: &mut Stack, quiet: &str, records: usize) {
    let rejected = stack.command("worker", &["rewind", "--to", quiet]).failed();
    assert!(
        rejected.contains("has 1 active member; stop every worker first"),
        "{rejected}"
    );
    stack.stop_workers();
    let progress = stack.progress();
    let again = format!("{} records to be read again", records);
    for arguments in [
        &["rewind", "--to", quiet, "--dry-run"][..],
        &["rewind", "--to", quiet],
    ] {
        assert_eq!(stack.progress(), progress, "set too early");
        let said = stack.command("worker", arguments).succeeded();
        assert!(said.contains(&again), "{said}");
    }
}

/// Clears the cache. Keys of others stay.
fn clear_cache(stack: &Stack) {
    let url = &stack.addresses().redis_url;
    let held = entries(url).unwrap().len();
    stack.redis.command(&["SET", "foreign-key", "1"]);
    let said = stack
        .command("worker", &["cache", "clear", "--dry-run"])
        .succeeded();
    assert_eq!(said, format!("{held} orders would be removed from Redis\n"));
    let said = stack.command("worker", &["cache", "clear"]).succeeded();
    assert_eq!(said, format!("{held} orders were removed from Redis\n"));
    assert_eq!(stack.redis.watermark().unwrap(), None);
    stack
        .redis
        .command(&["RENAME", "foreign-key", "still-there"]);
}

/// Asserts that every tier matches the ledger, and that Redis holds every order of `since` again.
fn assert_restored(stack: &Stack, ledger: &Ledger, since: &Ledger) {
    stack.check().postgres(ledger);
    stack.check().dead_letters_at_least_once(ledger);
    stack.check().redis_remains(ledger);
    let cached = entries(&stack.addresses().redis_url).unwrap();
    let missing = since
        .orders()
        .into_keys()
        .find(|uid| !cached.contains_key(uid));
    assert_eq!(missing, None, "was read again, and is not in Redis");
    for api in &stack.apis {
        stack.check().api(ledger, &api.url(), "local");
        stack.check().api_in_postgres(ledger, &api.url());
    }
    stack.check().redis_remains(ledger);
}

#[test]
fn after_a_restore_from_a_backup_all_tiers_match_the_ledger() {
    let mut stack = Stack::builder("restore")
        // So long that only the command clears the local caches.
        .variable("LOCAL_CACHE_TTL", "1h")
        .variable("RUST_LOG", "info,worker=debug")
        .workers(2)
        .apis(2)
        .start();
    let mut ledger = Ledger::default();
    stack.send(&mut ledger, &drafts(201, 300));
    stack.settle();
    let quiet =
        DateTime::<Utc>::from(SystemTime::now()).to_rfc3339_opts(SecondsFormat::Millis, true);
    let before = ledger.clone();

    // A backup under load: orders, changes and erasures of earlier orders, rejected records.
    let feed = Feed::of_everything(stack.addresses(), 202);
    stack.await_orders(600);
    let backup = Backup::take(&stack);
    stack.await_orders(stack.database().count() + 600);
    let mut since = feed.stop();
    let gone = send_changes(&stack, &mut since);
    ledger.append(since.clone());
    stack.settle();
    stack.check().tiers(&ledger);
    let newest = drafts(203, 1)[0].record.key.clone().unwrap();
    let newest = String::from_utf8(newest).unwrap();
    for api in &stack.apis {
        api.await_source(&newest, "local");
        api.order(&gone).problem(410);
    }
    // No restore is detected, and a starting worker logs that.
    await_log(stack.start_worker(), NOT_RESTORED);

    stack.stop_workers();
    backup.restore(&stack);
    assert!(
        stack.database().count() < ledger.orders().len(),
        "an older state"
    );
    await_log(stack.start_worker(), RESTORED);

    // The steps that the log names: stop every worker, rewind, clear, start.
    rewind(&mut stack, &quiet, since.records().len());
    assert_eq!(stack.progress().0, before.records().len() as i64);
    // Until its cache is cleared, the api returns the state before the restore.
    for api in &stack.apis {
        api.await_source(&newest, "local");
    }
    clear_cache(&stack);
    stack.await_status(&newest, 404);
    stack.await_status(&gone, 200);

    stack.start_worker();
    stack.start_worker();
    stack.settle();
    assert_restored(&stack, &ledger, &since);
}

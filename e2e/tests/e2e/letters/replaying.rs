use e2e::{Database, Draft, Ledger, Record, Signal, Stack, until};
use shared::order::{Order, Reason, sample::Generator};

use super::{assert_contains, json, letter, letters, rejected, replayed, send_letters, uids};

/// Makes Postgres reject the orders of [`for_database`] until it is dropped.
fn reject(database: &Database) {
    database.execute("ALTER TABLE payments ADD CONSTRAINT e2e CHECK (amount <> 424242)");
}

fn accept(database: &Database) {
    database.execute("ALTER TABLE payments DROP CONSTRAINT e2e");
}

fn for_database(uid: &str, seed: u64) -> Order {
    let mut order = Generator::new(seed, 1..=1).next().unwrap();
    order.order_uid = uid.into();
    order.payment.amount = 424_242;
    order
}

/// Sends orders that Postgres rejects now and accepts when this returns, one by one, so that the
/// worker's breaker stays closed.
fn send_for_database(stack: &Stack, uids: &[&str]) {
    let database = stack.database();
    reject(&database);
    let mut ledger = Ledger::default();
    let good: Vec<Draft> = Generator::new(77, 1..=1)
        .take(60)
        .map(|order| Draft::order(&order))
        .collect();
    stack.send(&mut ledger, &good);
    let orders = uids
        .iter()
        .zip(100..)
        .map(|(uid, seed)| for_database(uid, seed));
    let drafts = orders.map(|order| Draft::order(&order).but_rejected(Reason::RejectedByDatabase));
    stack.send(&mut ledger, &drafts.collect::<Vec<_>>());
    stack.settle();
    accept(&database);
}

#[test]
fn a_replay_asks_and_marks_what_it_sent() {
    let stack = Stack::builder("marks").workers(1).apis(1).start();
    send_for_database(&stack, &["a", "b", "c"]);
    let (_, sent) = stack.progress();
    let assert_sent = |count: i64| assert_eq!(stack.progress().1, sent + count);

    let error = stack.command("worker", &["dead-letters", "replay"]);
    assert_eq!(error.code, Some(2));
    assert_contains(&error.failed(), &["--all", "--reason"]);
    let by_reason = ["replay", "--reason", "rejected_by_database"];
    assert_contains(&rejected(&stack, &by_reason), &["--yes"]);
    let dry_run = json(&stack, &[&by_reason[..], &["--dry-run"]].concat());
    assert_eq!(uids(&dry_run), ["a", "b", "c"]);

    let ask = |answer: &str| {
        let line = format!(
            "printf '{answer}\\n' | script -qec '$BIN/worker dead-letters replay --uid a' /dev/null"
        );
        stack.shell(&line, &[])
    };
    let question =
        "send 1 dead letter back (1 rejected_by_database) with their original versions. Continue?";
    assert_contains(&ask("n").failed(), &[question, "not confirmed"]);
    assert_sent(0);
    assert_eq!(replayed(&stack), Vec::<String>::new());
    assert_contains(
        &ask("y").succeeded(),
        &[question, "sent 1 dead letter back"],
    );
    assert_sent(1);
    assert_eq!(replayed(&stack), ["a"]);

    let printed = letters(&stack, &["replay", "--all", "--limit", "1", "--yes"]);
    assert_contains(&printed, &["sent 1 dead letter back"]);
    assert_sent(2);
    letters(&stack, &["replay", "--all", "--yes"]);
    assert_sent(3);
    assert_eq!(replayed(&stack), ["a", "b", "c"]);
    letters(&stack, &["replay", "--all", "--yes"]);
    assert_sent(3);
    letters(&stack, &["replay", "--uid", "b", "--again", "--yes"]);
    assert_sent(4);
    stack.settle();
    for uid in ["a", "b", "c"] {
        stack.await_status(uid, 200);
    }
}

#[test]
fn an_erased_order_comes_back_only_by_force() {
    let stack = Stack::builder("force").workers(1).apis(1).start();
    send_for_database(&stack, &["gone", "here"]);
    stack.send(&mut Ledger::default(), &[Draft::erasure("gone")]);
    stack.await_status("gone", 410);
    // With its version, the dead letter is older than the erasure.
    let stale = stack.workers[0].messages("stale");
    letters(&stack, &["replay", "--uid", "gone", "--yes"]);
    stack.settle();
    assert_eq!(stack.workers[0].messages("stale"), stale + 1);
    stack.await_status("gone", 410);
    let (_, sent) = stack.progress();

    let as_new = ["replay", "--all", "--as-new", "--yes"];
    let error = rejected(&stack, &as_new);
    assert_contains(
        &error,
        &["order gone was erased", "--force", "1 dead letter rejected"],
    );
    assert_eq!(stack.progress().1, sent + 1, "the other one is sent");
    stack.await_status("here", 200);
    stack.settle();
    stack.await_status("gone", 410);

    letters(&stack, &[&as_new[..], &["--force"]].concat());
    stack.await_status("gone", 200);
    assert_eq!(replayed(&stack), ["gone", "here"]);
}

/// Dead letters that a replay sends before it records them.
const CHUNK: i64 = 500;

#[track_caller]
fn await_sent(stack: &Stack, count: i64) {
    until(&format!("{count} records"), || match stack.progress().1 {
        sent if sent == count => Ok(()),
        sent => Err(sent),
    });
}

#[test]
fn an_interrupted_replay_continues() {
    const COUNT: i64 = 1200;
    let mut stack = Stack::builder("continue").start();
    let topic = stack.addresses().topic.clone();
    let many: Vec<Record> = (0..COUNT as usize).map(|n| letter(&topic, 0, n)).collect();
    send_letters(&stack, &many);
    let replay = ["dead-letters", "replay", "--all", "--yes"];

    // Reads are possible, marks have to wait.
    let mut blocker = stack.database().session();
    blocker.execute("BEGIN");
    blocker.execute("LOCK TABLE dead_letter_replays IN SHARE MODE");
    let mut replaying = stack.launch("worker", &replay, &[("DATABASE_TIMEOUT", "60s")]);
    await_sent(&stack, CHUNK);
    replaying.signal(Signal::Terminate);
    until("the answer to the signal", || match replaying.log() {
        log if log.contains("stopping") => Ok(()),
        log => Err(log),
    });
    blocker.execute("COMMIT");
    let status = until("the end", || replaying.ended().ok_or("it still runs"));
    assert_eq!(status.code(), Some(1), "{}", replaying.log());
    assert_contains(
        &replaying.log(),
        &["of 1200 were sent; run the command again"],
    );
    let (_, first) = stack.progress();
    assert!(first < COUNT, "{first}");
    let marked = "SELECT count(*) FROM dead_letter_replays";
    assert_eq!(stack.database().number(marked), first);

    // A kill loses the marks of at most one chunk.
    blocker.execute("BEGIN");
    blocker.execute("LOCK TABLE dead_letter_replays IN SHARE MODE");
    let mut replaying = stack.launch("worker", &replay, &[]);
    await_sent(&stack, 2 * CHUNK);
    replaying.kill();
    // Postgres does not notice the end of a client that it does not read from.
    let ended = blocker.number(
        "SELECT count(*) FILTER (WHERE pg_terminate_backend(pid, 60000)) FROM pg_stat_activity \
         WHERE datname = current_database() AND wait_event_type = 'Lock'",
    );
    assert_eq!(ended, 1);
    blocker.execute("COMMIT");
    let twice = stack.progress().1 - first;
    assert!((1..=500).contains(&twice), "{twice}");
    stack.command("worker", &replay).succeeded();
    assert_eq!(stack.progress().1, COUNT + twice);
    assert_eq!(stack.database().number(marked), COUNT);
}

#[test]
fn the_oldest_dead_letters_are_purged() {
    let stack = Stack::builder("purge").start();
    let topic = stack.addresses().topic.clone();
    let old: Vec<Record> = (0..3).map(|n| letter(&topic, n % 2, n as usize)).collect();
    send_letters(&stack, &old);
    letters(&stack, &["replay", "--partition", "1", "--yes"]);
    let times = json(&stack, &["list"]);
    let newest = times.iter().map(|row| row["time"].as_str().unwrap()).max();
    let newest = newest.unwrap().to_owned();
    // The broker's clock has milliseconds: the next dead letter must have a later one.
    let next = until("a later dead letter", || {
        send_letters(&stack, &[letter(&topic, 2, 9)]);
        let rows = json(&stack, &["list", "--partition", "2"]);
        let times = rows
            .iter()
            .map(|row| row["time"].as_str().unwrap().to_owned());
        let later = times.filter(|time| *time > newest).min();
        later.ok_or("it has the same time")
    });
    let before = json(&stack, &["list"]).len();
    let kept = json(&stack, &["list", "--since", &next]).len();
    let purge = ["purge", "--before", &next];

    let parts = json(&stack, &[&purge[..], &["--dry-run"]].concat());
    let sum = |name: &str| {
        parts
            .iter()
            .map(|part| part[name].as_u64().unwrap())
            .sum::<u64>()
    };
    assert_eq!(sum("count") as usize, before - kept);
    assert_eq!(sum("never_replayed"), sum("count") - 1);
    assert_contains(&rejected(&stack, &purge), &["--yes"]);
    assert_eq!(json(&stack, &["list"]).len(), before);

    let printed = letters(&stack, &[&purge[..], &["--yes"]].concat());
    assert_contains(&printed, &["NEVER REPLAYED"]);
    assert_eq!(json(&stack, &["list"]).len(), kept);
    let marks = stack
        .database()
        .number("SELECT count(*) FROM dead_letter_replays");
    assert_eq!(marks, 0, "the marks are forgotten");
    let again = json(&stack, &[&purge[..], &["--yes"]].concat());
    assert!(again.is_empty(), "nothing is left to delete: {again:?}");
}

//! Records that the database refuses, and what an operator does with dead letters.

use e2e::{Draft, Ledger, Stack, refused_samples, until};
use rand::{Rng, SeedableRng, rngs::StdRng};
use sha2::{Digest, Sha256};
use shared::order::{Order, Reason, sample::Generator};

/// An amount that a constraint of the test refuses.
const REFUSED_AMOUNT: i64 = 424_242;

const REFUSE: &str = "ALTER TABLE payments ADD CONSTRAINT e2e CHECK (amount <> 424242)";
const ACCEPT: &str = "ALTER TABLE payments DROP CONSTRAINT e2e";

fn order(uid: &str, seed: u64, amount: Option<i64>) -> Order {
    let mut order = Generator::new(seed, 1..=3)
        .next()
        .expect("the generator has no end");
    order.order_uid = uid.to_owned();
    order.payment.amount = amount.unwrap_or(order.payment.amount);
    order
}

/// How many dead letters there are.
#[track_caller]
fn letters(stack: &Stack) -> usize {
    stack
        .broker()
        .read(&stack.addresses().dead_letter_topic)
        .len()
}

#[test]
fn what_the_database_refuses_can_be_replayed_and_never_overwrites_what_came_later() {
    let stack = Stack::builder("letters").workers(1).apis(1).start();
    let database = stack.database();
    database.execute(REFUSE);
    let refused = Some(REFUSED_AMOUNT);
    let mut ledger = Ledger::default();
    let neighbours: Vec<Draft> = Generator::new(91, 1..=3)
        .take(60)
        .map(|order| Draft::order(&order))
        .collect();
    stack.send(&mut ledger, &neighbours[..30]);
    let (first, second) = (order("first", 92, refused), order("second", 93, refused));
    let reject = |order| Draft::order(order).but_refused(Reason::RejectedByDatabase);
    stack.send(&mut ledger, &[reject(&first), reject(&second)]);
    stack.send(&mut ledger, &neighbours[30..]);
    stack.send(&mut ledger, &refused_samples(91));
    stack.settle();
    stack.check().tiers(&ledger);
    assert_eq!(stack.workers[0].messages("failed"), 2);
    stack.apis[0].order("first").problem(404);

    // Overtaken by a newer record.
    let newer = order("second", 94, None);
    stack.send(&mut ledger, &[Draft::order(&newer)]);
    stack.settle();

    let all = stack
        .command("worker", &["dead-letters", "list"])
        .succeeded();
    let listed = all.lines().skip(1).count();
    assert_eq!(listed, letters(&stack), "{all}");
    let selection = ["--reason", "rejected_by_database"];
    let list = [&["dead-letters", "list"], &selection[..]].concat();
    let list = stack.command("worker", &list).succeeded();
    assert_eq!(list.lines().skip(1).count(), 2, "{list}");
    for (uid, order) in [("first", &first), ("second", &second)] {
        let line = list.lines().find(|line| line.contains(uid));
        let line = line.unwrap_or_else(|| panic!("{uid} is not listed: {list}"));
        assert!(
            line.contains("23514") && line.contains("rejected_by_database"),
            "{line}"
        );
        assert!(!list.contains(&order.delivery.email) && !list.contains(&order.delivery.phone));
    }

    let before = letters(&stack);
    let replay = [&["dead-letters", "replay"], &selection[..]].concat();
    let (_, sent) = stack.progress();
    stack
        .command("worker", &[&replay[..], &["--dry-run"]].concat())
        .succeeded();
    assert_eq!(stack.progress().1, sent, "a dry run sends nothing");

    database.execute(ACCEPT);
    stack.command("worker", &replay).succeeded();
    assert_eq!(stack.progress().1, sent + 2);
    stack.settle();
    assert_eq!(letters(&stack), before, "nothing was refused again");
    // The first is stored with the version that it had; the second has lost to what came later.
    let expect = |row: e2e::Row, order: &Order| {
        let amount = row.document.expect("not erased")["payment"]["amount"].clone();
        assert_eq!(amount, order.payment.amount);
    };
    let original = &ledger
        .records()
        .iter()
        .find(|sent| sent.record.key.as_deref() == Some(b"first"))
        .unwrap();
    let row = database.order("first");
    assert_eq!(row.version, original.version());
    expect(row, &first);
    let version = ledger.orders()["second"].version;
    let row = database.order("second");
    assert_eq!(row.version, version);
    expect(row, &newer);
    stack.await_status("first", 200);
    assert_eq!(stack.apis[0].order("first").body, first.to_json());
    assert_eq!(stack.apis[0].order("second").body, newer.to_json());

    // As if it were sent now, the old record wins.
    stack
        .command("worker", &[&replay[..], &["--as-new"]].concat())
        .succeeded();
    stack.settle();
    for (uid, order) in [("first", &first), ("second", &second)] {
        let row = database.order(uid);
        assert!(row.version > version, "{uid}");
        expect(row, order);
        until("the old record in the api", || {
            match stack.apis[0].order(uid) {
                answer if answer.body == order.to_json() => Ok(()),
                answer => Err(answer.text()),
            }
        });
    }
    assert_eq!(letters(&stack), before);
}

/// A database that refuses everything is hardly the records' fault: the worker stops and waits instead of moving the topic
/// into the dead letters, and goes on by itself.
#[test]
fn a_database_that_refuses_everything_does_not_empty_the_topic() {
    let mut stack = Stack::builder("breaker").workers(1).start();
    let database = stack.database();
    database.execute("ALTER TABLE payments ADD CONSTRAINT e2e CHECK (amount < 0) NOT VALID");
    let mut ledger = Ledger::default();
    let drafts: Vec<Draft> = Generator::new(95, 1..=2)
        .take(400)
        .map(|order| Draft::order(&order))
        .collect();
    stack.send(&mut ledger, &drafts);
    let worker = &stack.workers[0];
    until("a worker that waits", || {
        match worker.state_of("waiting_for") {
            waits if waits.contains("breaker") => Ok(()),
            other => Err(other),
        }
    });
    assert_eq!(worker.admin("/readyz").status, 503);
    assert_eq!(worker.admin("/livez").status, 200);
    assert!(letters(&stack) <= 100);

    // A restart is no new start.
    stack.stop_workers();
    stack.launch_worker(&[]);
    let worker = &stack.workers[0];
    let http = e2e::Http::new();
    let url = format!("http://{}/readyz", worker.admin_address());
    until("a worker that waits again", || {
        match http.try_get(&url, &[]) {
            Ok(answer) if answer.text().contains("breaker") => Ok(()),
            Ok(answer) => Err(answer.text()),
            Err(error) => Err(error.to_string()),
        }
    });
    assert!(letters(&stack) <= 100);

    database.execute(ACCEPT);
    stack.settle();
    let refused = letters(&stack);
    assert!(refused <= 100, "{refused} dead letters");
    assert_eq!(database.count(), drafts.len() - refused);
    assert_eq!(stack.workers[0].admin("/readyz").status, 200);
    // And nothing is lost for good.
    stack
        .command("worker", &["dead-letters", "replay"])
        .succeeded();
    stack.settle();
    stack.check().postgres(&ledger);
    stack.check().redis(&ledger);
}

#[test]
fn what_is_too_large_even_for_the_dead_letter_topic_leaves_its_fingerprint() {
    let stack = Stack::builder("fingerprint")
        .dead_letter_max_bytes(1 << 20)
        .workers(1)
        .start();
    let mut ledger = Ledger::default();
    // Nothing that compression could make small enough.
    let mut value = vec![0; 3 << 20];
    StdRng::seed_from_u64(96).fill(value.as_mut_slice());
    let draft = Draft::refused(Reason::TooLarge, value.clone())
        .with_key(Some(b"large"))
        .with_header("original", Some(b"1"));
    stack.send(&mut ledger, &[draft]);
    stack.settle();
    let letters = stack.broker().read(&stack.addresses().dead_letter_topic);
    assert_eq!(letters.len(), 1);
    let letter = &letters[0];
    assert_eq!(letter.key.as_deref(), Some(&b"large"[..]));
    assert_eq!(letter.value.as_deref().unwrap_or_default(), b"");
    assert_eq!(
        letter.headers[0],
        ("original".to_owned(), Some(b"1".to_vec()))
    );
    let header = |name: &str| {
        let (_, value) = letter
            .headers
            .iter()
            .find(|(held, _)| held == name)
            .unwrap();
        String::from_utf8(value.clone().unwrap()).unwrap()
    };
    assert_eq!(header("dlq-reason"), "too_large");
    let detail = header("dlq-detail");
    let digest = format!("{:x}", Sha256::digest(&value));
    assert!(
        detail.contains(&digest) && detail.contains("3145728"),
        "{detail}"
    );
}

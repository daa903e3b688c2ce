//! `worker verify`, and the comparison that workers run in the background.

use e2e::{Draft, Finished, Ledger, Stack, entries, until};
use serde_json::Value;
use shared::order::{
    Reason,
    sample::{Defect, Generator},
};

fn drafts(seed: u64, count: usize) -> Vec<Draft> {
    Generator::new(seed, 1..=3)
        .take(count)
        .map(|order| Draft::order(&order))
        .collect()
}

fn uid(draft: &Draft) -> String {
    String::from_utf8(draft.record.key.clone().unwrap()).unwrap()
}

/// The output of `worker verify --json`.
struct Verified {
    code: Option<i32>,
    /// Uid and result of each finding, sorted.
    findings: Vec<(String, String)>,
    summary: Value,
}

#[track_caller]
fn verify(stack: &Stack, arguments: &[&str]) -> Verified {
    let arguments = [&["verify", "--json"], arguments].concat();
    let Finished {
        code,
        stdout,
        stderr,
    } = stack.command("worker", &arguments);
    let mut lines: Vec<Value> = stdout
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let summary = lines.pop().unwrap_or_else(|| panic!("{code:?}: {stderr}"));
    assert_eq!(summary["type"], "summary", "{stdout}{stderr}");
    let text = |line: &Value, field: &str| line[field].as_str().unwrap().to_owned();
    let mut findings: Vec<(String, String)> = lines
        .iter()
        .map(|line| (text(line, "order_uid"), text(line, "result")))
        .collect();
    findings.sort();
    Verified {
        code,
        findings,
        summary,
    }
}

#[track_caller]
fn assert_no_difference(stack: &Stack, orders: usize) {
    let verified = verify(stack, &["--topic"]);
    assert_eq!(verified.findings, [], "{}", verified.summary);
    assert_eq!(verified.code, Some(0));
    assert_eq!(verified.summary["orders"]["consistent"], orders);
    assert_eq!(verified.summary["topic"]["waiting"], 0);
    stack.assert_no_difference();
}

/// Plants one difference of each kind in Redis; returns the expected findings, sorted.
fn plant(stack: &Stack, uids: &[String]) -> Vec<(String, String)> {
    let old = "0000000000000000001-0000000000000000001-0000000000";
    let new = "0009000000000000000-0000000000000000001-0000000000";
    let redis = &stack.redis;
    let key = |n: usize| format!("order:{}", uids[n]);
    redis.command(&["HSET", &key(0), "version", old]);
    redis.command(&["HSET", &key(1), "version", new]);
    let other = format!(r#"{{"order_uid":"{}","x":1}}"#, uids[2]);
    redis.command(&["HSET", &key(2), "json", &other]);
    let unknown = r#"{"order_uid":"never-sent","x":1}"#;
    redis.command(&["HSET", "order:never-sent", "version", old, "json", unknown]);
    redis.command(&["SET", &key(4), "not a hash"]);
    stack.database().execute(&format!(
        "DELETE FROM items WHERE order_id = (SELECT id FROM orders WHERE order_uid = '{}')",
        uids[5]
    ));
    let mut planted = vec![("never-sent".to_owned(), "orphaned".to_owned())];
    for (n, result) in ["stale", "ahead", "different"].into_iter().enumerate() {
        planted.push((uids[n].clone(), result.to_owned()));
    }
    planted.push((uids[4].clone(), "foreign".to_owned()));
    planted.push((uids[5].clone(), "incomplete".to_owned()));
    planted.sort();
    planted
}

#[test]
fn planted_differences_are_found_by_the_command_and_by_workers() {
    let stack = Stack::builder("verify").workers(2).start();
    let mut ledger = Ledger::default();
    let sent = drafts(311, 30);
    stack.send(&mut ledger, &sent);
    stack.settle();
    assert_no_difference(&stack, 30);

    let uids: Vec<String> = sent.iter().map(uid).collect();
    let planted = plant(&stack, &uids);
    let verified = verify(&stack, &[]);
    assert_eq!(verified.findings, planted);
    assert_eq!(verified.code, Some(1));
    assert_eq!(verified.summary["differences"], planted.len());
    let one = verify(&stack, &["--uid", &uids[0], "--uid", &uids[9]]);
    let consistent = (uids[9].clone(), "consistent".to_owned());
    let mut expected = vec![(uids[0].clone(), "stale".to_owned()), consistent];
    expected.sort();
    assert_eq!((one.code, one.findings), (Some(1), expected));

    // Each worker compares random orders, so it finds every kind after some rounds.
    for (uid, result) in &planted {
        let label = format!("result=\"{result}\"");
        until(&format!("a worker that counts {result}"), || {
            let mut counts = stack
                .workers
                .iter()
                .map(|worker| worker.admin.metric("consistency_checks_total", &label));
            counts
                .any(|count| count > 0)
                .then_some(())
                .ok_or("not counted")
        });
        let logs: String = stack
            .workers
            .iter()
            .map(|worker| worker.process.log())
            .collect();
        let line = logs.lines().find(|line| {
            line.contains("consistency check found") && line.contains(result.as_str())
        });
        assert!(
            line.is_some_and(|line| line.contains(uid.as_str())),
            "{line:?}"
        );
    }

    // What the runbook says.
    stack.command("worker", &["cache", "clear"]).succeeded();
    stack.send(&mut ledger, &sent[5..6]);
    stack.settle();
    let verified = verify(&stack, &["--topic"]);
    assert_eq!((verified.code, verified.findings), (Some(0), vec![]));
}

#[test]
fn only_records_that_are_stored_nowhere_are_lost() {
    let stack = Stack::builder("verify-topic").workers(1).start();
    // Passes our rules, and Postgres rejects it.
    stack
        .database()
        .execute("ALTER TABLE orders ADD CONSTRAINT no CHECK (customer_id <> 'rejected')");
    let mut orders = Generator::new(312, 1..=3);
    let mut rejected = orders.next().unwrap();
    rejected.customer_id = "rejected".into();
    let mut changed = orders.next().unwrap();
    let mut sent = vec![
        Draft::order(&rejected).but_rejected(Reason::RejectedByDatabase),
        Draft::order(&changed),
        Draft::erasure(&orders.next().unwrap().order_uid),
    ];
    changed.track_number = "CHANGED".into();
    sent.push(Draft::order(&changed));
    let invalid = Defect::Phone.apply(&orders.next().unwrap());
    sent.push(Draft::rejected(Defect::Phone.reason(), invalid));
    sent.extend(orders.take(20).map(|order| Draft::order(&order)));
    let mut ledger = Ledger::default();
    stack.send(&mut ledger, &sent);
    stack.settle();
    assert_no_difference(&stack, 22);
    let verified = verify(&stack, &["--topic"]);
    assert_eq!(verified.summary["topic"]["records"], 24);
    assert_eq!(verified.summary["topic"]["rejected"], 1);

    let gone = uid(&sent[10]);
    let delete = format!("DELETE FROM orders WHERE order_uid = '{gone}'");
    stack.database().execute(&delete);
    let verified = verify(&stack, &["--topic"]);
    let expected = [
        (gone.clone(), "lost".to_owned()),
        (gone, "orphaned".to_owned()),
    ];
    assert_eq!(
        (verified.code, verified.findings.as_slice()),
        (Some(1), &expected[..])
    );
    assert_eq!(verified.summary["topic"]["lost"], 1);
}

#[test]
fn a_pending_repair_is_no_difference() {
    let mut stack = Stack::builder("verify-pending").workers(1).start();
    let mut ledger = Ledger::default();
    let sent = drafts(313, 20);
    stack.send(&mut ledger, &sent);
    stack.settle();
    stack.stop_workers();
    let key = format!("order:{}", uid(&sent[0]));
    let old = "0000000000000000001-0000000000000000001-0000000000";
    stack.redis.command(&["HSET", &key, "version", old]);
    let mark = format!(
        "INSERT INTO cache_repairs (order_uid) VALUES ('{}')",
        uid(&sent[0])
    );
    stack.database().execute(&mark);
    let verified = verify(&stack, &[]);
    let expected = [(uid(&sent[0]), "pending".to_owned())];
    assert_eq!(
        (verified.code, verified.findings.as_slice()),
        (Some(0), &expected[..])
    );
    stack.start_worker();
    until("the repair", || {
        match entries(&stack.addresses().redis_url) {
            Ok(entries) if entries[&uid(&sent[0])].version().as_deref() != Some(old) => Ok(()),
            _ => Err("pending"),
        }
    });
    stack.settle();
    assert_no_difference(&stack, 20);
}

#[test]
fn a_tier_that_does_not_answer_is_a_failure_and_not_a_verdict() {
    let mut stack = Stack::builder("verify-down").without_topics().start();
    stack.redis.crash();
    let Finished {
        code,
        stdout,
        stderr,
    } = stack.command("worker", &["verify"]);
    assert_eq!((code, stdout.as_str()), (Some(3), ""), "{stderr}");
    assert!(stderr.starts_with("error: REDIS_URL: "), "{stderr}");
    let wrong = stack.command("worker", &["verify", "--sample", "2"]);
    assert_eq!(wrong.code, Some(2));
    assert!(wrong.stderr.contains("write 1%, 0.1%"), "{}", wrong.stderr);
}

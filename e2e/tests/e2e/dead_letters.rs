//! A dead letter topic that rejects records.

use e2e::{Draft, Ledger, Stack, Stored, until};
use rand::{Rng, SeedableRng, rngs::StdRng};
use sha2::{Digest, Sha256};
use shared::order::{Reason, sample::Generator};

#[test]
fn a_record_too_large_for_the_dead_letter_topic_leaves_its_digest() {
    let stack = Stack::builder("fingerprint")
        .dead_letter_max_bytes(1 << 20)
        .workers(1)
        .start();
    let mut ledger = Ledger::default();
    // Random bytes, which compression cannot shrink enough.
    let mut value = vec![0; 3 << 20];
    StdRng::seed_from_u64(96).fill(value.as_mut_slice());
    let draft = Draft::rejected(Reason::TooLarge, value.clone())
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

#[test]
fn a_worker_warns_of_a_topic_that_keeps_dead_letters_longer_than_configured() {
    let mut stack = Stack::builder("retention").start();
    let shorter = [("KAFKA_DEAD_LETTER_RETENTION", "1h")];
    let warning = "dead letter topic keeps records longer than KAFKA_DEAD_LETTER_RETENTION";
    let worker = stack.start_worker_with(&shorter);
    until("the warning", || match worker.process.log() {
        log if log.contains(warning) && log.contains("\"7days\"") => Ok(()),
        log => Err(log),
    });
    // The broker's default is a week.
    let letters = stack.addresses().dead_letter_topic.clone();
    let settings = stack.broker().settings(&letters);
    assert_eq!(settings["retention.ms"], "604800000", "it is not changed");
}

/// A trigger and an index that reject rows which pass all our rules.
const REJECTIONS: [&str; 4] = [
    "CREATE FUNCTION long(text) RETURNS text IMMUTABLE LANGUAGE sql AS \
     $$ SELECT string_agg(md5(n || $1), '') FROM generate_series(1, 500) n WHERE $1 = 'long' $$",
    "CREATE INDEX too_long ON orders (long(customer_id))",
    "CREATE FUNCTION reject() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
     CASE NEW.customer_id WHEN 'raised' THEN RAISE EXCEPTION 'no'; \
     WHEN 'denied' THEN RAISE EXCEPTION 'no' USING ERRCODE = '42501'; ELSE RETURN NEW; END CASE; \
     END $$",
    "CREATE TRIGGER reject BEFORE INSERT ON orders FOR EACH ROW EXECUTE FUNCTION reject()",
];

#[test]
fn rows_that_only_the_database_rejects_are_dead_lettered_alone() {
    let stack = Stack::builder("rejected").workers(1).start();
    for statement in REJECTIONS {
        stack.database().execute(statement);
    }
    let mut orders = Generator::new(97, 1..=3);
    // More of each kind than the number of batches that can be in Postgres at once.
    let customers = ["raised", "denied", "long"].repeat(5);
    let mut drafts: Vec<Draft> = customers
        .iter()
        .zip(orders.by_ref())
        .map(|(customer, mut order)| {
            order.customer_id = (*customer).into();
            Draft::order(&order).but_rejected(Reason::RejectedByDatabase)
        })
        .collect();
    drafts.extend(orders.take(400).map(|order| Draft::order(&order)));
    let mut ledger = Ledger::default();
    stack.send(&mut ledger, &drafts);
    stack.settle();
    stack.check().tiers(&ledger);
    let letters = stack.broker().read(&stack.addresses().dead_letter_topic);
    let detail = |letter: &Stored| {
        let mut headers = letter.headers.iter();
        let (_, value) = headers.find(|(name, _)| name == "dlq-detail").unwrap();
        String::from_utf8(value.clone().unwrap()).unwrap()
    };
    let mut details: Vec<String> = letters.iter().map(detail).collect();
    details.sort();
    let expected = ["42501", "54000", "P0001"].map(|code| vec![format!("SQLSTATE {code}"); 5]);
    assert_eq!(details, expected.concat());
    let worker = &stack.workers[0];
    assert_eq!(worker.admin.state_of("waiting_for"), "nothing");
    assert_eq!(worker.admin.get("/readyz").status, 200);
}

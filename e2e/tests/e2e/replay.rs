//! The same records again, in the same and in another order.

use std::time::{SystemTime, UNIX_EPOCH};

use e2e::{Draft, Ledger, Stack, entries, refused_samples, valid_samples};
use rand::{Rng, SeedableRng, rngs::StdRng, seq::SliceRandom};
use shared::order::{
    Reason,
    sample::{Defect, Generator},
};

const PARTITIONS: i32 = 6;

/// Orders with changes, repetitions and erasures of their own, in the order in which they are sent.
fn history(seed: u64) -> Vec<Draft> {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut others = Generator::new(seed + 1, 1..=6);
    let mut drafts = Vec::new();
    for order in Generator::new(seed, 1..=4).take(200) {
        drafts.push(Draft::order(&order));
        for _ in 0..rng.random_range(0..4) {
            let mut changed = others.next().expect("the generator has no end");
            changed.order_uid.clone_from(&order.order_uid);
            drafts.push(match rng.random_range(0..5) {
                0 => Draft::erasure(&order.order_uid),
                1 => Draft::order(&order),
                _ => Draft::order(&changed),
            });
        }
    }
    drafts
}

#[test]
fn a_replay_from_the_beginning_changes_nothing() {
    let mut stack = Stack::builder("replay").workers(2).apis(1).start();
    let mut ledger = Ledger::default();
    stack.send(&mut ledger, &history(31));
    stack.send(&mut ledger, &valid_samples(31));
    stack.send(&mut ledger, &refused_samples(31));
    stack.settle();
    stack.check().tiers(&ledger);
    let rows = stack.database().orders();
    let cached = entries(&stack.addresses().redis_url).unwrap();

    stack.stop_workers();
    stack.use_new_group();
    stack.start_worker();
    stack.start_worker();
    stack.settle();
    let outcome = |outcome| -> usize {
        let counts = stack.workers.iter().map(|worker| worker.messages(outcome));
        counts.sum::<u64>() as usize
    };
    let refused = ledger.refused().count();
    assert_eq!(outcome("stale"), ledger.records().len() - refused);
    assert_eq!(outcome("invalid"), refused);
    assert_eq!(outcome("stored") + outcome("erased"), 0);

    // Ids, versions and times of the last change included.
    assert!(stack.database().orders() == rows, "a row has changed");
    stack.check().dead_letters_at_least_once(&ledger);
    let again = entries(&stack.addresses().redis_url).unwrap();
    assert_eq!(cached.len(), again.len());
    for (uid, entry) in &again {
        assert_eq!(entry.fields, cached[uid].fields, "{uid}");
        assert!(
            entry.ttl_ms <= cached[uid].ttl_ms,
            "{uid} was written again"
        );
    }
    stack.check().api(&ledger, &stack.apis[0].url(), "local");
    stack.check().api_in_postgres(&ledger, &stack.apis[0].url());
}

/// Where producers' clocks make the versions: neither arrival nor partition decides, the time does.
#[test]
fn the_latest_timestamp_wins_whatever_the_order() {
    let stack = Stack::builder("clocks")
        .producers_timestamps()
        .workers(2)
        .start();
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_millis() as i64;
    let mut rng = StdRng::seed_from_u64(33);
    let mut drafts = history(33);
    for (index, draft) in (0..).zip(&mut drafts) {
        draft.record.partition = Some(rng.random_range(0..PARTITIONS));
        // Some at the same time, where offset and partition decide.
        draft.record.timestamp_ms = Some(now - 1_000_000 + index / 3);
    }
    for (minutes, refused) in [(4, false), (6, true)] {
        let order = Generator::new(33 + minutes, 1..=1).next().unwrap();
        let mut draft = Draft::order(&order);
        if refused {
            draft = draft.but_refused(Reason::FutureTimestamp);
        }
        draft.record.timestamp_ms = Some(now + minutes as i64 * 60_000);
        drafts.push(draft);
    }
    // The time is looked at before the value is.
    let order = Generator::new(34, 1..=1).next().unwrap();
    let mut spoilt = Draft::refused(Reason::FutureTimestamp, Defect::Phone.apply(&order));
    spoilt.record.timestamp_ms = Some(now + 3_600_000);
    drafts.push(spoilt);
    drafts.shuffle(&mut rng);
    let mut ledger = Ledger::default();
    stack.send(&mut ledger, &drafts);
    stack.settle();
    stack.check().tiers(&ledger);
}

//! The same records again, with their original versions.

use e2e::{Draft, Ledger, System};
use rand::{Rng, SeedableRng, rngs::StdRng, seq::SliceRandom};

use crate::{order, orders};

/// A time in the past.
const FIRST_MS: i64 = 1_600_000_000_000;

/// Returns orders, each followed by changes, repetitions and erasures, in the order in which they
/// are sent.
fn history(system: &System, rng: &mut StdRng) -> Vec<Draft> {
    let mut drafts = Vec::new();
    for first in orders(system).take(100) {
        drafts.push(Draft::order(&first));
        for _ in 0..rng.random_range(0..4) {
            drafts.push(match rng.random_range(0..5) {
                0 => Draft::erasure(&first.order_uid),
                1 => Draft::order(&first),
                _ => Draft::order(&order(&first.order_uid, rng.random())),
            });
        }
    }
    drafts
}

/// Returns each record with its original version, in another order and in any partition.
fn shuffled(ledger: &Ledger, partitions: i32, rng: &mut StdRng) -> Vec<Draft> {
    let again = ledger.records().iter().map(|sent| {
        let version = sent.version();
        let header = format!(
            "{}/{}/{}",
            version.timestamp_ms, version.offset, version.partition
        );
        let mut record = sent.record.clone();
        record.partition = Some(rng.random_range(0..partitions));
        Draft {
            record,
            expected: sent.expected.clone(),
        }
        .with_header("replay-version", Some(header.as_bytes()))
    });
    let mut drafts: Vec<Draft> = again.collect();
    drafts.shuffle(rng);
    drafts
}

#[test]
fn a_replay_in_any_order_changes_nothing() {
    let system = System::join();
    let mut rng = StdRng::seed_from_u64(system.seed);
    let mut ledger = Ledger::default();
    system.send(&mut ledger, &history(&system, &mut rng));
    system.settle(&ledger);
    system.check_all(&ledger);
    let rows = system.database().orders_of(&ledger.uids());

    let partitions = system.broker().watermarks(&system.addresses().topic).len() as i32;
    let mut again = ledger.clone();
    system.send(&mut again, &shuffled(&ledger, partitions, &mut rng));
    system.settle(&again);
    assert!(
        again.orders() == ledger.orders(),
        "the versions were carried along"
    );
    system.check_all(&again);
    // The comparison includes ids and update times.
    assert!(
        system.database().orders_of(&ledger.uids()) == rows,
        "a row has changed"
    );
}

/// With rows that do not exist yet, unlike the test above.
#[test]
fn the_greatest_version_wins_in_any_order_of_arrival() {
    let system = System::join();
    let mut rng = StdRng::seed_from_u64(system.seed);
    let mut drafts: Vec<Draft> = (0..)
        .zip(history(&system, &mut rng))
        .map(|(index, draft)| {
            // Some with the same timestamp, so that offset and partition decide.
            let version = format!("{}/{}/{}", FIRST_MS + index / 4, index % 4 / 2, index % 2);
            draft.with_header("replay-version", Some(version.as_bytes()))
        })
        .collect();
    drafts.shuffle(&mut rng);
    let mut ledger = Ledger::default();
    system.send(&mut ledger, &drafts);
    system.settle(&ledger);
    system.check_all(&ledger);
}

/// A replayed dead letter must not overwrite a record that arrived in between.
#[test]
fn an_older_record_never_overwrites_a_newer_one() {
    let system = System::join();
    let mut ledger = Ledger::default();
    let newest = orders(&system).next().unwrap();
    system.send(&mut ledger, &[Draft::order(&newest)]);
    let old = Draft::order(&order(&newest.order_uid, 1))
        .with_header("replay-version", Some(b"1600000000000/7/0"));
    system.send(&mut ledger, &[old]);
    system.settle(&ledger);
    system.check_all(&ledger);
    let json = ledger.orders()[newest.order_uid.as_str()].json.clone();
    assert_eq!(json, Some(newest.to_json()));
}

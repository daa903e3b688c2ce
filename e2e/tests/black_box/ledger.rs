//! Every kind of record, and where it ends.

use e2e::{Draft, Ledger, System, rejected_samples, valid_samples};
use rand::{SeedableRng, rngs::StdRng, seq::SliceRandom};
use shared::order::Reason;

use crate::{order, orders};

/// Number of generated orders, besides one record of each other kind.
const ORDERS: usize = 500;

#[test]
fn every_record_reaches_its_expected_place() {
    let system = System::join();
    let mut drafts: Vec<Draft> = orders(&system)
        .take(ORDERS)
        .map(|order| Draft::order(&order))
        .collect();
    // Some of the orders twice.
    drafts.extend_from_within(..ORDERS / 20);
    drafts.extend(valid_samples(system.seed.wrapping_add(1)));
    drafts.extend(rejected_samples(system.seed.wrapping_add(3)));
    drafts.shuffle(&mut StdRng::seed_from_u64(system.seed));
    // Other content for every tenth order, and the erasure of every fortieth.
    let changes: Vec<Draft> = orders(&system)
        .take(ORDERS)
        .enumerate()
        .filter_map(|(index, known)| match index {
            _ if index % 40 == 5 => Some(Draft::erasure(&known.order_uid)),
            _ if index % 10 == 5 => Some(Draft::order(&order(&known.order_uid, index as u64))),
            _ => None,
        })
        .collect();

    let mut ledger = Ledger::default();
    system.send(&mut ledger, &drafts);
    system.send(&mut ledger, &changes);
    for reason in [
        Reason::TooLarge,
        Reason::FutureTimestamp,
        Reason::MalformedJson,
        Reason::InvalidOrder,
    ] {
        assert!(ledger.rejected().any(|(_, rejected)| rejected == reason));
    }
    system.settle(&ledger);
    system.check_all(&ledger);
}

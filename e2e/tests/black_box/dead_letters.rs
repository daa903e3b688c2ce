//! Records that cannot be stored affect only themselves.

use e2e::{Database, Draft, Ledger, System};
use shared::order::Reason;

use crate::orders;

/// A constraint that rejects one amount, which no other user uses. Dropping this value drops the
/// constraint.
struct RejectedAmount {
    database: Database,
    name: String,
}

impl RejectedAmount {
    #[track_caller]
    fn of(amount: i64, system: &System) -> Self {
        let rejected = Self {
            database: system.database(),
            name: format!("e2e_{:016x}", system.seed),
        };
        rejected.database.execute(&format!(
            "ALTER TABLE payments ADD CONSTRAINT {} CHECK (amount <> {amount}) NOT VALID",
            rejected.name
        ));
        rejected
    }
}

impl Drop for RejectedAmount {
    fn drop(&mut self) {
        let drop = format!("ALTER TABLE payments DROP CONSTRAINT {}", self.name);
        if let Err(error) = self.database.try_execute(&drop) {
            eprintln!("{drop}: {error}");
        }
    }
}

#[test]
fn a_rejected_row_costs_only_itself() {
    let system = System::join();
    let mut ledger = Ledger::default();
    // Larger than any integer that a double represents exactly, and larger than any real amount.
    let amount = i64::MAX - (system.seed >> 12) as i64;
    let _rejected = RejectedAmount::of(amount, &system);
    let drafts: Vec<Draft> = orders(&system)
        .take(50)
        .enumerate()
        .map(|(index, mut order)| {
            if index != 25 {
                return Draft::order(&order);
            }
            order.payment.amount = amount;
            Draft::order(&order).but_rejected(Reason::RejectedByDatabase)
        })
        .collect();
    system.send(&mut ledger, &drafts);
    system.settle(&ledger);
    system.check_all(&ledger);
}

/// Brokers accept such a name, although Kafka's protocol requires UTF-8.
#[test]
fn a_header_name_that_is_not_utf8_stops_no_worker() {
    const NAME: &[u8] = b"\xffa";
    let system = System::join();
    let mut ledger = Ledger::default();
    let mut orders = orders(&system).map(|order| Draft::order(&order));
    let mut order = || orders.next().expect("the generator has no end");
    let mut drafts = vec![
        order().with_header(NAME, Some(b"1")),
        order(),
        Draft::rejected(Reason::MalformedJson, b"{".to_vec())
            .with_header(NAME, Some(b"2"))
            .with_header(NAME, None),
        order(),
    ];
    // One after the other in one partition.
    for draft in &mut drafts {
        draft.record.partition = Some(0);
    }
    system.send(&mut ledger, &drafts);
    system.settle(&ledger);
    system.check_all(&ledger);
}

//! A Redis that returns with older content, which its watermark does not show.

use shared::order::sample::Generator;

use crate::{
    ledger::Ledger,
    process::Signal,
    promises::run::Run,
    record::Draft,
    redis::{Entry, entries},
    wait::until,
};

/// The watermark moves once a second. If the snapshot is younger than its last move, the watermark
/// does not show that later writes are lost.
pub(super) fn same_watermark(run: &mut Run) {
    let mut stack = run.stack("watermark").workers(1).apis(1).start();
    let url = stack.addresses().redis_url.clone();
    let version = |uid: &str| entries(&url).unwrap().get(uid).and_then(Entry::version);
    let mut orders = Generator::new(run.seed, 1..=3);
    let mut ledger = Ledger::default();
    stack.send(&mut ledger, &[Draft::order(&orders.next().unwrap())]);
    stack.settle();
    let uid = ledger.some_uid();
    let newest = |ledger: &Ledger| Some(ledger.orders()[&uid].version.to_string());

    // Retries while the watermark moves between the snapshot and the crash.
    let mut rounds = 1..=20;
    loop {
        rounds.next().expect("the watermark moves once a second");
        let old = stack.redis.watermark().unwrap();
        let watermark = until("a watermark that has just moved", || {
            match stack.redis.watermark().unwrap() {
                moved if moved != old => Ok(moved),
                same => Err(format!("{same:?}")),
            }
        });
        stack.redis.save();
        let mut other = orders.next().unwrap();
        other.order_uid = uid.as_str().into();
        stack.send(&mut ledger, &[Draft::order(&other)]);
        until("the update in Redis", || match version(&uid) {
            found if found == newest(&ledger) => Ok(()),
            other => Err(format!("{other:?}")),
        });
        // The worker must not check Redis before it is back.
        stack.workers[0].process.signal(Signal::Stop);
        if stack.redis.watermark().unwrap() == watermark {
            break;
        }
        stack.workers[0].process.signal(Signal::Continue);
    }
    let lost = newest(&ledger);
    stack.redis.crash();
    stack.redis.start_again();
    assert!(version(&uid) < lost, "Redis came back with older content");
    stack.workers[0].process.signal(Signal::Continue);
    stack.await_redis(&ledger);
    stack.await_answers(&ledger);
    stack.check().tiers(&ledger);
    stack.assert_no_difference();
}

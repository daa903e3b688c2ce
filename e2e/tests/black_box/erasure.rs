//! An order that is erased, stays erased, and returns with a newer record.

use e2e::{Draft, Http, Ledger, System, entries_of};

use crate::{order, orders};

#[test]
fn an_erased_order_stays_erased_until_a_newer_record_arrives() {
    let system = System::join();
    let mut ledger = Ledger::default();
    let mut first = orders(&system).next().unwrap();
    first.customer_id = format!("customer-{:016x}", system.seed).into();
    let (uid, customer) = (first.order_uid.as_str(), &first.customer_id);
    system.send(&mut ledger, &[Draft::order(&first)]);
    system.await_status(uid, 200);
    let before = system.database().order(uid);

    // The erasure of an unknown order is remembered, too.
    let never_there = format!("never-there-{:016x}", system.seed);
    let erasures = [Draft::erasure(uid), Draft::erasure(&never_there)];
    system.send(&mut ledger, &erasures);
    system.settle(&ledger);
    system.check_all(&ledger);
    for erased in [uid, &never_there] {
        system.await_status(erased, 410);
    }
    let entry = entries_of(&system.addresses().redis_url, [uid.to_owned()]).unwrap();
    assert!(entry[uid].json().is_none(), "Redis still has its content");
    for url in system.api_urls() {
        for query in ["", "?nocache=1"] {
            let answer = Http::new().get(&format!("{url}/order/{uid}{query}"));
            assert!(answer.header("ETag").is_none());
            answer.problem(410);
        }
        let list = Http::new().get(&format!("{url}/orders?customer_id={customer}"));
        assert_eq!((list.status, list.text().contains(uid)), (200, false));
    }

    // An older record does not restore the order.
    let old =
        Draft::order(&order(uid, 1)).with_header("replay-version", Some(b"1600000000000/7/0"));
    system.send(&mut ledger, &[old]);
    system.settle(&ledger);
    system.check_all(&ledger);

    system.send(&mut ledger, &[Draft::order(&order(uid, 2))]);
    system.await_status(uid, 200);
    system.settle(&ledger);
    system.check_all(&ledger);
    let after = system.database().order(uid);
    assert_eq!((after.id, after.created_at), (before.id, before.created_at));
}

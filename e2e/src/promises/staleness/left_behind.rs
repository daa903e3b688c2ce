//! Versions that a worker has committed when it dies before its write to Redis.

use shared::{
    fault::{CRASH_AT, Moment},
    order::sample::Generator,
};

use crate::{ledger::Ledger, promises::run::Run, record::Draft, wait::until};

/// Session timeout: for this long no other worker gets the records of a worker that died.
const SESSION: &str = "5m";

/// Setting of each api: it forgets only because of an announcement.
const API: [(&str, &str); 1] = [("LOCAL_CACHE_TTL", "1h")];

const PARTITIONS: i32 = 6;

pub(super) fn between_commit_and_redis(run: &mut Run) {
    let mut stack = run
        .stack("left-behind")
        .faulty()
        .variable("KAFKA_SESSION_TIMEOUT", SESSION)
        .workers(1)
        .start();
    stack.start_api_with(&API);
    stack.start_api_with(&API);
    let mut orders = Generator::new(run.seed, 1..=3);
    let uids: Vec<String> = (0..PARTITIONS).map(|number| format!("u{number}")).collect();
    let mut version_for = |partition: i32| {
        let mut order = orders.next().unwrap();
        order.order_uid = uids[partition as usize].as_str().into();
        let mut draft = Draft::order(&order);
        draft.record.partition = Some(partition);
        draft
    };
    let mut ledger = Ledger::default();
    let first: Vec<Draft> = (0..PARTITIONS).map(&mut version_for).collect();
    stack.send(&mut ledger, &first);
    stack.settle();
    stack.await_answers(&ledger);

    let crash_at = format!("{}:1", Moment::BeforeRedisWrite.as_str());
    stack.start_worker_with(&[(CRASH_AT, &crash_at)]);
    let mut victim = stack.workers.pop().expect("just started");
    // One record at a time, until one reaches the victim. The other worker finishes its own
    // records.
    let mut partitions = (0..PARTITIONS).cycle().take(100);
    while victim.process.ended().is_none() {
        let partition = partitions.next().expect("a partition of the victim");
        stack.send(&mut ledger, &[version_for(partition)]);
        until("a death, or a finished record", || {
            let (finished, all) = stack.progress();
            match victim.process.ended().is_some() || finished == all {
                true => Ok(()),
                false => Err(format!("{finished} of {all} finished")),
            }
        });
    }
    stack.check().postgres(&ledger);
    // Before any request to the api, which would fill Redis.
    stack.await_redis(&ledger);
    stack.await_answers(&ledger);
    let (finished, all) = stack.progress();
    assert_eq!(finished, all - 1, "the record was read again");
}

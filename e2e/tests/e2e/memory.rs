//! What a worker holds while it cannot go on.

use e2e::{Draft, Ledger, Stack, Worker, until};
use shared::order::Reason;

const PARTITIONS: i32 = 6;
/// Each of them counts as many bytes as the worker may hold at all.
const RECORD_BYTES: usize = 4 << 20;
const RECORDS: usize = 60;
/// Far less than all of them, far more than what is on its way when partitions are paused.
const MAX_GROWTH: usize = RECORDS * RECORD_BYTES / 2;
/// So often memory is looked at before it is believed that nothing more comes in: longer than it takes the worker, which
/// polls ten times a second meanwhile, to read much more than that.
const LOOKS: usize = 120;

/// How often it was assigned partitions.
fn assignments(worker: &Worker) -> usize {
    let log = worker.process.log();
    let assigned = log
        .lines()
        .filter(|line| line.contains("partitions were assigned"));
    assigned.filter(|line| !line.contains("[]")).count()
}

/// A partition that is assigned while the worker is paused is to be paused, too.
#[test]
fn partitions_that_come_while_a_worker_is_paused_fill_no_memory() {
    let mut stack = Stack::builder("memory")
        .variable("WORKER_BATCH_MAX_BYTES", "1MiB")
        .workers(2)
        .start();
    until("a second worker with partitions", || {
        match assignments(&stack.workers[1]) {
            0 => Err("none"),
            _ => Ok(()),
        }
    });
    // Nothing fits, so the first record that is to go there is never finished.
    let topic = stack.addresses().dead_letter_topic.clone();
    stack.broker().limit(&topic, 1);
    let drafts: Vec<Draft> = (0..RECORDS)
        .map(|index| {
            let mut draft = Draft::refused(Reason::TooLarge, vec![b' '; RECORD_BYTES]);
            draft.record.partition = Some(index as i32 % PARTITIONS);
            draft
        })
        .collect();
    stack.send(&mut Ledger::default(), &drafts);
    for worker in &stack.workers {
        until("a worker that waits", || {
            match worker.state_of("waiting_for") {
                waits if waits.contains("dead_letter_topic") => Ok(()),
                other => Err(other),
            }
        });
    }

    let before = assignments(&stack.workers[0]);
    // The first one gets partitions that it has never paused.
    stack.workers.remove(1).process.kill();
    let worker = &stack.workers[0];
    until("another assignment", || match assignments(worker) {
        now if now > before => Ok(()),
        now => Err(now),
    });
    let (start, mut looks) = (worker.process.resident_bytes(), 0);
    until("nothing more that comes in", || {
        let growth = worker.process.resident_bytes().saturating_sub(start);
        assert!(growth < MAX_GROWTH, "{growth} bytes more");
        looks += 1;
        if looks > LOOKS { Ok(()) } else { Err(looks) }
    });
}

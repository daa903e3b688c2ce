//! Promise 14: stalls and lost records are noticed.

use std::time::Instant;

use chrono::{DateTime, TimeDelta, Utc};
use shared::{
    fault::{Moment, STALL_AT},
    order::sample::Generator,
};

use super::{
    run::Run,
    trial::{Promise, Trial},
};
use crate::{
    ledger::Ledger,
    process::Signal,
    record::Draft,
    stack::{Stack, Worker},
    wait::until,
};

pub(super) const PROMISE: Promise = Promise {
    number: 14,
    sentence: "A worker that makes no progress stops being live within 45 s, and workers report \
               records that Kafka deleted unread.",
    trials: &[
        Trial {
            name: "a_stalled_worker_is_not_live",
            fault: "a worker hangs in the middle of a batch, for no known reason",
            body: stands_still,
        },
        Trial {
            name: "records_deleted_below_the_committed_offset_are_reported",
            fault: "Kafka deletes records that the group has not read",
            body: deleted_between_runs,
        },
        Trial {
            name: "records_deleted_under_a_running_worker_are_reported",
            fault: "Kafka deletes records that a running worker is about to read",
            body: deleted_under_way,
        },
    ],
};

/// The promised limit, in seconds.
const NOTICED_S: u64 = 45;

/// Log message of the worker for records that it never received.
const GAP: &str = "Kafka deleted records before the group read them";

fn drafts(seed: u64, count: usize) -> impl Iterator<Item = Draft> {
    let orders = Generator::new(seed, 1..=3).take(count);
    orders.map(|order| Draft::order(&order))
}

fn stands_still(run: &mut Run) {
    let mut stack = run.stack("still").faulty().start();
    let stall = format!("{}:2", Moment::BeforeCommit.as_str());
    stack.start_worker_with(&[(STALL_AT, &stall)]);
    let mut ledger = Ledger::default();
    stack.send(&mut ledger, &drafts(run.seed, 1).collect::<Vec<_>>());
    stack.settle();
    let worker = &stack.workers[0];
    assert_eq!(worker.admin.get("/livez").status, 200);

    stack.send(&mut ledger, &drafts(run.seed + 1, 50).collect::<Vec<_>>());
    let sent = Instant::now();
    let report = until("a worker that is not live", || {
        match worker.admin.get("/livez") {
            red if red.status == 503 => Ok(red),
            green => Err(green.text()),
        }
    });
    let seconds = sent.elapsed().as_secs();
    assert!(report.text().contains("stalled"), "{}", report.text());
    assert_eq!(worker.admin.state_of("waiting_for"), "nothing");
    run.figure("not live after", format!("{seconds} s"));
    assert!(
        !run.is_full() || seconds <= NOTICED_S,
        "red after {seconds} s"
    );

    // As an orchestrator does after a failed liveness probe.
    stack.workers.remove(0).process.kill();
    stack.start_worker();
    stack.settle();
    stack.check().tiers(&ledger);
}

/// Returns how many records the worker reports as deleted before it read them.
#[track_caller]
fn gap(worker: &Worker) -> u64 {
    worker.admin.metric("worker_offset_gap_records_total", "")
}

#[track_caller]
fn await_gap(worker: &Worker, records: u64) {
    until(
        &format!("{records} records reported as deleted"),
        || match gap(worker) {
            found if found == records => Ok(()),
            found => Err(found),
        },
    );
    assert!(worker.process.log().contains(GAP), "it is not in the log");
}

fn in_partition(partition: i32, mut draft: Draft) -> Draft {
    draft.record.partition = Some(partition);
    draft
}

fn delete(stack: &Stack, below: &[(i32, i64)]) {
    stack
        .broker()
        .delete_records(&stack.addresses().topic, below);
}

/// Asserts that the log names each gap: partition, first offset, end offset, number of records.
#[track_caller]
fn assert_gaps_logged(log: &str, gaps: &[(i32, i64, i64, i64)]) {
    for (partition, from, to, records) in gaps {
        let fields = [
            format!("\"partition\":{partition},"),
            format!("\"from\":{from},"),
            format!("\"to\":{to},"),
            format!("\"records\":{records}"),
        ];
        let said = log
            .lines()
            .any(|line| line.contains(GAP) && fields.iter().all(|field| line.contains(field)));
        assert!(said, "{fields:?}");
    }
}

fn deleted_between_runs(run: &mut Run) {
    let mut stack = run.stack("gap").workers(1).start();
    let mut ledger = Ledger::default();
    let everywhere = |seed| -> Vec<Draft> {
        let spread = drafts(seed, 60).zip((0..6).cycle());
        spread
            .map(|(draft, partition)| in_partition(partition, draft))
            .collect()
    };
    stack.send(&mut ledger, &everywhere(run.seed));
    stack.settle();
    assert_eq!(gap(&stack.workers[0]), 0);
    let long_ago: DateTime<Utc> = Utc::now() - TimeDelta::hours(1);
    stack.stop_workers();

    // Ten more records in each partition. Of partition 0 four unread records are deleted, of
    // partition 1 all ten, and of partition 2 only records that the group has read.
    stack.send(&mut ledger, &everywhere(run.seed + 1));
    delete(&stack, &[(0, 14), (1, 20), (2, 10)]);
    let worker = stack.start_worker();
    await_gap(worker, 14);
    assert_gaps_logged(&worker.process.log(), &[(0, 10, 14, 4), (1, 10, 20, 10)]);
    let lost = |sent: &&crate::ledger::Sent| match sent.position.partition {
        0 => (10..14).contains(&sent.position.offset),
        1 => sent.position.offset >= 10,
        _ => false,
    };
    assert_eq!(ledger.records().iter().filter(lost).count(), 14);
    stack.await_orders(60 + 60 - 14);
    // Reported once.
    await_gap(&stack.workers[0], 14);
    stack.stop_workers();

    let said = stack.command("worker", &["rewind", "--to", &long_ago.to_rfc3339()]);
    assert_eq!(said.code, Some(0), "{}", said.stderr);
    assert!(
        said.stdout.contains("76 records to be read again"),
        "{}",
        said.stdout
    );
    for (partition, log_start) in [(0, 14), (1, 20), (2, 10)] {
        let warning = format!(
            "warning: partition {partition}: Kafka deleted the {log_start} records below offset \
             {log_start}"
        );
        assert!(said.stderr.contains(&warning), "{}", said.stderr);
    }
    assert_eq!(
        said.stderr.matches("warning: ").count(),
        3,
        "{}",
        said.stderr
    );
    run.figure("deleted unread", 14);
    run.figure("reported", 14);
}

fn deleted_under_way(run: &mut Run) {
    let mut stack = run
        .stack("gap-running")
        // The worker stays a member of the group while it is frozen.
        .variable("KAFKA_SESSION_TIMEOUT", "30s")
        .workers(1)
        .start();
    let mut ledger = Ledger::default();
    let first: Vec<Draft> = drafts(run.seed, 1)
        .map(|draft| in_partition(0, draft))
        .collect();
    stack.send(&mut ledger, &first);
    stack.settle();

    // More records than one fetch returns. The rest is deleted before the worker fetches it.
    stack.workers[0].process.signal(Signal::Stop);
    let many: Vec<Draft> = drafts(run.seed + 1, 5000)
        .map(|draft| in_partition(0, draft))
        .collect();
    stack.send(&mut ledger, &many);
    delete(&stack, &[(0, 4991)]);
    stack.workers[0].process.signal(Signal::Continue);
    let all = ledger.records().len() as u64;
    let worker = &stack.workers[0];
    let deleted = until("every record stored or reported as deleted", || {
        match (worker.messages("stored"), gap(worker)) {
            (stored, gap) if gap > 0 && stored + gap == all => Ok(gap),
            (stored, gap) => Err(format!("{stored} stored, {gap} deleted, {all} sent")),
        }
    });
    await_gap(worker, deleted);
    run.figure("deleted unread", deleted);
    run.figure("reported", deleted);
}

//! Promise 10: answers of the api are hardly older than the content of Postgres.

mod fault;
mod hot;
mod late;
mod left_behind;
mod restored;

use fault::RedisFault;
use hot::Hot;

use super::{
    run::Run,
    trial::{Promise, Trial},
};
use crate::Demand;

pub(super) const PROMISE: Promise = Promise {
    number: 10,
    sentence: "An update is visible on every api replica within 50 ms (p99) of its commit. With \
               Redis or its invalidation link cut, or after a worker died or froze, it is visible \
               at most LOCAL_CACHE_TTL (5 s) later than in Postgres. At most 20 s after Redis is \
               back, no answer is older than Postgres.",
    trials: &[
        Trial {
            name: "an_update_is_visible_on_every_replica_at_once",
            fault: "50 hot orders change continuously, with a local cache TTL of an hour",
            body: healthy,
        },
        Trial {
            name: "a_cut_link_delays_updates_by_at_most_the_local_cache_ttl",
            fault: "the link to Redis is cut for the api, for all workers, for one of two \
                    workers; the invalidation connections are killed",
            body: |run| {
                let faults = [
                    RedisFault::ApiLinkCut,
                    RedisFault::WorkerLinksCut,
                    RedisFault::OneWorkerLinkCut,
                    RedisFault::SubscriptionsKilled,
                ];
                under(run, "links", &faults);
            },
        },
        Trial {
            name: "a_redis_that_rejects_writes_leaves_no_old_entry",
            fault: "Redis is frozen, read-only, and full",
            body: |run| {
                under(
                    run,
                    "unwritable",
                    &[RedisFault::Frozen, RedisFault::ReadOnly, RedisFault::Full],
                )
            },
        },
        Trial {
            name: "a_redis_that_lost_entries_leaves_no_old_entry",
            fault: "Redis is flushed, restored from an old dump, and loses entries during fills",
            body: |run| {
                under(
                    run,
                    "forgetful",
                    &[
                        RedisFault::Flushed,
                        RedisFault::Deleted,
                        RedisFault::Restored,
                    ],
                )
            },
        },
        Trial {
            name: "a_restored_redis_with_the_same_watermark_is_repaired",
            fault: "Redis is restored from a dump so recent that the watermark is unchanged",
            body: restored::same_watermark,
        },
        Trial {
            name: "the_api_bypasses_a_redis_that_no_worker_reaches",
            fault: "the link of all workers to Redis is cut, with a local cache TTL of an hour",
            body: late::unreachable,
        },
        Trial {
            name: "another_worker_finishes_the_writes_of_a_dead_one",
            fault: "a worker dies between COMMIT and its write to Redis, and no other worker gets \
                    its records for minutes",
            body: left_behind::between_commit_and_redis,
        },
        Trial {
            name: "a_late_commit_answer_writes_no_old_version_to_redis",
            fault: "the answer to COMMIT arrives after a newer version was written to Redis and \
                    evicted",
            body: late::commit,
        },
        Trial {
            name: "a_late_fill_writes_no_old_version_to_redis",
            fault: "a row that the api reads arrives after a newer version was written to Redis \
                    and evicted",
            body: late::fill,
        },
        Trial {
            name: "an_older_version_never_replaces_a_newer_one_in_redis",
            fault: "a write of the api reaches Redis after the write of a newer version",
            body: late::write,
        },
        Trial {
            name: "a_load_overtaken_by_an_announcement_is_not_cached",
            fault: "a row that the api reads arrives after the announcement of a newer version",
            body: late::load,
        },
    ],
};

/// The promise for a healthy system, in microseconds, on a machine that gets all the CPU time it
/// wants. If the host takes half of it (steal), everything takes twice as long.
const HEALTHY_P99_US: f64 = 50_000.0;

/// The promise while a link is cut (`LOCAL_CACHE_TTL`), and an allowance for a busy machine, in
/// microseconds.
const CUT_US: i64 = 5_000_000 + 500_000;

fn healthy(run: &mut Run) {
    let mut hot = Hot::start(run, "hot", &[("LOCAL_CACHE_TTL", "1h")]);
    let updates = run.choose(500, 10_000);
    let readers = hot.readers();
    let demand = Demand::so_far();
    hot.update(updates);
    hot.settle();
    let stolen = Demand::so_far().stolen_since(demand);
    let seen = hot.seen(readers);
    seen.assert_sound(&hot);
    hot.check();

    let lags = seen.lags(0..0);
    run.figure("updates", updates);
    run.figure("reads", seen.reads());
    run.figure("p50", lags.percentile(50));
    run.figure("p99", lags.percentile(99));
    run.figure("max", lags.percentile(100));
    run.zero("moved back", seen.went_back());
    let stolen_percent = format!("{:.0} %", stolen * 100.0);
    if run.is_full() {
        let limit = HEALTHY_P99_US / (1.0 - stolen);
        let p99 = lags.percentile(99).0 as f64;
        assert!(p99 <= limit, "staleness {lags}, steal {stolen_percent}");
    }
    run.figure("steal", stolen_percent);
}

/// Runs the hot orders under one fault after the other.
fn under(run: &mut Run, name: &'static str, faults: &[RedisFault]) {
    let mut hot = Hot::start(run, name, &[]);
    let (before, during, after) = run.choose((40, 160, 40), (500, 6000, 5000));
    for fault in faults {
        let readers = hot.readers();
        hot.update(before);
        fault.begin(&mut hot);
        for _ in 0..10 {
            hot.update(during / 10);
            fault.again(&mut hot);
        }
        hot.assert_healthy();
        let grace = fault.end(&mut hot);
        hot.update(after);
        hot.settle();
        let seen = hot.seen(readers);
        seen.assert_sound(&hot);
        hot.check();

        run.figure(fault.name(), seen.lags(0..0));
        let late = seen.lags(grace.clone()).percentile(100);
        if fault.may_go_back() {
            run.figure("moved back", seen.went_back());
        } else {
            run.zero("moved back", seen.went_back());
        }
        if run.is_full() {
            assert!(late.0 <= CUT_US, "{}: {late} behind Postgres", fault.name());
        }
    }
}

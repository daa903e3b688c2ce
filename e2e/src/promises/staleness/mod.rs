//! Promise 10: answers of the api are hardly older than the content of Postgres.

mod fault;
mod hot;
mod late;
mod left_behind;
mod restored;

use fault::Fault;
use hot::Hot;

use super::{Promise, Run, Trial};
use crate::Demand;

pub(super) const PROMISE: Promise = Promise {
    number: 10,
    sentence: "An update is visible on every api replica within 50 ms (p99) of its commit; with Redis or its invalidation link cut, or when the worker dies or freezes, at most LOCAL_CACHE_TTL (5 s) later than in Postgres; at most 20 s after Redis is back nothing is answered that is older than Postgres.",
    trials: &[
        Trial {
            name: "an_update_is_seen_on_every_replica_at_once",
            fault: "50 hot orders change all the time, and the local caches would keep them for an hour",
            body: healthy,
        },
        Trial {
            name: "a_cut_link_delays_no_update_for_longer_than_the_local_cache_lives",
            fault: "the link between api and Redis is cut, that of all workers, that of one of two workers, and the invalidation connections are killed",
            body: |run| {
                let faults = [
                    Fault::ApiLinkCut,
                    Fault::WorkerLinksCut,
                    Fault::OneWorkerLinkCut,
                    Fault::SubscriptionsKilled,
                ];
                under(run, "links", &faults);
            },
        },
        Trial {
            name: "a_redis_that_does_not_write_leaves_nothing_old_behind",
            fault: "Redis is frozen, read-only, and full",
            body: |run| {
                under(
                    run,
                    "unwritable",
                    &[Fault::Frozen, Fault::ReadOnly, Fault::Full],
                )
            },
        },
        Trial {
            name: "a_redis_that_forgets_leaves_nothing_old_behind",
            fault: "Redis is flushed, restored from an old dump, and loses entries in the middle of fills",
            body: |run| {
                under(
                    run,
                    "forgetful",
                    &[Fault::Flushed, Fault::Deleted, Fault::Restored],
                )
            },
        },
        Trial {
            name: "a_redis_that_comes_back_with_the_same_watermark_is_put_right",
            fault: "Redis is restored from a dump so young that its watermark cannot tell",
            body: restored::same_watermark,
        },
        Trial {
            name: "a_redis_that_no_worker_reaches_is_not_believed",
            fault: "the link of all workers is cut, and a local cache would keep for an hour what it has from Redis",
            body: late::unreachable,
        },
        Trial {
            name: "what_a_worker_leaves_behind_is_finished_by_another",
            fault: "a worker dies between COMMIT and its write to Redis, and for minutes nobody else gets its records",
            body: left_behind::between_commit_and_redis,
        },
        Trial {
            name: "a_commit_that_is_answered_late_puts_nothing_old_into_redis",
            fault: "the answer to a COMMIT comes when a newer version has come to Redis and has been evicted",
            body: late::commit,
        },
        Trial {
            name: "a_fill_that_comes_late_puts_nothing_old_into_redis",
            fault: "the api reads a row, and gets it when a newer version has come to Redis and has been evicted",
            body: late::fill,
        },
        Trial {
            name: "an_older_version_never_replaces_a_newer_one_in_redis",
            fault: "a write of the api arrives at Redis after that of a newer version",
            body: late::write,
        },
        Trial {
            name: "a_load_that_an_announcement_overtakes_is_not_kept",
            fault: "the api reads a row, and gets it after the announcement of a newer version",
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
    run.zero("went back", seen.went_back());
    let stolen_percent = format!("{:.0} %", stolen * 100.0);
    if run.is_full() {
        let limit = HEALTHY_P99_US / (1.0 - stolen);
        let p99 = lags.percentile(99).0 as f64;
        assert!(p99 <= limit, "staleness {lags}, steal {stolen_percent}");
    }
    run.figure("steal", stolen_percent);
}

/// Runs the hot orders under one fault after the other.
fn under(run: &mut Run, name: &'static str, faults: &[Fault]) {
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
            run.figure("went back", seen.went_back());
        } else {
            run.zero("went back", seen.went_back());
        }
        if run.is_full() {
            assert!(late.0 <= CUT_US, "{}: {late} behind Postgres", fault.name());
        }
    }
}

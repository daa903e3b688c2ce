//! Short runs of the trials of `e2e::promises`, and the proof that they can fail. `make chaos` runs
//! them at full length.

use std::fs;

use e2e::promises::{PROMISES, Run, SABOTAGES, Scale, trial};

/// Seed of all random choices here. `make chaos` uses a new one for each run.
const SEED: u64 = 20_261_121;

/// Generates a test for each trial, and one that asserts that no trial is missing.
macro_rules! quickly {
    ($($name:ident)*) => {
        $(
            #[test]
            fn $name() {
                (trial(stringify!($name)).body)(&mut Run::new(SEED, Scale::Quick));
            }
        )*

        #[test]
        fn every_trial_has_its_test() {
            let trials = PROMISES.iter().flat_map(|promise| promise.trials);
            let names: Vec<&str> = trials.map(|trial| trial.name).collect();
            assert_eq!(names, [$(stringify!($name)),*]);
        }
    };
}

quickly! {
    killed_workers_lose_and_duplicate_nothing
    workers_killed_at_the_worst_moments_lose_nothing
    rebalances_skip_no_record
    an_unfinished_record_holds_the_offset_back
    a_late_commit_answer_moves_no_offset_back
    a_recreated_topic_is_read_from_its_beginning
    a_rolling_restart_redelivers_nothing_and_fails_no_request
    frozen_workers_do_not_block_others_or_overwrite_newer_versions
    a_broker_outage_or_bad_link_loses_nothing
    workers_wait_for_an_unavailable_postgres
    workers_wait_for_a_postgres_that_rejects_work
    poison_records_do_not_block_and_are_dead_lettered
    a_rejected_row_costs_only_itself
    a_database_that_rejects_everything_does_not_empty_the_topic
    a_restarted_worker_starts_paused_after_too_many_rejections
    an_unavailable_dead_letter_topic_holds_the_offset_back
    the_greatest_version_wins_in_any_order_of_arrival
    a_replay_from_the_beginning_changes_nothing
    an_update_is_visible_on_every_replica_at_once
    a_cut_link_delays_updates_by_at_most_the_local_cache_ttl
    a_redis_that_rejects_writes_leaves_no_old_entry
    a_redis_that_lost_entries_leaves_no_old_entry
    a_restored_redis_with_the_same_watermark_is_repaired
    the_api_bypasses_a_redis_that_no_worker_reaches
    another_worker_finishes_the_writes_of_a_dead_one
    a_late_commit_answer_writes_no_old_version_to_redis
    a_late_fill_writes_no_old_version_to_redis
    an_older_version_never_replaces_a_newer_one_in_redis
    a_load_overtaken_by_an_announcement_is_not_cached
    without_redis_no_request_fails
    each_replica_reads_a_cold_order_once
    an_order_cached_as_not_found_is_found_when_it_arrives
    unknown_uids_take_no_memory
    a_backlog_of_large_orders_stays_within_memory
    partitions_assigned_during_a_pause_stay_within_memory
    a_stalled_worker_is_not_live
    records_deleted_below_the_committed_offset_are_reported
    records_deleted_under_a_running_worker_are_reported
    an_erased_order_stays_erased_after_redelivery
    a_replayed_dead_letter_never_overwrites_a_newer_version
    a_process_ends_in_time_when_a_service_is_frozen
    personal_data_stays_out_of_logs_metrics_traces_and_errors
    hostile_clients_fail_no_honest_request
    hostile_clients_stop_no_probe_of_a_replica_with_few_descriptors
    everything_at_random
}

/// Generates a test for each invariant: its trial must detect programs that break it.
macro_rules! detected {
    ($($name:ident)*) => {
        mod broken {
            $(
                #[test]
                fn $name() {
                    super::assert_detected(stringify!($name));
                }
            )*
        }

        #[test]
        fn every_sabotage_has_its_test() {
            let names = SABOTAGES.iter().map(|sabotage| sabotage.invariant);
            assert_eq!(Vec::from_iter(names), [$(stringify!($name)),*]);
        }
    };
}

detected! {
    offset_after_write
    contiguous_offset
    epoch_fence
    transient_is_no_verdict
    children_follow_the_row
    compare_and_set
    fresh_fill
    fill_fence
}

fn assert_detected(invariant: &str) {
    let mut sabotages = SABOTAGES.iter();
    let sabotage = sabotages
        .find(|sabotage| sabotage.invariant == invariant)
        .unwrap_or_else(|| panic!("no trial for {invariant}"));
    if let Err(error) = sabotage.is_detected(SEED) {
        panic!("{error}");
    }
}

/// Asserts that each patch breaks the invariant of its name, and that each has a trial.
#[test]
fn every_patch_has_its_trial() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/sabotage");
    let files = fs::read_dir(folder).expect("e2e/sabotage");
    let mut patches: Vec<String> = files
        .map(|file| {
            let file = file.expect("a file of e2e/sabotage").path();
            let name = file.file_stem().expect("a name").to_string_lossy();
            let patch = fs::read_to_string(&file).expect("a patch");
            assert!(patch.contains(&format!("{name:?}")), "{}", file.display());
            name.into_owned()
        })
        .collect();
    patches.sort();
    let mut invariants: Vec<&str> = SABOTAGES.iter().map(|entry| entry.invariant).collect();
    invariants.sort_unstable();
    assert_eq!(patches, invariants);
}

/// Asserts that `docs/promises.md` holds each promise, each trial and each broken invariant, with
/// the figures of a run.
#[test]
fn the_page_lists_every_promise() {
    let page = include_str!("../../../docs/promises.md");
    let promises = PROMISES.iter().map(|promise| promise.sentence);
    let trials = PROMISES.iter().flat_map(|promise| promise.trials);
    let invariants = SABOTAGES.iter().map(|sabotage| sabotage.invariant);
    let missing: Vec<&str> = promises
        .chain(trials.flat_map(|trial| [trial.fault, trial.name]))
        .chain(invariants)
        .filter(|text| !page.contains(text))
        .collect();
    assert_eq!(missing, [""; 0], "`make chaos` writes the page");
    assert!(!page.contains("not run") && !page.contains("**broken**"));
}

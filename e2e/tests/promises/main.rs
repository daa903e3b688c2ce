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
    killed_workers_lose_nothing_and_double_nothing
    workers_that_die_at_the_worst_moments_lose_nothing
    workers_that_come_and_go_pass_over_nothing
    an_unfinished_record_holds_the_offset_back
    a_late_answer_takes_no_offset_back
    a_topic_that_is_recreated_is_read_from_its_beginning
    a_rolling_restart_reads_nothing_again_and_fails_nobody
    frozen_workers_block_nobody_and_overwrite_nothing
    a_broker_that_dies_or_is_hard_to_reach_costs_nothing_but_time
    an_absent_postgres_is_waited_for
    a_postgres_that_refuses_work_is_waited_for
    poison_neither_blocks_nor_disappears
    a_row_that_the_database_refuses_costs_itself_alone
    a_database_that_refuses_everything_does_not_empty_the_topic
    a_restarted_worker_remembers_that_the_database_refused_too_much
    what_the_dead_letter_topic_does_not_take_is_not_passed
    the_greatest_version_wins_whatever_the_order
    a_replay_from_the_beginning_changes_nothing
    an_update_is_seen_on_every_replica_at_once
    a_cut_link_delays_no_update_for_longer_than_the_local_cache_lives
    a_redis_that_does_not_write_leaves_nothing_old_behind
    a_redis_that_forgets_leaves_nothing_old_behind
    a_redis_that_comes_back_with_the_same_watermark_is_put_right
    a_redis_that_no_worker_reaches_is_not_believed
    what_a_worker_leaves_behind_is_finished_by_another
    a_commit_that_is_answered_late_puts_nothing_old_into_redis
    a_fill_that_comes_late_puts_nothing_old_into_redis
    an_older_version_never_replaces_a_newer_one_in_redis
    a_load_that_an_announcement_overtakes_is_not_kept
    without_redis_no_request_fails
    a_cold_order_is_read_once_by_each_replica
    an_order_that_was_not_found_is_found_when_it_arrives
    orders_that_do_not_exist_take_no_memory
    a_backlog_of_large_orders_fills_no_memory
    partitions_that_come_while_a_worker_is_paused_fill_no_memory
    a_worker_that_stands_still_is_not_live
    records_deleted_below_the_committed_offset_are_reported
    records_deleted_under_a_running_worker_are_reported
    an_erased_order_stays_erased_whatever_comes_again
    a_replayed_dead_letter_never_overwrites_what_came_later
    a_process_ends_in_time_whatever_is_frozen
    personal_data_is_told_to_nobody
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

/// Asserts that `docs/promises.md` holds each promise, each trial and each broken invariant, with the
/// figures of a run.
#[test]
fn the_page_tells_every_promise() {
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

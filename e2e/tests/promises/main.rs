//! The trials of `e2e::promises` in short, and the proof that they can fail; `make chaos` runs them at full length.

use e2e::promises::{PROMISES, Run, SABOTAGES, Scale, trial};
use shared::fault::Rule;

/// Decides all that is left to chance here; `make chaos` takes another one each time.
const SEED: u64 = 20_261_121;

/// A test for each trial, and one that none was forgotten.
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
    a_rolling_restart_reads_nothing_again_and_fails_nobody
    frozen_workers_block_nobody_and_overwrite_nothing
    a_broker_that_dies_or_is_hard_to_reach_costs_nothing_but_time
    an_absent_postgres_is_waited_for
    a_postgres_that_refuses_work_is_waited_for
    what_the_dead_letter_topic_does_not_take_is_not_passed
    the_greatest_version_wins_whatever_the_order
    a_replay_from_the_beginning_changes_nothing
    everything_at_random
}

/// A test for each rule: programs that break it are noticed by its trial.
macro_rules! noticed {
    ($($name:ident)*) => {
        mod broken {
            $(
                #[test]
                fn $name() {
                    super::assert_noticed(stringify!($name));
                }
            )*
        }

        #[test]
        fn every_rule_is_broken_once() {
            let rules = SABOTAGES.iter().map(|sabotage| sabotage.rule);
            assert_eq!(Vec::from_iter(rules), Rule::ALL);
            let names = SABOTAGES.iter().map(|sabotage| sabotage.rule.as_str());
            assert_eq!(Vec::from_iter(names), [$(stringify!($name)),*]);
        }
    };
}

noticed! {
    offset_after_write
    contiguous_offset
    epoch_fence
    transient_is_no_verdict
    children_follow_the_row
}

fn assert_noticed(rule: &str) {
    let mut sabotages = SABOTAGES.iter();
    let sabotage = sabotages
        .find(|sabotage| sabotage.rule.as_str() == rule)
        .unwrap_or_else(|| panic!("nobody notices that {rule} is broken"));
    if let Err(error) = sabotage.is_noticed(SEED) {
        panic!("{error}");
    }
}

//! Every race between a load and an announcement, step by step.

use shared::order::DocumentVersion;

use super::*;

const TTL: Duration = Duration::from_secs(5);
const NEGATIVE_TTL: Duration = Duration::from_millis(800);

fn cache_of(max_bytes: usize) -> LocalCache {
    let cache = LocalCache::new(Settings {
        max_bytes,
        ttl: TTL,
        negative_ttl: NEGATIVE_TTL,
    });
    cache.link_up();
    cache
}

fn cache() -> LocalCache {
    cache_of(1 << 20)
}

fn uid(text: &str) -> OrderUid {
    OrderUid::parse(text).unwrap()
}

fn version(offset: i64) -> Version {
    Version::new(1_700_000_000_000, offset, 0)
}

fn order(offset: i64) -> Answer {
    Answer::new(DocumentVersion::current(version(offset)), Some(b"{}"))
}

fn erased(offset: i64) -> Answer {
    Answer::Erased(DocumentVersion::current(version(offset)))
}

/// The answer of a program whose documents have another shape.
fn order_in_shape(offset: i64, representation: u8) -> Answer {
    let version = DocumentVersion {
        version: version(offset),
        representation,
    };
    Answer::new(version, Some(b"{}"))
}

fn held(cache: &LocalCache, text: &str) -> Option<Option<Version>> {
    cache
        .get(&uid(text), Instant::now())
        .map(|answer| answer.version())
}

fn load(cache: &LocalCache, text: &str, answer: Answer) -> Insertion {
    cache.insert(uid(text), answer, cache.begin(&uid(text)))
}

#[test]
fn a_loaded_answer_is_served() {
    let cache = cache();
    assert_eq!(held(&cache, "a"), None);
    assert_eq!(load(&cache, "a", order(1)), Insertion::Kept);
    assert_eq!(load(&cache, "b", erased(2)), Insertion::Kept);
    assert_eq!(load(&cache, "c", Answer::Unknown), Insertion::Kept);
    assert_eq!(held(&cache, "a"), Some(Some(version(1))));
    assert_eq!(held(&cache, "b"), Some(Some(version(2))));
    assert_eq!(held(&cache, "c"), Some(None));
}

#[test]
fn an_announcement_drops_only_older_versions() {
    let cache = cache();
    for name in ["older", "equal", "newer", "other"] {
        load(&cache, name, order(5));
    }
    load(&cache, "unknown", Answer::Unknown);
    load(&cache, "erased", erased(5));
    cache.invalidate(&uid("older"), version(6));
    cache.invalidate(&uid("equal"), version(5));
    cache.invalidate(&uid("newer"), version(4));
    cache.invalidate(&uid("unknown"), version(1));
    cache.invalidate(&uid("erased"), version(6));
    assert_eq!(held(&cache, "older"), None);
    assert_eq!(held(&cache, "equal"), Some(Some(version(5))));
    assert_eq!(held(&cache, "newer"), Some(Some(version(5))));
    assert_eq!(held(&cache, "other"), Some(Some(version(5))));
    assert_eq!(held(&cache, "unknown"), None);
    assert_eq!(held(&cache, "erased"), None);
}

#[test]
fn a_load_begun_before_an_announcement_inserts_nothing_after_it() {
    let cache = cache();
    let token = cache.begin(&uid("a"));
    cache.invalidate(&uid("a"), version(2));
    assert_eq!(cache.insert(uid("a"), order(1), token), Insertion::Fenced);
    assert_eq!(held(&cache, "a"), None);
    assert_eq!(load(&cache, "a", order(2)), Insertion::Kept);
}

#[test]
fn not_found_loaded_before_an_announcement_is_not_kept_after_it() {
    let cache = cache();
    let token = cache.begin(&uid("a"));
    cache.invalidate(&uid("a"), version(1));
    assert_eq!(
        cache.insert(uid("a"), Answer::Unknown, token),
        Insertion::Fenced
    );
    assert_eq!(held(&cache, "a"), None);
}

#[test]
fn a_load_that_returns_the_announced_version_is_kept() {
    for loaded in [2, 3] {
        let cache = cache();
        let token = cache.begin(&uid("a"));
        cache.invalidate(&uid("a"), version(1));
        cache.invalidate(&uid("a"), version(2));
        let (stale, current) = (order(1), order(loaded));
        assert_eq!(cache.insert(uid("a"), stale, token), Insertion::Fenced);
        assert_eq!(cache.insert(uid("a"), current, token), Insertion::Kept);
        assert_eq!(held(&cache, "a"), Some(Some(version(loaded))));
    }
}

#[test]
fn announcements_before_a_lost_link_admit_no_load() {
    let cache = cache();
    let token = cache.begin(&uid("a"));
    cache.invalidate(&uid("a"), version(2));
    cache.link_down();
    cache.link_up();
    assert_eq!(cache.insert(uid("a"), order(2), token), Insertion::Fenced);
    // A load that starts now does not depend on earlier announcements.
    assert_eq!(load(&cache, "a", order(1)), Insertion::Kept);
}

#[test]
fn of_two_overlapping_loads_the_newer_version_stays() {
    let cache = cache();
    let (slow, fast) = (cache.begin(&uid("a")), cache.begin(&uid("a")));
    assert_eq!(cache.insert(uid("a"), order(2), fast), Insertion::Kept);
    assert_eq!(cache.insert(uid("a"), order(1), slow), Insertion::KeptNewer);
    assert_eq!(
        cache.insert(uid("a"), Answer::Unknown, slow),
        Insertion::KeptNewer
    );
    assert_eq!(held(&cache, "a"), Some(Some(version(2))));
    assert_eq!(cache.insert(uid("a"), erased(3), slow), Insertion::Kept);
    assert_eq!(held(&cache, "a"), Some(Some(version(3))));
}

/// A version that Postgres never had, forged in Redis.
#[test]
fn a_newer_version_keeps_others_out_only_until_it_expires() {
    let cache = LocalCache::new(Settings {
        max_bytes: 1 << 20,
        ttl: Duration::ZERO,
        negative_ttl: NEGATIVE_TTL,
    });
    assert_eq!(load(&cache, "a", order(1000)), Insertion::Kept);
    assert_eq!(load(&cache, "a", order(1)), Insertion::Kept);
}

/// A forged announcement costs at most the loads in flight.
#[test]
fn an_announced_version_that_never_comes_keeps_no_later_load_out() {
    let cache = cache();
    load(&cache, "a", order(1));
    let overtaken = cache.begin(&uid("a"));
    cache.invalidate(&uid("a"), version(i64::MAX));
    assert_eq!(held(&cache, "a"), None);
    let insertion = cache.insert(uid("a"), order(1), overtaken);
    assert_eq!(insertion, Insertion::Fenced);
    assert_eq!(load(&cache, "a", order(1)), Insertion::Kept);
    assert_eq!(held(&cache, "a"), Some(Some(version(1))));
}

#[test]
fn of_one_version_the_newer_shape_stays() {
    let cache = cache();
    let shape = || {
        let answer = cache.get(&uid("a"), Instant::now()).unwrap();
        let held = answer.document_version().unwrap();
        (held.version.offset, held.representation)
    };
    load(&cache, "a", order_in_shape(1, 1));
    assert_eq!(load(&cache, "a", order_in_shape(1, 2)), Insertion::Kept);
    assert_eq!(
        load(&cache, "a", order_in_shape(1, 1)),
        Insertion::KeptNewer
    );
    assert_eq!(shape(), (1, 2));
    // The version decides first.
    assert_eq!(load(&cache, "a", order_in_shape(2, 1)), Insertion::Kept);
    assert_eq!(
        load(&cache, "a", order_in_shape(1, 2)),
        Insertion::KeptNewer
    );
    assert_eq!(shape(), (2, 1));
    // An announcement names the version alone.
    cache.invalidate(&uid("a"), version(2));
    assert_eq!(shape(), (2, 1));
}

#[test]
fn any_version_replaces_not_found() {
    let cache = cache();
    load(&cache, "a", Answer::Unknown);
    assert_eq!(load(&cache, "a", order(0)), Insertion::Kept);
    assert_eq!(held(&cache, "a"), Some(Some(version(0))));
}

#[test]
fn a_load_that_spans_the_loss_of_the_link_is_rejected() {
    let cache = cache();
    load(&cache, "held", order(1));
    let (token, any) = (cache.begin(&uid("a")), cache.begin_any());
    cache.link_down();
    assert_eq!(held(&cache, "held"), None);
    assert_eq!(cache.insert(uid("a"), order(1), token), Insertion::Fenced);
    assert_eq!(
        cache.insert(uid("b"), order(1), cache.token_of(&uid("b"), &any)),
        Insertion::Fenced
    );
}

#[test]
fn entries_loaded_without_the_link_are_dropped_when_it_returns() {
    let cache = cache();
    cache.link_down();
    assert_eq!(load(&cache, "a", order(1)), Insertion::Kept);
    let token = cache.begin(&uid("b"));
    cache.link_up();
    assert_eq!(held(&cache, "a"), None);
    assert_eq!(cache.insert(uid("b"), order(1), token), Insertion::Fenced);
}

#[test]
fn entries_expire_counted_from_the_start_of_their_load() {
    let cache = cache();
    let token = cache.begin(&uid("a"));
    cache.insert(uid("a"), order(1), token);
    cache.insert(
        uid("b"),
        Answer::Unknown,
        cache.token_of(&uid("b"), &cache.begin_any()),
    );
    let at = |delay: Duration| token.started() + delay;
    assert!(
        cache
            .get(&uid("a"), at(TTL - Duration::from_nanos(1)))
            .is_some()
    );
    assert!(cache.get(&uid("a"), at(TTL)).is_none());
    assert!(
        cache
            .get(&uid("b"), at(NEGATIVE_TTL - Duration::from_millis(1)))
            .is_some()
    );
    assert!(
        cache
            .get(&uid("b"), at(NEGATIVE_TTL + Duration::from_secs(1)))
            .is_none()
    );
}

#[test]
fn the_time_to_live_may_be_unlimited() {
    let cache = LocalCache::new(Settings {
        max_bytes: 1 << 20,
        ttl: Duration::MAX,
        negative_ttl: Duration::MAX,
    });
    cache.link_up();
    load(&cache, "a", order(1));
    load(&cache, "b", Answer::Unknown);
    let next_year = Instant::now() + Duration::from_secs(365 * 24 * 3600);
    for text in ["a", "b"] {
        assert!(cache.get(&uid(text), next_year).is_some());
    }
}

#[test]
fn without_the_link_no_entry_is_served_longer_than_a_second() {
    let cache = cache();
    cache.link_down();
    let token = cache.begin(&uid("a"));
    cache.insert(uid("a"), order(1), token);
    assert!(
        cache
            .get(&uid("a"), token.started() + Duration::from_millis(999))
            .is_some()
    );
    assert!(
        cache
            .get(&uid("a"), token.started() + UNLINKED_TTL)
            .is_none()
    );
}

#[test]
fn a_warm_up_is_fenced_too() {
    let cache = cache();
    let any = cache.begin_any();
    cache.invalidate(&uid("changed"), version(2));
    let insert = |text: &str| cache.insert(uid(text), order(1), cache.token_of(&uid(text), &any));
    assert_eq!(insert("changed"), Insertion::Fenced);
    // One uid may share the stripe of `changed`, but not all of them can.
    assert!((0..64).any(|n| insert(&format!("quiet-{n}")) == Insertion::Kept));
}

#[test]
fn the_cache_stays_within_its_bytes_and_keeps_no_giant() {
    let max_bytes = 256 << 10;
    let cache = cache_of(max_bytes);
    let document = |bytes: usize| {
        Answer::new(
            DocumentVersion::current(version(1)),
            Some(&vec![b'x'; bytes]),
        )
    };
    assert_eq!(
        load(&cache, "giant", document(max_bytes / LARGEST_SHARE)),
        Insertion::TooLarge
    );
    for n in 0..2000 {
        load(&cache, &format!("order-{n}"), document(1200));
    }
    assert!(
        cache.bytes() > 0 && cache.bytes() <= max_bytes as u64,
        "{}",
        cache.bytes()
    );
}

#[test]
fn zero_bytes_turn_the_cache_off() {
    let cache = cache_of(0);
    assert_eq!(load(&cache, "a", order(1)), Insertion::TooLarge);
    cache.invalidate(&uid("a"), version(2));
    cache.link_down();
    assert_eq!(held(&cache, "a"), None);
}

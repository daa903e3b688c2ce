//! The metrics of each key. A key that leaves the file loses its series.

use std::{
    collections::HashMap,
    hash::{BuildHasher, Hash, RandomState},
    sync::{Arc, OnceLock},
};

use parking_lot::Mutex;
use prometheus::{IntCounter, IntGauge};

use super::distinct::Distinct;
use crate::metrics::AccessFamilies;

/// Label of requests without a valid token. No key may have this name.
const UNKNOWN: &str = "none";
/// Label of all callers with a token of OpenID Connect, whose number has no bound. No key may have
/// this name.
const OIDC: &str = "oidc";

/// Names that a key must not have.
pub(super) const RESERVED: [&str; 2] = [UNKNOWN, OIDC];

/// Statuses with a series of their own.
const STATUSES: [u16; 10] = [200, 304, 400, 401, 403, 404, 410, 429, 500, 503];
/// Label of all other statuses.
const OTHER: &str = "other";

/// Places for callers of OpenID Connect. Two callers in one place share its estimate; that is the
/// price of a fixed size.
const PLACES: usize = 64;

/// The metrics of all callers.
pub struct Usage {
    families: AccessFamilies,
    hasher: RandomState,
    keys: Mutex<HashMap<Arc<str>, Arc<KeyUsage>>>,
    unknown: OnceLock<KeyUsage>,
    oidc: [OnceLock<Arc<KeyUsage>>; PLACES],
}

/// The metrics of one key, or of one place for callers of OpenID Connect.
pub struct KeyUsage {
    label: Arc<str>,
    /// One for each of [`STATUSES`], and the last one for [`OTHER`].
    requests: Box<[IntCounter]>,
    hasher: RandomState,
    /// Created by the first request for an order.
    orders: OnceLock<Distinct>,
}

impl Usage {
    /// Creates no series yet.
    pub fn new(families: AccessFamilies) -> Self {
        Self {
            families,
            hasher: RandomState::new(),
            keys: Mutex::default(),
            unknown: OnceLock::new(),
            oidc: [const { OnceLock::new() }; PLACES],
        }
    }

    /// Returns the metrics of requests without a valid token.
    pub fn unknown(&self) -> &KeyUsage {
        self.unknown.get_or_init(|| self.create(UNKNOWN))
    }

    /// Returns the metrics of the key `name`, at zero if they are new.
    pub fn of_key(&self, name: &str) -> Arc<KeyUsage> {
        let mut keys = self.keys.lock();
        if let Some(usage) = keys.get(name) {
            return usage.clone();
        }
        let usage = Arc::new(self.create(name));
        keys.insert(usage.label.clone(), usage.clone());
        usage
    }

    /// Returns the metrics of the caller with this subject of OpenID Connect.
    pub fn of_subject(&self, subject: &str) -> Arc<KeyUsage> {
        let place = self.hasher.hash_one(subject) as usize % PLACES;
        let usage = self.oidc[place].get_or_init(|| Arc::new(self.create(OIDC)));
        usage.clone()
    }

    fn create(&self, label: &str) -> KeyUsage {
        let statuses = STATUSES.iter().map(ToString::to_string);
        let counter = |status: String| {
            let labels = [label, status.as_str()];
            self.families.requests.with_label_values(&labels)
        };
        if label != UNKNOWN {
            self.gauge(label);
        }
        KeyUsage {
            label: label.into(),
            requests: statuses.chain([OTHER.to_owned()]).map(counter).collect(),
            hasher: self.hasher.clone(),
            orders: OnceLock::new(),
        }
    }

    fn gauge(&self, label: &str) -> IntGauge {
        self.families.distinct_orders.with_label_values(&[label])
    }

    /// Records whether the key file is unusable, while earlier keys stay valid.
    pub(super) fn set_broken(&self, is_broken: bool) {
        self.families.keys_broken.set(is_broken.into());
    }

    /// Removes the series of keys that `remains` does not keep.
    pub(super) fn remove_unless(&self, remains: impl Fn(&str) -> bool) {
        self.keys.lock().retain(|label, _| {
            let keep = remains(label);
            if !keep {
                let statuses = STATUSES.iter().map(ToString::to_string);
                for status in statuses.chain([OTHER.to_owned()]) {
                    let labels = [label, status.as_str()];
                    // Fails only if the series does not exist.
                    let _ = self.families.requests.remove_label_values(&labels);
                }
                let _ = self.families.distinct_orders.remove_label_values(&[label]);
            }
            keep
        });
    }

    /// Updates the gauges.
    pub(super) fn publish(&self) {
        for (label, usage) in self.keys.lock().iter() {
            self.gauge(label).set(usage.distinct_orders());
        }
        let oidc = self.oidc.iter().filter_map(OnceLock::get);
        if let Some(most) = oidc.map(|usage| usage.distinct_orders()).max() {
            self.gauge(OIDC).set(most);
        }
    }

    /// Forgets the orders that were requested in the older half of the window.
    pub(super) fn forget_older_half(&self) {
        let keys = self.keys.lock();
        let oidc = self.oidc.iter().filter_map(OnceLock::get);
        let orders = keys.values().chain(oidc).filter_map(|one| one.orders.get());
        orders.for_each(Distinct::forget_older_half);
    }
}

impl KeyUsage {
    /// The value of the label `key`.
    pub fn label(&self) -> &str {
        &self.label
    }

    /// Counts a response.
    pub fn responded(&self, status: u16) {
        let place = STATUSES.iter().position(|known| *known == status);
        self.requests[place.unwrap_or(STATUSES.len())].inc();
    }

    /// Records that the caller requested, or was sent, the order with this uid.
    pub fn requested(&self, uid: impl Hash) {
        let orders = self.orders.get_or_init(Distinct::new);
        orders.add(self.hasher.hash_one(uid));
    }

    fn distinct_orders(&self) -> i64 {
        self.orders
            .get()
            .map_or(0, |orders| orders.estimate() as i64)
    }
}

#[cfg(test)]
mod tests {
    use prometheus::Registry;
    use shared::telemetry::metrics::render;

    use super::*;

    fn usage() -> (Registry, Usage) {
        let registry = Registry::new();
        let families = AccessFamilies::register(&registry).unwrap();
        (registry, Usage::new(families))
    }

    fn text(registry: &Registry) -> String {
        String::from_utf8(render(registry).unwrap()).unwrap()
    }

    #[track_caller]
    fn assert_has(registry: &Registry, line: &str) {
        let text = text(registry);
        assert!(
            text.lines().any(|one| one == line),
            "{line} is not in\n{text}"
        );
    }

    #[test]
    fn a_key_starts_at_zero_and_loses_its_series_with_its_line() {
        let (registry, usage) = usage();
        let shop = usage.of_key("shop");
        assert_has(
            &registry,
            r#"api_key_requests_total{key="shop",status="200"} 0"#,
        );
        assert_has(&registry, r#"api_key_distinct_orders{key="shop"} 0"#);
        shop.responded(404);
        shop.responded(418);
        usage.of_key("shop").responded(404);
        assert_has(
            &registry,
            r#"api_key_requests_total{key="shop",status="404"} 2"#,
        );
        assert_has(
            &registry,
            r#"api_key_requests_total{key="shop",status="other"} 1"#,
        );

        usage.of_key("other");
        usage.remove_unless(|name| name == "other");
        // A request that was under way does not bring the series back.
        shop.responded(200);
        assert!(!text(&registry).contains("shop"));
        assert_has(
            &registry,
            r#"api_key_requests_total{key="other",status="200"} 0"#,
        );
    }

    #[test]
    fn the_gauge_is_the_number_of_different_orders_of_one_caller() {
        let (registry, usage) = usage();
        for uid in ["a", "b", "a"] {
            usage.of_key("shop").requested(uid);
        }
        // Another place with a high probability, and the gauge is the largest place.
        for subject in 0..20 {
            usage
                .of_subject(&format!("subject {subject}"))
                .requested(subject);
        }
        usage.publish();
        assert_has(&registry, r#"api_key_distinct_orders{key="shop"} 2"#);
        let text = text(&registry);
        let oidc = text.lines().find_map(|line| {
            let value = line.strip_prefix(r#"api_key_distinct_orders{key="oidc"} "#)?;
            value.parse::<u64>().ok()
        });
        assert!(oidc.is_some_and(|most| (1..20).contains(&most)), "{text}");
        usage.forget_older_half();
        usage.forget_older_half();
        usage.publish();
        assert_has(&registry, r#"api_key_distinct_orders{key="shop"} 0"#);
    }
}

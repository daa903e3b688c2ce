//! `http_connections_open` and `http_connections_closed_total`.

use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};

/// Why the process closed a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Closed {
    /// Its address has as many connections as it may have.
    Address,
    /// It waited for its client, and a new connection needed its place.
    Evicted,
    /// It waited for its client, and the memory of all such connections reached its limit.
    Memory,
    /// The request did not arrive in time, or was sent too slowly.
    SlowRequest,
    /// The client did not read its response.
    SlowReader,
    /// The request was malformed, or its head too large.
    Malformed,
}

const REASONS: [(Closed, &str); 6] = [
    (Closed::Address, "address"),
    (Closed::Evicted, "evicted"),
    (Closed::Memory, "memory"),
    (Closed::SlowRequest, "slow_request"),
    (Closed::SlowReader, "slow_reader"),
    (Closed::Malformed, "malformed"),
];

/// Metrics of the connections of one port.
pub struct ConnectionMetrics {
    open: IntGauge,
    closed: [IntCounter; REASONS.len()],
}

impl ConnectionMetrics {
    /// Registers the metrics of `port`, at zero.
    ///
    /// # Errors
    /// If the registry has those of the same port.
    pub fn register(registry: &Registry, port: &str) -> prometheus::Result<Self> {
        let (open, closed) = families(port)?;
        registry.register(Box::new(open.clone()))?;
        registry.register(Box::new(closed.clone()))?;
        Ok(Self::over(&open, &closed))
    }

    fn over(open: &IntGaugeVec, closed: &IntCounterVec) -> Self {
        let open = open.with_label_values::<&str>(&[]);
        let closed = REASONS.map(|(_, reason)| closed.with_label_values(&[reason]));
        Self { open, closed }
    }

    pub(super) fn open(&self) -> &IntGauge {
        &self.open
    }

    /// Counts a connection that the process closed.
    pub(super) fn closed(&self, reason: Closed) {
        self.closed[reason as usize].inc();
    }

    #[cfg(test)]
    pub(super) fn unregistered(port: &str) -> Self {
        let (open, closed) = families(port).unwrap();
        Self::over(&open, &closed)
    }

    #[cfg(test)]
    pub(super) fn count_of(&self, reason: Closed) -> u64 {
        self.closed[reason as usize].get()
    }
}

fn families(port: &str) -> prometheus::Result<(IntGaugeVec, IntCounterVec)> {
    let open = IntGaugeVec::new(
        Opts::new("http_connections_open", "Open connections of a port").const_label("port", port),
        &[],
    )?;
    let closed = IntCounterVec::new(
        Opts::new(
            "http_connections_closed_total",
            "Connections that the process closed to protect itself, by reason; not those of \
             clients that left or were idle",
        )
        .const_label("port", port),
        &["reason"],
    )?;
    Ok((open, closed))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::metrics::render;

    #[test]
    fn two_ports_share_a_registry_and_counters_start_at_zero() {
        let registry = Registry::new();
        let public = ConnectionMetrics::register(&registry, "public").unwrap();
        ConnectionMetrics::register(&registry, "admin").unwrap();
        public.closed(Closed::Malformed);
        let text = String::from_utf8(render(&registry).unwrap()).unwrap();
        for line in [
            r#"http_connections_open{port="admin"} 0"#,
            r#"http_connections_open{port="public"} 0"#,
            r#"http_connections_closed_total{port="admin",reason="malformed"} 0"#,
            r#"http_connections_closed_total{port="public",reason="malformed"} 1"#,
            r#"http_connections_closed_total{port="public",reason="address"} 0"#,
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
    }

    #[test]
    fn each_reason_has_its_counter() {
        for (index, (reason, _)) in REASONS.iter().enumerate() {
            assert_eq!(*reason as usize, index);
        }
    }
}

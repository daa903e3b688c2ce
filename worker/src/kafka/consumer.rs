//! Creates the consumer of the group.

use std::{sync::Arc, time::Duration};

use anyhow::Context as _;
use parking_lot::Mutex;
use rdkafka::consumer::BaseConsumer;
use shared::{config::Kafka, kafka::Access};

use super::{assignment::Assignment, client, context::Context, group_state::GroupState};
use crate::metrics::Metrics;

/// Everything needed to create a consumer. A recreated topic needs a second one.
pub(super) struct ConsumerFactory {
    pub(super) config: Kafka,
    pub(super) topic: Arc<str>,
    pub(super) assignment: Arc<Assignment>,
    pub(super) group: Arc<GroupState>,
    pub(super) metrics: Metrics,
    /// Limit for draining a revoked partition.
    pub(super) drain_limit: Duration,
}

impl ConsumerFactory {
    /// Creates a consumer and attaches it to the assignment, which stores offsets there from now
    /// on. Does not subscribe.
    ///
    /// # Errors
    /// When librdkafka rejects the configuration.
    pub(super) fn create(&self) -> anyhow::Result<Arc<BaseConsumer<Context>>> {
        let context = Context {
            topic: Arc::clone(&self.topic),
            assignment: Arc::clone(&self.assignment),
            group: Arc::clone(&self.group),
            metrics: self.metrics.clone(),
            drain_limit: self.drain_limit,
            gaps: Mutex::default(),
            logs: Mutex::default(),
            fetch_errors: Mutex::default(),
            bootstrap: client::bootstrap(&self.config)?,
            access: Access::new(&self.config),
        };
        let consumer: BaseConsumer<Context> = client::consumer(&self.config)
            .create_with_context(context)
            .context("cannot create the Kafka consumer")?;
        let consumer = Arc::new(consumer);
        self.assignment.attach(&consumer);
        Ok(consumer)
    }
}

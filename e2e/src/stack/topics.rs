//! Topics of a private system.

use crate::kafka::{Broker, Timestamps};

/// The limit that the worker sets for the topic of the orders.
const TOPIC_MAX_BYTES: u32 = 8 << 20;

/// Topics of a stack. Dropping this value deletes them.
pub(super) struct Topics {
    pub(super) broker: Broker,
    pub(super) topic: String,
    pub(super) dead_letter_topic: String,
}

impl Topics {
    pub(super) fn create(&self, timestamps: Timestamps, dead_letter_max_bytes: u32) {
        self.broker
            .create_topic(&self.topic, timestamps, TOPIC_MAX_BYTES);
        self.broker.create_topic(
            &self.dead_letter_topic,
            Timestamps::LogAppend,
            dead_letter_max_bytes,
        );
    }
}

impl Drop for Topics {
    fn drop(&mut self) {
        self.broker
            .delete_topics(&[&self.topic, &self.dead_letter_topic]);
    }
}

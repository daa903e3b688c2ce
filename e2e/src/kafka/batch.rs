//! Compressed batches of records.

use rdkafka::{
    admin::{AdminOptions, AlterConfig, ResourceSpecifier},
    producer::{BaseProducer, Producer},
};
use shared::kafka::Bootstrap;

use super::{broker::Broker, inquirer::OUTAGE, record::Reports};
use crate::{block_on, record::Record};

/// The largest batch that librdkafka builds.
const MAX_BATCH_BYTES: &str = "1000000000";

impl Broker {
    /// Sends records to one partition as one batch, compressed with `codec`. Returns after the
    /// broker's acknowledgement.
    #[track_caller]
    pub fn send_batch(&self, topic: &str, codec: &str, partition: i32, records: &[Record]) {
        let producer: BaseProducer<Reports> = self
            .client
            .clone()
            .set("compression.type", codec)
            .set("batch.size", MAX_BATCH_BYTES)
            .set("message.max.bytes", MAX_BATCH_BYTES)
            .set("queue.buffering.max.kbytes", "2000000")
            // Longer than it takes to reach the flush.
            .set("linger.ms", "60000")
            .create_with_context(Reports::new(Bootstrap::new("").expect("no zero byte")))
            .expect("a producer");
        for (number, record) in records.iter().enumerate() {
            let mut message = record.message(topic, number);
            message.partition = Some(partition);
            if let Err((error, _)) = producer.send(message) {
                panic!("{error}");
            }
        }
        producer
            .flush(OUTAGE)
            .unwrap_or_else(|error| panic!("sending a batch to {topic}: {error}"));
        let reports = producer.context().take();
        assert_eq!(reports.len(), records.len(), "delivery reports");
        for report in reports.into_values() {
            report.unwrap_or_else(|error| panic!("sending a batch to {topic}: {error}"));
        }
    }

    /// Makes the broker recompress incoming records of `topic` with `codec`, as one batch without
    /// its unpacked size. Sets `max_bytes`, and resets every other setting of the topic to its
    /// default.
    #[track_caller]
    pub fn pack_anew(&self, topic: &str, codec: &str, max_bytes: u32) {
        let max_bytes = max_bytes.to_string();
        let settings = AlterConfig::new(ResourceSpecifier::Topic(topic))
            .set("max.message.bytes", &max_bytes)
            .set("compression.type", codec);
        block_on(
            self.admin()
                .alter_configs([&settings], &AdminOptions::new()),
        )
        .unwrap_or_else(|error| panic!("codec of {topic}: {error}"))
        .into_iter()
        .for_each(|altered| drop(altered.expect("the topic exists")));
    }
}

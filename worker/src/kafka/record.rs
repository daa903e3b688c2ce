//! An owned copy of a record. A borrowed message would pin librdkafka's fetch buffer.

use std::sync::Arc;

use rdkafka::{Message, Timestamp as KafkaTimestamp, message::BorrowedMessage};
use tokio::sync::{OwnedSemaphorePermit, mpsc};

use super::{
    headers::{self, Header},
    ledger::Ticket,
};

/// Memory of a header besides its bytes.
const HEADER_OVERHEAD: usize = size_of::<Header>() + 16;

/// The timestamp of a record in ms since 1970, and the clock that set it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Timestamp {
    /// Set by the producer's clock.
    Create(i64),
    /// Set by the broker's clock.
    LogAppend(i64),
    /// The record has no timestamp.
    Missing,
}

impl Timestamp {
    /// Returns the time in ms. Returns 0 for a missing or negative timestamp.
    pub fn millis(self) -> i64 {
        match self {
            Self::Create(millis) | Self::LogAppend(millis) => millis.max(0),
            Self::Missing => 0,
        }
    }
}

/// A record read from Kafka.
#[derive(Clone, Debug)]
pub struct Record {
    /// Source topic.
    pub topic: Arc<str>,
    /// Partition of the topic.
    pub partition: i32,
    /// Offset in the partition.
    pub offset: i64,
    /// Timestamp and its clock.
    pub timestamp: Timestamp,
    /// Key, if the record has one.
    pub key: Option<Vec<u8>>,
    /// Value; none is Kafka's null, which erases an order.
    pub value: Option<Vec<u8>>,
    /// Headers in their original order.
    pub headers: Vec<Header>,
}

impl Record {
    pub(super) fn copy(message: &BorrowedMessage<'_>, topic: &Arc<str>) -> Self {
        let headers = headers::copy(message);
        Self {
            topic: Arc::clone(topic),
            partition: message.partition(),
            offset: message.offset(),
            timestamp: match message.timestamp() {
                KafkaTimestamp::CreateTime(millis) => Timestamp::Create(millis),
                KafkaTimestamp::LogAppendTime(millis) => Timestamp::LogAppend(millis),
                KafkaTimestamp::NotAvailable => Timestamp::Missing,
            },
            key: message.key().map(<[u8]>::to_vec),
            value: message.payload().map(<[u8]>::to_vec),
            headers,
        }
    }

    /// Returns the last value of the header `name`. A null value is empty.
    pub fn header(&self, name: &str) -> Option<&[u8]> {
        self.headers
            .iter()
            .rev()
            .find(|header| header.name == name)
            .map(|header| header.value.as_deref().unwrap_or_default())
    }

    /// Returns the bytes of key, value and headers, including the memory of the header structures.
    pub fn size(&self) -> usize {
        let headers: usize = self
            .headers
            .iter()
            .map(|header| {
                HEADER_OVERHEAD + header.name.len() + header.value.as_ref().map_or(0, Vec::len)
            })
            .sum();
        headers + self.key.as_ref().map_or(0, Vec::len) + self.value.as_ref().map_or(0, Vec::len)
    }
}

/// A record in the pipeline.
pub struct Received {
    /// The record.
    pub record: Record,
    /// Passed to `Assignment::finish` when the record is finished.
    pub ticket: Ticket,
    /// Its share of the memory for unfinished records. Released on drop.
    pub memory: OwnedSemaphorePermit,
}

/// The receiver from which the pipeline takes records.
pub type Intake = mpsc::UnboundedReceiver<Received>;

//! A record of ours: copied out of librdkafka's fetch buffer, which a borrowed message would pin.

use std::sync::Arc;

use rdkafka::{Message, Timestamp as KafkaTimestamp, message::BorrowedMessage};
use tokio::sync::{OwnedSemaphorePermit, mpsc};

use super::{headers, ledger::Ticket};

/// What a header takes besides its bytes.
const HEADER_OVERHEAD: usize = size_of::<Header>() + 16;

/// A header; the value may be null.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: Option<Vec<u8>>,
}

/// When a record was made, in ms since 1970, and by whose clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Timestamp {
    /// The producer's.
    Create(i64),
    /// The broker's.
    LogAppend(i64),
    /// The record has none.
    Missing,
}

impl Timestamp {
    /// The time in ms, 0 where it is missing.
    pub fn millis(self) -> i64 {
        match self {
            Self::Create(millis) | Self::LogAppend(millis) => millis.max(0),
            Self::Missing => 0,
        }
    }
}

/// A record that was read from Kafka.
#[derive(Clone, Debug)]
pub struct Record {
    /// Its topic.
    pub topic: Arc<str>,
    /// Its partition.
    pub partition: i32,
    /// Its offset.
    pub offset: i64,
    /// Its timestamp.
    pub timestamp: Timestamp,
    /// Its key, if it has one.
    pub key: Option<Vec<u8>>,
    /// Its value; none is Kafka's null, the mark of an erasure.
    pub value: Option<Vec<u8>>,
    /// Its headers, in their order.
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

    /// The last value of the header `name`.
    pub fn header(&self, name: &str) -> Option<&[u8]> {
        self.headers
            .iter()
            .rev()
            .find(|header| header.name == name)
            .map(|header| header.value.as_deref().unwrap_or_default())
    }

    /// Bytes of key, value and headers, the headers' own structures included.
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

/// A record on its way through the pipeline.
pub struct Received {
    /// The record.
    pub record: Record,
    /// What finishing it is proved with.
    pub ticket: Ticket,
    /// Its share of the memory that unfinished records may take; given back when dropped.
    pub memory: OwnedSemaphorePermit,
}

/// Where the pipeline takes records from.
pub type Intake = mpsc::UnboundedReceiver<Received>;

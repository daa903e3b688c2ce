//! Conversions between records and librdkafka's messages.

use std::{
    collections::BTreeMap,
    ptr,
    sync::{Mutex, PoisonError},
};

use rdkafka::{
    ClientContext, Statistics, Timestamp,
    bindings::{rd_kafka_header_add, rd_kafka_headers_t, rd_kafka_resp_err_t},
    error::KafkaError,
    message::{BorrowedMessage, Headers, Message, OwnedHeaders},
    producer::{BaseRecord, DeliveryResult, ProducerContext},
};
use shared::kafka::Bootstrap;

use crate::record::{RawHeader, Record};

/// Name and value of a header that was read.
pub type Header = (String, Option<Vec<u8>>);

/// Position of a record in a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// Partition.
    pub partition: i32,
    /// Offset.
    pub offset: i64,
    /// Timestamp in ms since 1970.
    pub timestamp_ms: i64,
}

/// A record as stored in a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Position.
    pub position: Position,
    /// Key.
    pub key: Option<Vec<u8>>,
    /// Value.
    pub value: Option<Vec<u8>>,
    /// Headers, in their order.
    pub headers: Vec<Header>,
}

impl Position {
    fn of(message: &impl Message) -> Self {
        Self {
            partition: message.partition(),
            offset: message.offset(),
            timestamp_ms: match message.timestamp() {
                Timestamp::CreateTime(millis) | Timestamp::LogAppendTime(millis) => millis,
                Timestamp::NotAvailable => -1,
            },
        }
    }
}

impl From<&BorrowedMessage<'_>> for Stored {
    fn from(message: &BorrowedMessage<'_>) -> Self {
        let headers = message
            .headers()
            .into_iter()
            .flat_map(|headers| headers.iter());
        Self {
            position: Position::of(message),
            key: message.key().map(<[u8]>::to_vec),
            value: message.payload().map(<[u8]>::to_vec),
            headers: headers
                .map(|header| (header.key.to_owned(), header.value.map(<[u8]>::to_vec)))
                .collect(),
        }
    }
}

impl Record {
    pub(super) fn message<'a>(
        &'a self,
        topic: &'a str,
        number: usize,
    ) -> BaseRecord<'a, [u8], [u8], usize> {
        let mut message = BaseRecord::with_opaque_to(topic, number);
        message.key = self.key.as_deref();
        message.payload = self.value.as_deref();
        message.partition = self.partition;
        message.timestamp = self.timestamp_ms;
        if !self.headers.is_empty() {
            message.headers = Some(native_headers(&self.headers));
        }
        message
    }
}

/// Returns the headers in librdkafka's form.
#[allow(
    unsafe_code,
    reason = "rust-rdkafka's own writer takes no name that is not UTF-8"
)]
fn native_headers(headers: &[RawHeader]) -> OwnedHeaders {
    let native = OwnedHeaders::new_with_capacity(headers.len());
    // rust-rdkafka returns a pointer to librdkafka's own list.
    let list = ptr::from_ref(native.as_borrowed())
        .cast_mut()
        .cast::<rd_kafka_headers_t>();
    for (name, value) in headers {
        let (bytes, size) = value.as_ref().map_or((ptr::null(), 0), |value| {
            (value.as_ptr().cast(), value.len() as isize)
        });
        // SAFETY: `native` owns the list, outlives the loop and is not shared yet. Name and value
        // have the stated lengths, and librdkafka copies them.
        let added = unsafe {
            rd_kafka_header_add(list, name.as_ptr().cast(), name.len() as isize, bytes, size)
        };
        assert_eq!(added, rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR);
    }
    native
}

/// Delivery reports by the number of the record.
pub(super) struct Reports {
    pub(super) bootstrap: Bootstrap,
    reports: Mutex<BTreeMap<usize, Result<Position, KafkaError>>>,
}

impl Reports {
    pub(super) fn new(bootstrap: Bootstrap) -> Self {
        Self {
            bootstrap,
            reports: Mutex::default(),
        }
    }

    pub(super) fn take(&self) -> BTreeMap<usize, Result<Position, KafkaError>> {
        std::mem::take(&mut self.reports.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl ClientContext for Reports {
    fn stats(&self, statistics: Statistics) {
        self.bootstrap.observe(&statistics);
    }
}

impl ProducerContext for Reports {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, number: usize) {
        let report = match result {
            Ok(message) => Ok(Position::of(message)),
            Err((error, _)) => Err(error.clone()),
        };
        self.reports
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(number, report);
    }
}

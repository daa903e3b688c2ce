//! The id of a topic. A recreated topic keeps its name but gets another id. Once the new log is as
//! long as the old one, only the id shows that the topic was recreated.
//!
//! Each committed offset carries the id as its metadata. A worker that starts later then knows
//! which log the offset belongs to.

use std::{
    ffi::{CStr, CString, NulError},
    fmt,
    ptr::{self, NonNull},
    sync::Arc,
    time::Duration,
};

use rdkafka::{
    ClientContext,
    bindings::{
        rd_kafka_AdminOptions_destroy, rd_kafka_AdminOptions_new,
        rd_kafka_AdminOptions_set_request_timeout, rd_kafka_DescribeTopics,
        rd_kafka_DescribeTopics_result_topics, rd_kafka_TopicCollection_destroy,
        rd_kafka_TopicCollection_of_topic_names, rd_kafka_TopicDescription_topic_id,
        rd_kafka_Uuid_base64str, rd_kafka_admin_op_t, rd_kafka_event_DescribeTopics_result,
        rd_kafka_event_destroy, rd_kafka_event_error, rd_kafka_event_t, rd_kafka_queue_destroy,
        rd_kafka_queue_new, rd_kafka_queue_poll, rd_kafka_queue_t,
    },
    client::Client,
    types::RDKafkaRespErr,
};

/// Prefix of the metadata of a committed offset.
const METADATA: &str = "topic-id=";

/// Limit for one request.
const TIMEOUT_MS: i32 = 5_000;

/// The id that a broker without topic ids returns.
const ZERO: &str = "AAAAAAAAAAAAAAAAAAAAAA";

/// The id of a topic, in the form that Kafka's tools show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TopicId(Arc<str>);

impl TopicId {
    /// Returns the id. None if `text` is empty or the id of a broker without topic ids.
    pub(super) fn new(text: &str) -> Option<Self> {
        (!text.is_empty() && text != ZERO).then(|| Self(text.into()))
    }

    /// Returns the id in the metadata of a committed offset. None if another program committed the
    /// offset.
    pub(super) fn from_metadata(metadata: &str) -> Option<Self> {
        Self::new(metadata.strip_prefix(METADATA)?)
    }

    /// Returns the metadata for offsets of this topic.
    pub(super) fn to_metadata(&self) -> String {
        format!("{METADATA}{}", self.0)
    }
}

impl fmt::Display for TopicId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// Requests for the id of one topic, over the connections of an existing client. Drop it before
/// that client.
pub(super) struct IdRequests {
    topic: CString,
    queue: NonNull<rd_kafka_queue_t>,
    is_waiting: bool,
}

// SAFETY: librdkafka locks its queues, so any thread may use one.
#[allow(
    unsafe_code,
    reason = "rust-rdkafka has no function of its own for this"
)]
unsafe impl Send for IdRequests {}

#[allow(
    unsafe_code,
    reason = "rust-rdkafka has no function of its own for this"
)]
impl IdRequests {
    /// Prepares requests over `client`.
    ///
    /// # Errors
    /// When the topic name contains a zero byte.
    pub(super) fn new<C: ClientContext>(client: &Client<C>, topic: &str) -> Result<Self, NulError> {
        let topic = CString::new(topic)?;
        // SAFETY: the client lives as long as it is borrowed, and the function never returns null.
        let queue = unsafe { NonNull::new_unchecked(rd_kafka_queue_new(client.native_ptr())) };
        Ok(Self {
            topic,
            queue,
            is_waiting: false,
        })
    }

    /// Sends a request, unless one is in progress. Does not block.
    pub(super) fn send<C: ClientContext>(&mut self, client: &Client<C>) {
        if self.is_waiting {
            return;
        }
        self.is_waiting = true;
        let mut names = [self.topic.as_ptr()];
        // SAFETY: client, queue and names live through the call, which copies the names and the
        // options. This function owns the collection and the options, and frees each once.
        unsafe {
            let topics = rd_kafka_TopicCollection_of_topic_names(names.as_mut_ptr(), names.len());
            let kind = rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS;
            let options = rd_kafka_AdminOptions_new(client.native_ptr(), kind);
            // A null error buffer is valid, and setting this value cannot fail.
            rd_kafka_AdminOptions_set_request_timeout(options, TIMEOUT_MS, ptr::null_mut(), 0);
            rd_kafka_DescribeTopics(client.native_ptr(), topics, options, self.queue.as_ptr());
            rd_kafka_AdminOptions_destroy(options);
            rd_kafka_TopicCollection_destroy(topics);
        }
    }

    /// Waits up to `limit` for the response. Returns none without a response, without such a topic,
    /// or if the broker has no topic ids.
    pub(super) fn receive(&mut self, limit: Duration) -> Option<TopicId> {
        if !self.is_waiting {
            return None;
        }
        let millis = limit.as_millis().try_into().unwrap_or(i32::MAX);
        // SAFETY: we own the queue and each event that it returns. The event is freed once, after
        // its last use.
        unsafe {
            let event = NonNull::new(rd_kafka_queue_poll(self.queue.as_ptr(), millis))?;
            self.is_waiting = false;
            let id = id_in(event.as_ptr());
            rd_kafka_event_destroy(event.as_ptr());
            id
        }
    }
}

impl Drop for IdRequests {
    #[allow(
        unsafe_code,
        reason = "rust-rdkafka has no function of its own for this"
    )]
    fn drop(&mut self) {
        // SAFETY: we own the queue, and nothing uses it after this call. librdkafka discards a
        // response that arrives later.
        unsafe { rd_kafka_queue_destroy(self.queue.as_ptr()) };
    }
}

/// Returns the id of the only topic that `event` describes.
///
/// # Safety
/// `event` must be a live event of librdkafka.
#[allow(
    unsafe_code,
    reason = "rust-rdkafka has no function of its own for this"
)]
unsafe fn id_in(event: *mut rd_kafka_event_t) -> Option<TopicId> {
    // SAFETY: the event is alive and owns all of these, and they are read only here. The id is a
    // text that ends with a zero byte. A topic that does not exist has an id of zeros.
    unsafe {
        if rd_kafka_event_error(event) != RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR {
            return None;
        }
        let result = rd_kafka_event_DescribeTopics_result(event);
        if result.is_null() {
            return None;
        }
        let mut count = 0;
        let topics = rd_kafka_DescribeTopics_result_topics(result, &raw mut count);
        if count == 0 {
            return None;
        }
        let id = rd_kafka_TopicDescription_topic_id(*topics);
        if id.is_null() {
            return None;
        }
        let text = rd_kafka_Uuid_base64str(id);
        if text.is_null() {
            return None;
        }
        TopicId::new(CStr::from_ptr(text).to_str().ok()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_carries_the_id() {
        let id = TopicId::new("dGhpcyBpcyBhbiBpZC4uLg").unwrap();
        assert_eq!(TopicId::from_metadata(&id.to_metadata()), Some(id));
    }

    #[test]
    fn other_metadata_and_older_brokers_give_no_id() {
        for metadata in [
            "",
            "topic-id=",
            "v1 2026",
            "topic-id=AAAAAAAAAAAAAAAAAAAAAA",
        ] {
            assert_eq!(TopicId::from_metadata(metadata), None, "{metadata}");
        }
    }
}

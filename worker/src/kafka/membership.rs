//! The end of a membership, settled with the group before the client is closed.
//!
//! librdkafka's own close says nothing to the group while the member holds no partition, so that the others wait until its
//! session times out; and where they rebalance meanwhile, the answer to its last heartbeat ends the process by SIGSEGV
//! ([librdkafka 5347]). Giving up the subscription first avoids both.
//!
//! [librdkafka 5347]: https://github.com/confluentinc/librdkafka/issues/5347

use std::{
    ffi::CStr,
    time::{Duration, Instant},
};

use rdkafka::{
    bindings::{rd_kafka_mem_free, rd_kafka_memberid},
    consumer::{BaseConsumer, Consumer, ConsumerContext},
};

/// How often it is looked whether the group was left.
const LOOK: Duration = Duration::from_millis(10);

/// Gives up the subscription and serves what that takes: the end of a rebalance that is under way, and the revocation of
/// what this member holds. Returns whether the group was told; closing the consumer waits for its answer.
pub(super) fn end<C: ConsumerContext>(consumer: &BaseConsumer<C>, deadline: Instant) -> bool {
    consumer.unsubscribe();
    while is_member(consumer) {
        if Instant::now() >= deadline {
            return false;
        }
        consumer.poll(LOOK);
    }
    true
}

/// Whether the consumer goes by an id that the group has given to it; it drops that id when it leaves.
#[allow(
    unsafe_code,
    reason = "rust-rdkafka has no function of its own for this"
)]
pub(super) fn is_member<C: ConsumerContext>(consumer: &BaseConsumer<C>) -> bool {
    let client = consumer.client().native_ptr();
    // SAFETY: the client lives as long as it is borrowed, and any thread may ask it.
    let id = unsafe { rd_kafka_memberid(client) };
    if id.is_null() {
        return false;
    }
    // SAFETY: the text ends with a zero byte, is ours, and is freed once, by the one that has made it.
    unsafe {
        let is_member = !CStr::from_ptr(id).is_empty();
        rd_kafka_mem_free(client, id.cast());
        is_member
    }
}

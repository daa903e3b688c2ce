//! Leaves the group before the client closes.
//!
//! librdkafka's own close does not notify the group while the member holds no partition. The other
//! members then wait until its session times out. If they rebalance meanwhile, the response to the
//! last heartbeat ends the process with SIGSEGV ([librdkafka 5347]). Unsubscribing first avoids
//! both.
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

/// Interval of the check whether the consumer has left the group.
const CHECK: Duration = Duration::from_millis(10);

/// Unsubscribes, then polls until the consumer has left the group. The poll serves a rebalance in
/// progress and the revocation of our partitions.
///
/// Returns false if the consumer is still a member at `deadline`. Closing the consumer waits for
/// the response of the group.
pub(super) fn end<C: ConsumerContext>(consumer: &BaseConsumer<C>, deadline: Instant) -> bool {
    consumer.unsubscribe();
    while is_member(consumer) {
        if Instant::now() >= deadline {
            return false;
        }
        consumer.poll(CHECK);
    }
    true
}

/// Whether the consumer has a member id from the group. It drops the id when it leaves.
#[allow(
    unsafe_code,
    reason = "rust-rdkafka has no function of its own for this"
)]
pub(super) fn is_member<C: ConsumerContext>(consumer: &BaseConsumer<C>) -> bool {
    let client = consumer.client().native_ptr();
    // SAFETY: the client lives as long as it is borrowed, and any thread may call this function.
    let id = unsafe { rd_kafka_memberid(client) };
    if id.is_null() {
        return false;
    }
    // SAFETY: the text ends with a zero byte. The caller owns it, and the client that allocated it
    // frees it once.
    unsafe {
        let is_member = !CStr::from_ptr(id).is_empty();
        rd_kafka_mem_free(client, id.cast());
        is_member
    }
}

//! Headers, read from librdkafka itself: rust-rdkafka panics at a name that is not UTF-8, and a record that ends the process
//! would end the next one, too.

use std::{ffi::CStr, ptr, slice};

use rdkafka::{
    bindings::{rd_kafka_header_get_all, rd_kafka_message_headers, rd_kafka_resp_err_t},
    message::BorrowedMessage,
};

use super::record::Header;

/// The headers of `message`. A name that is not UTF-8, which Kafka's protocol does not allow but brokers do not check, has
/// U+FFFD where it is not.
#[allow(
    unsafe_code,
    reason = "rust-rdkafka's own reader panics at a foreign header name"
)]
pub(super) fn copy(message: &BorrowedMessage<'_>) -> Vec<Header> {
    const NO_ERROR: rd_kafka_resp_err_t = rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR;
    let mut headers = ptr::null_mut();
    // SAFETY: the message is valid while it is borrowed, and so are the headers that it hands out and still owns.
    if unsafe { rd_kafka_message_headers(message.ptr(), &raw mut headers) } != NO_ERROR {
        return Vec::new();
    }
    let mut copies = Vec::new();
    loop {
        let (mut name, mut value, mut size) = (ptr::null(), ptr::null(), 0);
        // SAFETY: the three are written only on success; behind the last header there is none.
        let found = unsafe {
            rd_kafka_header_get_all(
                headers,
                copies.len(),
                &raw mut name,
                &raw mut value,
                &raw mut size,
            )
        };
        if found != NO_ERROR {
            return copies;
        }
        // SAFETY: a name ends with a zero byte, a value is null or `size` bytes long, and both live as long as the message.
        let (name, value) = unsafe {
            let value = (!value.is_null()).then(|| slice::from_raw_parts(value.cast::<u8>(), size));
            (CStr::from_ptr(name), value)
        };
        copies.push(Header {
            name: name.to_string_lossy().into_owned(),
            value: value.map(<[u8]>::to_vec),
        });
    }
}

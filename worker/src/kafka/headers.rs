//! Copies record headers with librdkafka's C API. rust-rdkafka panics on a header name that is not
//! UTF-8. Such a record would stop each worker that reads it.

use std::{ffi::CStr, ptr, slice};

use rdkafka::{
    bindings::{rd_kafka_header_get_all, rd_kafka_message_headers, rd_kafka_resp_err_t},
    message::BorrowedMessage,
};

/// A header. Its value may be null.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// The name.
    pub name: String,
    /// The value; none is Kafka's null.
    pub value: Option<Vec<u8>>,
}

/// Returns the headers of `message`. Replaces each invalid UTF-8 sequence of a name with U+FFFD.
/// Kafka's protocol requires UTF-8 names, but brokers do not check it.
#[allow(
    unsafe_code,
    reason = "rust-rdkafka's own reader panics at a header name that is not UTF-8"
)]
pub(super) fn copy(message: &BorrowedMessage<'_>) -> Vec<Header> {
    const NO_ERROR: rd_kafka_resp_err_t = rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR;
    let mut headers = ptr::null_mut();
    // SAFETY: the message is valid while it is borrowed. It owns the headers, so they are valid as
    // long.
    if unsafe { rd_kafka_message_headers(message.ptr(), &raw mut headers) } != NO_ERROR {
        return Vec::new();
    }
    let mut copies = Vec::new();
    loop {
        let (mut name, mut value, mut size) = (ptr::null(), ptr::null(), 0);
        // SAFETY: the call writes the three out-parameters only on success, and fails after the
        // last header.
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
        // SAFETY: a name ends with a zero byte. A value is null or `size` bytes long. Both live as
        // long as the message.
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

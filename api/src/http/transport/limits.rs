//! Limits of the public port.

use std::time::Duration;

/// Maximum number of open connections. Further connections wait in the kernel's queue.
pub(super) const CONNECTIONS: usize = 8192;

/// Maximum number of open event streams. Each takes a connection as long as its client stays, so
/// the others are reserved for short requests.
pub const STREAMS: usize = CONNECTIONS / 4 * 3;

/// Maximum time for requests in flight to finish after the shutdown begins.
pub(super) const DRAIN: Duration = Duration::from_secs(10);

/// A connection closes after this time without a byte from the client, or with a blocked write. The
/// client may have vanished, or may hold the connection on purpose. The kernel also closes a
/// connection whose client acknowledges nothing for this time.
pub(super) const IDLE: Duration = Duration::from_secs(75);

/// Maximum time to receive a whole request head, counted from its first byte. For the first head it
/// counts from the start of the connection. Also limits the part of a body that arrives after
/// the head, counted from the first byte of that part.
pub(super) const HEAD: Duration = Duration::from_secs(10);

/// Maximum bytes of a request head, and of what is read ahead. A larger head gets 431.
pub(super) const HEAD_BYTES: usize = 64 * 1024;

/// Maximum bytes of a response that wait in the kernel to be sent. Without this limit, the kernel
/// keeps megabytes for each client that does not read.
pub(super) const UNSENT: u32 = 128 * 1024;

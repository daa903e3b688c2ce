//! Where a system can be reached.

/// Everything that is needed to look at a running system from outside, whoever started it.
#[derive(Clone, Debug)]
pub struct Addresses {
    /// `postgres://` URL of its database.
    pub database_url: String,
    /// `redis://` URL of its Redis.
    pub redis_url: String,
    /// Bootstrap brokers, separated by commas.
    pub brokers: String,
    /// Topic that orders arrive on.
    pub topic: String,
    /// Topic for what can never be stored.
    pub dead_letter_topic: String,
    /// Consumer group of the workers.
    pub group_id: String,
}

//! Subscription to announcements, on a connection that detects its own loss.

use std::time::Duration;

use futures_util::StreamExt;
use redis::{
    Client,
    aio::{PubSubSink, PubSubStream},
};
use tokio::{
    sync::oneshot,
    task::{JoinHandle, spawn_blocking},
    time::{MissedTickBehavior, interval, timeout},
};

use super::{Announcement, CacheError, access::Access, announcement};
use crate::config;

/// Interval between pings.
const PING: Duration = Duration::from_millis(500);
/// Silence after which the connection counts as lost.
const SILENCE: Duration = Duration::from_secs(2);

/// One subscription to [`CHANNEL`](super::CHANNEL). Announcements that are published without a
/// subscription are lost, so the subscriber must drop its entries when the subscription ends.
pub struct Subscription {
    messages: PubSubStream,
    lost: oneshot::Receiver<CacheError>,
    pings: JoinHandle<()>,
}

impl Subscription {
    /// Subscribes at the first node that answers. A cluster forwards announcements to every node.
    /// Reads the files of `config` first.
    ///
    /// # Errors
    /// When no node answers, or a file cannot be used.
    pub async fn open(config: &config::Redis) -> Result<Self, CacheError> {
        let config = config.clone();
        let clients = spawn_blocking(move || Access::new(&config).nodes()).await;
        let clients = match clients {
            Ok(clients) => clients.map_err(|error| CacheError::Connection(error.to_string()))?,
            Err(_) => return Err(CacheError::Connection("the process ends".to_owned())),
        };
        let mut last = CacheError::Connection("REDIS_URL holds no address".to_owned());
        for client in clients {
            match timeout(SILENCE, Self::open_at(&client)).await {
                Ok(Ok(subscription)) => return Ok(subscription),
                Ok(Err(error)) => last = error,
                Err(_) => last = CacheError::Deadline(SILENCE),
            }
        }
        Err(last)
    }

    async fn open_at(client: &Client) -> Result<Self, CacheError> {
        let mut pubsub = client.get_async_pubsub().await?;
        pubsub.subscribe(announcement::CHANNEL).await?;
        let (sink, messages) = pubsub.split();
        let (lose, lost) = oneshot::channel();
        let pings = tokio::spawn(async move {
            // The subscriber may be gone by now.
            let _ = lose.send(ping_until_lost(sink).await);
        });
        Ok(Self {
            messages,
            lost,
            pings,
        })
    }

    /// Waits for the next announcements.
    ///
    /// # Errors
    /// When the connection is lost or silent for two seconds, or when all entries were removed from
    /// Redis. The subscription has then ended.
    pub async fn next(&mut self) -> Result<Vec<Announcement>, CacheError> {
        tokio::select! {
            message = self.messages.next() => match message {
                Some(message) if is_cleared(message.get_payload_bytes()) => {
                    Err(CacheError::Connection("all entries were removed".to_owned()))
                }
                Some(message) => Ok(announcement::decode(message.get_payload_bytes())),
                None => Err(CacheError::Connection("the subscription ended".to_owned())),
            },
            lost = &mut self.lost => Err(lost.unwrap_or(CacheError::Deadline(SILENCE))),
        }
    }
}

/// Returns whether a message announces that every entry was removed.
fn is_cleared(message: &[u8]) -> bool {
    message == announcement::CLEARED.as_bytes()
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.pings.abort();
    }
}

async fn ping_until_lost(mut sink: PubSubSink) -> CacheError {
    let mut ticks = interval(PING);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        match timeout(SILENCE - PING, sink.ping::<redis::Value>()).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => return error.into(),
            Err(_) => return CacheError::Deadline(SILENCE),
        }
    }
}

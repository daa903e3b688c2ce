//! The changes of all orders: one buffer for all watchers.

use parking_lot::Mutex;
use shared::cache::Announcement;
use tokio::sync::broadcast::{self, error::RecvError};

use super::{
    End,
    frame::{Frame, Reset},
};

/// Maximum number of frames that a watcher may be behind.
const FRAMES: usize = 2048;

/// Maximum number of changes in a frame. A change has at most 270 bytes, so the buffer has at most
/// 9 MiB.
const CHANGES: usize = 16;

/// Sends changes to the watchers of all orders.
pub(super) struct Feed {
    /// `None` once the feed is closed.
    sender: Mutex<Option<broadcast::Sender<Frame>>>,
}

impl Feed {
    pub(super) fn new() -> Self {
        Self {
            sender: Mutex::new(Some(broadcast::Sender::new(FRAMES))),
        }
    }

    /// Sends what was announced.
    pub(super) fn announce(&self, announcements: &[Announcement]) {
        let sender = self.sender.lock();
        let watched = sender.as_ref().filter(|feed| feed.receiver_count() > 0);
        if let Some(feed) = watched {
            for changes in announcements.chunks(CHANGES) {
                // Fails without watchers, which is no error.
                let _ = feed.send(Frame::changes(changes));
            }
        }
    }

    /// Sends a reset.
    pub(super) fn reset(&self, reason: Reset) {
        if let Some(feed) = &*self.sender.lock() {
            let _ = feed.send(Frame::reset(reason));
        }
    }

    /// Adds a watcher. Returns `None` if the feed is closed.
    pub(super) fn watch(&self) -> Option<Changes> {
        let sender = self.sender.lock();
        let receiver = sender.as_ref()?.subscribe();
        Some(Changes { receiver })
    }

    /// Ends all watchers after what was sent to them.
    pub(super) fn close(&self) {
        *self.sender.lock() = None;
    }
}

/// What one watcher receives.
pub(super) struct Changes {
    receiver: broadcast::Receiver<Frame>,
}

impl Changes {
    /// Waits for the next frame.
    pub(super) async fn next(&mut self) -> Result<Frame, End> {
        self.receiver.recv().await.map_err(|error| match error {
            RecvError::Lagged(_) => End::Slow,
            RecvError::Closed => End::Closed,
        })
    }

    /// Returns whether the buffer no longer holds the next frame.
    pub(super) fn is_behind(&self) -> bool {
        self.receiver.len() > FRAMES
    }
}

#[cfg(test)]
mod tests {
    use shared::order::{OrderUid, Version};

    use super::*;

    fn change(offset: i64) -> Announcement {
        Announcement {
            uid: OrderUid::parse(&"u".repeat(64)).unwrap(),
            version: Version::new(1, offset, 0),
        }
    }

    #[tokio::test]
    async fn watchers_share_frames_in_the_order_of_announcements() {
        let feed = Feed::new();
        feed.announce(&[change(0)]);
        let (mut first, mut second) = (feed.watch().unwrap(), feed.watch().unwrap());
        let announced: Vec<_> = (1..=20).map(change).collect();
        feed.announce(&announced);
        feed.reset(Reset::Lost);
        for expected in [&announced[..16], &announced[16..]] {
            let (ours, theirs) = (first.next().await.unwrap(), second.next().await.unwrap());
            assert_eq!(ours.text, Frame::changes(expected).text);
            assert_eq!(ours.text.as_ptr(), theirs.text.as_ptr());
        }
        assert_eq!(
            first.next().await.unwrap().text,
            Frame::reset(Reset::Lost).text
        );
        feed.close();
        assert!(feed.watch().is_none());
        assert_eq!(first.next().await.unwrap_err(), End::Closed);
        // What was sent before still arrives.
        assert!(second.next().await.is_ok());
        assert_eq!(second.next().await.unwrap_err(), End::Closed);
    }

    #[tokio::test]
    async fn a_watcher_that_falls_behind_the_buffer_ends() {
        let feed = Feed::new();
        let (mut slow, mut fast) = (feed.watch().unwrap(), feed.watch().unwrap());
        for offset in 0..FRAMES as i64 {
            feed.announce(&[change(offset)]);
            fast.next().await.unwrap();
        }
        assert!(!slow.is_behind());
        feed.announce(&[change(0)]);
        assert!(slow.is_behind() && !fast.is_behind());
        assert_eq!(slow.next().await.unwrap_err(), End::Slow);
        assert!(fast.next().await.is_ok());
    }

    #[test]
    fn the_buffer_has_at_most_nine_mebibytes() {
        let frame = Frame::changes(&vec![change(i64::MAX); CHANGES]);
        assert!(frame.text.len() * FRAMES <= 9 << 20, "{}", frame.text.len());
    }
}

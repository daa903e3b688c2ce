//! Events as text, in the format of server-sent events. Each text is formatted once for all its
//! watchers.

use std::fmt::Write;

use bytes::Bytes;
use shared::{
    cache::Announcement,
    order::{DocumentVersion, OrderUid},
};
use strum::IntoStaticStr;

use crate::{answer::Shown, metrics::EventKind};

/// A comment, which a client ignores. It shows both sides that the connection is alive.
pub(super) const COMMENT: Bytes = Bytes::from_static(b":\n\n");

/// Reason of [`EventKind::Reset`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub(super) enum Reset {
    /// The client was connected before, and changes since then are not known.
    Reconnected,
    /// Announcements may be missing from now on.
    Lost,
    /// Announcements are complete again from now on.
    Resumed,
}

/// Events of one kind, ready to send.
#[derive(Clone, Debug)]
pub(super) struct Frame {
    pub(super) event: EventKind,
    /// Number of events.
    pub(super) count: u32,
    pub(super) text: Bytes,
}

impl Frame {
    fn new(event: EventKind, text: impl Into<Bytes>) -> Self {
        Self {
            event,
            count: 1,
            text: text.into(),
        }
    }

    /// `event: order`: the document of an order.
    pub(super) fn order(order: Shown) -> Self {
        let mut text = format!("event: order\nid: {}\ndata: ", order.edition()).into_bytes();
        let document = order.into_text();
        text.reserve(document.size() + 2);
        for part in document.slices() {
            // A line feed would end the line. Our documents have none, but Redis may hold the
            // document of another program.
            for (index, line) in lines(part).enumerate() {
                if index > 0 {
                    text.extend_from_slice(b"\ndata: ");
                }
                text.extend_from_slice(line);
            }
        }
        text.extend_from_slice(b"\n\n");
        Self::new(EventKind::Order, text)
    }

    /// `event: erased`: an order was erased by `version`.
    pub(super) fn erased(uid: &OrderUid, version: DocumentVersion) -> Self {
        let mut text = String::new();
        write_change(&mut text, "erased", uid, version);
        Self::new(EventKind::Erased, text)
    }

    /// `event: change` for each of `announcements`, whose number must fit into 32 bits.
    pub(super) fn changes(announcements: &[Announcement]) -> Self {
        let mut text = String::with_capacity(announcements.len() * CHANGE);
        for Announcement { uid, version } in announcements {
            write_change(&mut text, "change", uid, DocumentVersion::current(*version));
        }
        Self {
            count: announcements.len() as u32,
            ..Self::new(EventKind::Change, text)
        }
    }

    /// `event: reset`. It has no id, so the client keeps the last one.
    pub(super) fn reset(reason: Reset) -> Self {
        let reason: &str = reason.into();
        let text = format!("event: reset\ndata: {{\"reason\":\"{reason}\"}}\n\n");
        Self::new(EventKind::Reset, text)
    }
}

/// Usual length of `event: change`.
const CHANGE: usize = 224;

/// The time after which a client reconnects.
pub(super) fn retry(millis: u64) -> String {
    format!("retry: {millis}\n\n")
}

/// Writes an event whose data are uid and version. Neither needs an escape in JSON.
fn write_change(text: &mut String, event: &str, uid: &OrderUid, version: DocumentVersion) {
    // Writing to a string cannot fail.
    let _ = write!(
        text,
        "event: {event}\nid: {version}\n\
         data: {{\"order_uid\":\"{uid}\",\"version\":\"{version}\"}}\n\n"
    );
}

/// The lines of `text`. Server-sent events know three line ends: CR, LF and CR LF.
fn lines(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = Some(text);
    std::iter::from_fn(move || {
        let text = rest?;
        let Some(end) = text.iter().position(|byte| matches!(byte, b'\r' | b'\n')) else {
            rest = None;
            return Some(text);
        };
        let width = if text[end..].starts_with(b"\r\n") {
            2
        } else {
            1
        };
        rest = Some(&text[end + width..]);
        Some(&text[..end])
    })
}

#[cfg(test)]
mod tests {
    use shared::order::Version;

    use super::*;
    use crate::answer::{Answer, View, Visible};

    const VERSION: &str = "0000001637907727000-0000000000000000042-0000000005";

    fn version(representation: u8) -> DocumentVersion {
        DocumentVersion {
            version: Version::new(1_637_907_727_000, 42, 5),
            representation,
        }
    }

    fn order(json: &str) -> Frame {
        let answer = Answer::new(version(1), Some(json.as_bytes()));
        match View::EVERYTHING.show(answer).unwrap() {
            Visible::Order(order) => Frame::order(order),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_document_is_one_line_of_data() {
        assert_eq!(
            order(r#"{"order_uid":"a"}"#).text,
            format!("event: order\nid: {VERSION}\ndata: {{\"order_uid\":\"a\"}}\n\n")
        );
    }

    #[test]
    fn each_line_of_a_document_is_a_line_of_data() {
        assert_eq!(
            order("{\n\"a\":\r\n1\r}").text,
            format!("event: order\nid: {VERSION}\ndata: {{\ndata: \"a\":\ndata: 1\ndata: }}\n\n")
        );
    }

    #[test]
    fn a_change_has_uid_and_version_and_nothing_else() {
        let uid = OrderUid::parse("a-b_c").unwrap();
        let announced = Announcement {
            uid,
            version: version(1).version,
        };
        let data = format!("data: {{\"order_uid\":\"a-b_c\",\"version\":\"{VERSION}\"}}\n\n");
        let change = format!("event: change\nid: {VERSION}\n{data}");
        let frame = Frame::changes(&[announced.clone(), announced]);
        assert_eq!(
            (frame.text, frame.count),
            (format!("{change}{change}").into(), 2)
        );
        // The version has the text of the ETag, with the number of the shape.
        assert_eq!(
            Frame::erased(&uid, version(2)).text,
            format!("event: erased\nid: {VERSION}\n{data}")
                .replace(VERSION, &format!("{VERSION}-2"))
        );
    }

    #[test]
    fn a_reset_keeps_the_last_id_of_the_client() {
        assert_eq!(
            Frame::reset(Reset::Reconnected).text,
            "event: reset\ndata: {\"reason\":\"reconnected\"}\n\n"
        );
    }
}

//! An event of one order, for each kind of watcher. All watchers of a kind share its text.

use shared::order::OrderUid;

use super::frame::Frame;
use crate::answer::{Answer, Unreadable, View, Visible};

/// Which watchers an event is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// Watchers that see every order as it is.
    Whole,
    /// Other watchers as well.
    Restricted,
}

/// An event of one order.
#[derive(Debug)]
pub(super) struct Event {
    whole: Frame,
    /// What other watchers get; `None` unless the event is for them.
    restricted: Option<Result<Restricted, Unreadable>>,
}

#[derive(Debug)]
struct Restricted {
    masked: Frame,
    /// The customer of the order; `None` if the order was erased.
    customer: Option<Box<str>>,
}

impl Event {
    /// Formats the event with `answer` for watchers of `uid`; `None` if the order is unknown.
    pub(super) fn of(uid: &OrderUid, answer: &Answer, form: Form) -> Option<Self> {
        let whole = frame(uid, answer, &View::EVERYTHING).ok().flatten()?;
        let restricted = match (form, answer) {
            (Form::Whole, _) | (_, Answer::Unknown) => None,
            (Form::Restricted, Answer::Erased(_)) => Some(Ok(Restricted {
                masked: whole.clone(),
                customer: None,
            })),
            (Form::Restricted, Answer::Order(document)) => {
                let masked = frame(uid, answer, &View::MASKED);
                Some(masked.and_then(|masked| {
                    Ok(Restricted {
                        masked: masked.ok_or(Unreadable)?,
                        customer: Some(document.customer()?),
                    })
                }))
            }
        };
        Some(Self { whole, restricted })
    }

    /// Returns whether the event is for the watchers of `form`.
    pub(super) fn is_for(&self, form: Form) -> bool {
        form == Form::Whole || self.restricted.is_some()
    }

    /// Returns whether each watcher of `form` that may see the order can be shown the event.
    pub(super) fn is_complete(&self, form: Form) -> bool {
        form == Form::Whole || matches!(self.restricted, Some(Ok(_)))
    }

    /// Bytes of all texts.
    pub(super) fn bytes(&self) -> usize {
        let masked = match &self.restricted {
            Some(Ok(restricted)) => restricted.masked.text.len(),
            Some(Err(_)) | None => 0,
        };
        self.whole.text.len() + masked
    }

    /// Returns the event as `view` shows it; `None` if it is one of another customer, or cannot be
    /// masked.
    pub(super) fn show(&self, view: &View) -> Option<Frame> {
        if !view.is_restricted() {
            return Some(self.whole.clone());
        }
        let Restricted { masked, customer } = self.restricted.as_ref()?.as_ref().ok()?;
        let is_visible = customer
            .as_deref()
            // Who watches an order that is erased could see it before.
            .is_none_or(|customer| view.shows_orders_of(customer));
        let frame = if view.is_masked() {
            masked
        } else {
            &self.whole
        };
        is_visible.then(|| frame.clone())
    }
}

/// Formats `answer` as `view` shows it; `None` if the order is unknown.
fn frame(uid: &OrderUid, answer: &Answer, view: &View) -> Result<Option<Frame>, Unreadable> {
    Ok(match view.show(answer.clone())? {
        Visible::Order(order) => Some(Frame::order(order)),
        Visible::Erased(version) => Some(Frame::erased(uid, version)),
        Visible::Unknown => None,
    })
}

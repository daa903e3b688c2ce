//! What a caller may see.

use std::sync::Arc;

use bytes::Bytes;
use poem::http::HeaderValue;
use shared::{
    order::DocumentVersion,
    storage::{ListFilter, Position},
};

use super::{
    Answer, Document, Edition, in_one_block,
    mask::{Cut, Outline, Unreadable},
};
use crate::auth::{Caller, Scope};

/// What a caller may see. Orders of other customers do not exist for a caller that is bound to one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct View {
    /// Whether personal data is shown.
    pii: bool,
    /// The customer whose orders are visible; all orders if `None`.
    customer: Option<Arc<str>>,
}

/// The state of an order as a view shows it.
#[derive(Debug)]
pub enum Visible {
    /// The order exists.
    Order(Shown),
    /// The order existed; this version erased it. Never the answer for a caller that is bound to a
    /// customer: an erased order has no customer.
    Erased(DocumentVersion),
    /// There is no such order, or the caller may not know of it.
    Unknown,
}

/// A document of an order, and which one it is.
#[derive(Debug)]
pub struct Shown {
    version: DocumentVersion,
    /// The ETag of the document with personal data.
    etag: HeaderValue,
    text: Text,
}

/// A JSON document as a view shows it.
#[derive(Debug)]
pub struct Text {
    json: Bytes,
    /// `None` if the document is shown as it is. Boxed: most documents are.
    cut: Option<Box<Cut>>,
}

/// A filter by personal data that the caller may not see.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a filter by personal data needs the scope orders:pii")]
pub struct PersonalFilter;

/// The part of a list that a view shows.
pub struct Selection {
    filter: ListFilter,
    view: View,
    /// Whether no visible order can match.
    is_empty: bool,
}

impl View {
    /// Shows everything: no keys are configured.
    pub const EVERYTHING: Self = Self {
        pii: true,
        customer: None,
    };

    /// Shows all orders, with masked personal data.
    pub const MASKED: Self = Self {
        pii: false,
        customer: None,
    };

    /// Returns what `caller` may see. Without keys there is no caller.
    pub fn of(caller: Option<&Caller>) -> Self {
        match caller {
            Some(caller) => Self {
                pii: caller.scopes.contains(Scope::OrdersPii),
                customer: caller.customer.clone(),
            },
            None => Self::EVERYTHING,
        }
    }

    /// Returns whether personal data is masked.
    pub fn is_masked(&self) -> bool {
        !self.pii
    }

    /// Returns whether the orders of other customers are hidden.
    pub fn is_bound(&self) -> bool {
        self.customer.is_some()
    }

    /// Returns whether orders are masked or hidden.
    pub fn is_restricted(&self) -> bool {
        self.is_masked() || self.is_bound()
    }

    /// Returns whether the orders of `customer` are visible.
    pub fn shows_orders_of(&self, customer: &str) -> bool {
        self.customer.as_deref().is_none_or(|own| own == customer)
    }

    /// Returns the state of an order as the caller may see it.
    ///
    /// # Errors
    /// If the document is not one of an order, so that it cannot be masked, or its customer is not
    /// known. A document that is shown as it is, is not read.
    pub fn show(&self, answer: Answer) -> Result<Visible, Unreadable> {
        match answer {
            Answer::Order(document) => self.show_document(document),
            Answer::Erased(_) | Answer::Unknown if self.is_bound() => Ok(Visible::Unknown),
            Answer::Erased(version) => Ok(Visible::Erased(version)),
            Answer::Unknown => Ok(Visible::Unknown),
        }
    }

    fn show_document(&self, document: Document) -> Result<Visible, Unreadable> {
        let Document {
            version,
            etag,
            json,
        } = document;
        Ok(match self.read(json)? {
            Some(text) => Visible::Order(Shown {
                version,
                etag,
                text,
            }),
            None => Visible::Unknown,
        })
    }

    /// Returns the document as the caller may see it; `None` if it is one of another customer.
    fn read(&self, json: Bytes) -> Result<Option<Text>, Unreadable> {
        if !self.is_restricted() {
            return Ok(Some(Text { json, cut: None }));
        }
        let outline = Outline::read(&json)?;
        if !self.shows_orders_of(&outline.customer_id) {
            return Ok(None);
        }
        let cut = self.is_masked().then(|| outline.mask()).transpose()?;
        let cut = cut.map(Box::new);
        Ok(Some(Text { json, cut }))
    }

    /// Returns the visible orders that match `filter`. Those of another customer are none, which is
    /// no error: a list never reveals whether that customer exists.
    ///
    /// # Errors
    /// If the filter would confirm personal data that the caller may not see.
    pub fn select(&self, mut filter: ListFilter) -> Result<Selection, PersonalFilter> {
        if self.is_masked() && (filter.phone.is_some() || filter.email.is_some()) {
            return Err(PersonalFilter);
        }
        let is_empty = match (&self.customer, &filter.customer_id) {
            (Some(own), Some(wanted)) => **own != **wanted,
            (Some(own), None) => {
                filter.customer_id = Some(own.as_ref().to_owned());
                false
            }
            (None, _) => false,
        };
        Ok(Selection {
            filter,
            view: self.clone(),
            is_empty,
        })
    }
}

impl Selection {
    /// The filter for the database; `None` if no visible order can match.
    pub(crate) fn filter(&self) -> Option<&ListFilter> {
        (!self.is_empty).then_some(&self.filter)
    }

    /// Returns whether the selection begins with the newest order.
    pub fn is_at_start(&self) -> bool {
        self.filter.after.is_none()
    }

    /// Lets the selection begin behind `position`.
    pub fn begin_after(&mut self, position: Option<Position>) {
        self.filter.after = position;
    }

    /// Returns a document that the database selected, as the caller may see it; `None` if it is one
    /// of another customer, which the filter prevents.
    ///
    /// # Errors
    /// If the document is not one of an order.
    pub(crate) fn show(&self, json: Bytes) -> Result<Option<Text>, Unreadable> {
        self.view.read(json)
    }
}

impl Shown {
    /// Which document this is.
    pub fn edition(&self) -> Edition {
        Edition {
            version: self.version,
            is_masked: self.text.cut.is_some(),
        }
    }

    /// Returns the ETag, with its quotes.
    pub fn etag(&self) -> HeaderValue {
        match self.text.cut {
            None => self.etag.clone(),
            Some(_) => self.edition().header(),
        }
    }

    /// Returns the ETag, with its quotes, and the JSON document.
    pub fn into_etag_and_json(self) -> (HeaderValue, Bytes) {
        match self.text.cut {
            None => (self.etag, self.text.json),
            Some(_) => in_one_block(&self.edition(), &self.text.slices()),
        }
    }

    /// The JSON document.
    pub fn into_text(self) -> Text {
        self.text
    }
}

impl Text {
    /// Returns the document in parts, which share its memory, except for what is masked.
    pub fn into_parts(self) -> impl Iterator<Item = Bytes> {
        let json = self.json;
        let parts = match self.cut {
            None => [Some(json), None, None],
            Some(cut) => {
                let Cut { place, delivery } = *cut;
                [
                    Some(json.slice(..place.start)),
                    Some(delivery.into()),
                    Some(json.slice(place.end..)),
                ]
            }
        };
        parts.into_iter().flatten()
    }

    /// The document in parts.
    pub fn slices(&self) -> [&[u8]; 3] {
        match &self.cut {
            None => [&self.json, &[], &[]],
            Some(cut) => [
                &self.json[..cut.place.start],
                &cut.delivery,
                &self.json[cut.place.end..],
            ],
        }
    }

    /// Length of the document in bytes.
    pub fn size(&self) -> usize {
        self.slices().iter().map(|part| part.len()).sum()
    }
}

#[cfg(test)]
mod tests;

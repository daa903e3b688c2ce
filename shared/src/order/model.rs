//! The order: every field with its type, rule, documentation and an example. The names are those of
//! the JSON document.
//!
//! Texts are [`SmolStr`]s. Most are shorter than its 24 bytes and need no heap allocation. An order
//! has about forty texts.

use std::collections::HashSet;
use std::fmt;

use chrono::{DateTime, Utc};
use serde::de::{Deserializer, MapAccess, Visitor};
use serde::ser::{Serialize, SerializeStruct, Serializer};
use smol_str::SmolStr;
use validator::{Validate, ValidationErrors, ValidationErrorsKind};

use super::decode_state::{DecodeState, Fault};
use super::entity::entity;
use super::field_type::{FieldType, KeySeed, ValueSeed};
use super::rule::{Entity, Field, List, Range, Relation, Rule, Text, Years};
use super::unknown;

/// The number of the document's shape. Raise it by one in each change that adds, removes or renames
/// a field, or that writes a value in another form.
///
/// A program never uses an entry of Redis or an ETag of a lower number, which stand for bytes of an
/// older shape. Postgres keeps the number of the worker that wrote a row, so that a field that an
/// older worker did not write reads as absent.
pub const REPRESENTATION: u8 = 1;

entity! {
    /// An order: who gets what, how it was paid, and where it is handled.
    Order [order_uid] {
        /// Identifies the order.
        order_uid: SmolStr = Text(Text::CODE), "b563feb7b2b84b6test";
        /// Identifies the parcel.
        track_number: SmolStr = Text(Text::CODE), "WBILMTESTTRACK";
        /// Code of the system through which the order came in.
        entry: SmolStr = Text(Text::NAME), "WBIL";
        /// Who gets the order, and where.
        delivery: Delivery = Object(Delivery::ENTITY);
        /// How the order was paid.
        payment: Payment = Object(Payment::ENTITY);
        /// The lines of the order, in its own order.
        items: Vec<Item> = Objects(List::lines(Item::ENTITY));
        /// Language of the customer: a valid BCP 47 tag of registered subtags.
        locale: SmolStr = Text(Text::LOCALE), "en";
        /// Signature of the system that sent the order, where it signs.
        internal_signature: SmolStr = Text(Text::OPTIONAL), "";
        /// Identifies the customer.
        customer_id: SmolStr = Text(Text::NAME), "test";
        /// The carrier.
        delivery_service: SmolStr = Text(Text::NAME), "meest";
        /// Shard that handles the order.
        shardkey: SmolStr = Text(Text::DIGITS), "9";
        /// Number of the sorting machine.
        sm_id: i32 = Int32(Range::<i32>::POSITIVE), 99;
        /// When the order was placed: UTC, with microseconds.
        date_created: DateTime<Utc> = DateTime(Years::COMMON_ERA), "2021-11-26T06:22:19Z";
        /// Shard of the out-of-order queue.
        oof_shard: SmolStr = Text(Text::DIGITS), "1";
    }
}

entity! {
    /// Who gets an order, and where.
    Delivery [] {
        /// Name of the recipient.
        name: SmolStr = Text(Text::NAME), "Test Testov";
        /// Phone number in E.164 form.
        phone: SmolStr = Text(Text::PHONE), "+9720000000";
        /// Postal code.
        zip: SmolStr = Text(Text::ZIP), "2639809";
        /// City.
        city: SmolStr = Text(Text::NAME), "Kiryat Mozkin";
        /// Street, house and so on.
        address: SmolStr = Text(Text::ADDRESS), "Ploshad Mira 15";
        /// Region.
        region: SmolStr = Text(Text::NAME), "Kraiot";
        /// E-mail address.
        email: SmolStr = Text(Text::EMAIL), "test@gmail.com";
    }
}

entity! {
    /// How an order was paid. Amounts are in minor units of the currency.
    Payment [] {
        /// Identifies the payment.
        transaction: SmolStr = Text(Text::CODE), "b563feb7b2b84b6test";
        /// Identifies the request for the payment, where there was one.
        request_id: SmolStr = Text(Text::OPTIONAL), "";
        /// Currency: an ISO 4217 alphabetic code, current or historic.
        currency: SmolStr = Text(Text::CURRENCY), "USD";
        /// The payment provider.
        provider: SmolStr = Text(Text::NAME), "wbpay";
        /// The sum paid, in minor units.
        amount: i64 = Int64(Range::<i64>::MONEY), 1817;
        /// When the order was paid, in seconds since 1970.
        payment_dt: i64 = Int64(Range::<i64>::POSITIVE), 1637907727;
        /// The bank.
        bank: SmolStr = Text(Text::NAME), "alpha";
        /// Share of the delivery, in minor units.
        delivery_cost: i64 = Int64(Range::<i64>::MONEY), 1500;
        /// Share of the goods, in minor units.
        goods_total: i64 = Int64(Range::<i64>::POSITIVE), 317;
        /// Customs duty, in minor units.
        custom_fee: i64 = Int64(Range::<i64>::MONEY), 0;
    }
}

entity! {
    /// A line of an order.
    Item [] {
        /// Identifies the size of the article.
        chrt_id: i64 = Int64(Range::<i64>::POSITIVE), 9934930;
        /// Identifies the parcel.
        track_number: SmolStr = Text(Text::CODE), "WBILMTESTTRACK";
        /// Price before the discount, in minor units.
        price: i64 = Int64(Range::<i64>::MONEY), 453;
        /// Identifies the line.
        rid: SmolStr = Text(Text::CODE), "ab4219087a764ae0btest";
        /// What the article is called.
        name: SmolStr = Text(Text::NAME), "Mascaras";
        /// Discount in percent.
        sale: i32 = Int32(Range::<i32>::PERCENT), 30;
        /// Size, as the brand writes it.
        size: SmolStr = Text(Text::NAME), "0";
        /// Price after the discount, in minor units.
        total_price: i64 = Int64(Range::<i64>::MONEY), 317;
        /// Identifies the article.
        nm_id: i64 = Int64(Range::<i64>::POSITIVE), 2389212;
        /// The brand.
        brand: SmolStr = Text(Text::NAME), "Vivienne Sabo";
        /// Status code of the line.
        status: i32 = Int32(Range::<i32>::ANY), 202;
    }
}

impl Order {
    /// The rules that span several fields. They are checked, in this order, if every field
    /// satisfies its own rule.
    pub const RELATIONS: &[Relation<Self>] = &[];

    /// Returns the canonical bytes: compact JSON, fields in the order of the document, times with
    /// `Z` and 0, 3 or 6 decimals.
    ///
    /// Every tier caches and returns orders in this form only, so every tier returns the same
    /// bytes.
    pub fn to_json(&self) -> Vec<u8> {
        // About 600 bytes for the order itself, and 250 for each line.
        let mut json = Vec::with_capacity(1024 + 256 * self.items.len());
        serde_json::to_writer(&mut json, self)
            .expect("writing strings and integers to memory cannot fail");
        json
    }
}

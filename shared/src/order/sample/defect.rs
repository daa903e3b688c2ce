//! Defects: each breaks an order in one way.

use serde_json::{Value, json};

use crate::order::{Order, Reason};

/// Generates from one table: the enum, the list of its variants, and the reason and change of each.
macro_rules! defects {
    ($($(#[doc = $doc:literal])+ $defect:ident: $reason:ident, $change:expr;)+) => {
        /// A defect of an order. The result is always one JSON text, so it fits into a file of
        /// orders.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Defect {
            $($(#[doc = $doc])+ $defect,)+
        }

        impl Defect {
            /// All defects.
            pub const ALL: &[Self] = &[$(Self::$defect,)+];

            /// Returns the reason for which the worker rejects an order with this defect.
            pub const fn reason(self) -> Reason {
                match self {
                    $(Self::$defect => Reason::$reason,)+
                }
            }

            fn change(self) -> fn(&mut Value) {
                match self {
                    $(Self::$defect => $change,)+
                }
            }
        }
    };
}

defects! {
    /// The uid is empty.
    UidEmpty: InvalidOrder, |order| order["order_uid"] = json!("");
    /// The uid has 65 characters.
    UidTooLong: InvalidOrder, |order| order["order_uid"] = json!("a".repeat(65));
    /// The uid has a character that is not allowed.
    UidSlash: InvalidOrder, |order| order["order_uid"] = json!("a/b");
    /// The track number contains a blank.
    TrackNumber: InvalidOrder, |order| order["track_number"] = json!("TRACK 1");
    /// The entry is blank.
    EntryBlank: InvalidOrder, |order| order["entry"] = json!(" ");
    /// The customer is empty.
    CustomerEmpty: InvalidOrder, |order| order["customer_id"] = json!("");
    /// The signature has 257 characters.
    SignatureTooLong: InvalidOrder, |order| order["internal_signature"] = json!("s".repeat(257));
    /// The recipient's name contains U+0000.
    NameNul: InvalidOrder, |order| order["delivery"]["name"] = json!("Te\0st");
    /// The city contains a line break.
    CityControl: InvalidOrder, |order| order["delivery"]["city"] = json!("Kiryat\nMozkin");
    /// The region has 257 characters.
    RegionTooLong: InvalidOrder, |order| order["delivery"]["region"] = json!("r".repeat(257));
    /// The address has 513 characters.
    AddressTooLong: InvalidOrder, |order| order["delivery"]["address"] = json!("a".repeat(513));
    /// The phone number has letters and no plus.
    Phone: InvalidOrder, |order| order["delivery"]["phone"] = json!("12345abc");
    /// The phone number has 16 digits.
    PhoneTooLong: InvalidOrder, |order| order["delivery"]["phone"] = json!("+1234567890123456");
    /// The postal code has an underscore.
    Zip: InvalidOrder, |order| order["delivery"]["zip"] = json!("12_34");
    /// The e-mail address has no domain.
    Email: InvalidOrder, |order| order["delivery"]["email"] = json!("not-an-email");
    /// The transaction is empty.
    TransactionEmpty: InvalidOrder, |order| order["payment"]["transaction"] = json!("");
    /// The currency does not exist.
    CurrencyUnknown: InvalidOrder, |order| order["payment"]["currency"] = json!("NOT");
    /// The currency is not in capitals.
    CurrencyLowercase: InvalidOrder, |order| order["payment"]["currency"] = json!("usd");
    /// The amount is negative.
    AmountNegative: InvalidOrder, |order| order["payment"]["amount"] = json!(-100);
    /// The delivery cost is negative.
    DeliveryCostNegative: InvalidOrder, |order| order["payment"]["delivery_cost"] = json!(-1);
    /// The customs duty is negative.
    CustomFeeNegative: InvalidOrder, |order| order["payment"]["custom_fee"] = json!(-1);
    /// The total of the goods is 0.
    GoodsTotalZero: InvalidOrder, |order| order["payment"]["goods_total"] = json!(0);
    /// The time of the payment is 0.
    PaymentTimeZero: InvalidOrder, |order| order["payment"]["payment_dt"] = json!(0);
    /// The order has no lines.
    NoItems: InvalidOrder, |order| order["items"] = json!([]);
    /// The order has 1001 lines.
    TooManyItems: InvalidOrder, |order| {
        order["items"] = Value::Array(vec![order["items"][0].clone(); 1001]);
    };
    /// The identifier of the article's size is 0.
    ChrtIdZero: InvalidOrder, |order| order["items"][0]["chrt_id"] = json!(0);
    /// The article's identifier is negative.
    NmIdNegative: InvalidOrder, |order| order["items"][0]["nm_id"] = json!(-1);
    /// The price is negative.
    PriceNegative: InvalidOrder, |order| order["items"][0]["price"] = json!(-1);
    /// The price after the discount is negative.
    TotalPriceNegative: InvalidOrder, |order| order["items"][0]["total_price"] = json!(-1);
    /// The discount is more than 100 %.
    SaleTooHigh: InvalidOrder, |order| order["items"][0]["sale"] = json!(101);
    /// The discount is negative.
    SaleNegative: InvalidOrder, |order| order["items"][0]["sale"] = json!(-1);
    /// The brand is blank.
    BrandBlank: InvalidOrder, |order| order["items"][0]["brand"] = json!("\u{3000}");
    /// The locale is not a language tag.
    LocaleMalformed: InvalidOrder, |order| order["locale"] = json!("xx_123");
    /// The locale is written with an underscore.
    LocaleUnderscore: InvalidOrder, |order| order["locale"] = json!("en_US");
    /// The locale names no registered language.
    LocaleUnregistered: InvalidOrder, |order| order["locale"] = json!("qq");
    /// The shard has letters.
    Shardkey: InvalidOrder, |order| order["shardkey"] = json!("abc");
    /// The out-of-order shard has 21 digits.
    OofShardTooLong: InvalidOrder, |order| order["oof_shard"] = json!("1".repeat(21));
    /// The sorting machine has the number 0.
    SmIdZero: InvalidOrder, |order| order["sm_id"] = json!(0);
    /// The date is a word.
    DateWord: InvalidOrder, |order| order["date_created"] = json!("yesterday");
    /// The date has no offset.
    DateWithoutOffset: InvalidOrder, |order| order["date_created"] = json!("2021-11-26T06:22:19");

    /// A field is missing.
    FieldMissing: MalformedJson, |order| {
        if let Some(payment) = order["payment"].as_object_mut() {
            payment.remove("bank");
        }
    };
    /// A field is null.
    FieldNull: MalformedJson, |order| order["locale"] = Value::Null;
    /// A number is written as a string.
    NumberAsText: MalformedJson, |order| order["payment"]["amount"] = json!("1817");
    /// A string is written as a number.
    TextAsNumber: MalformedJson, |order| order["shardkey"] = json!(9);
    /// An amount has a fraction.
    AmountFraction: MalformedJson, |order| order["payment"]["amount"] = json!(18.5);
    /// A 32-bit number needs 33 bits.
    SmIdTooLarge: MalformedJson, |order| order["sm_id"] = json!(1_i64 << 31);
    /// An array is in the place of an object.
    PaymentAsArray: MalformedJson, |order| order["payment"] = json!([1, 2, 3]);
}

impl Defect {
    /// Returns the JSON of `order` with this defect.
    pub fn apply(self, order: &Order) -> Vec<u8> {
        let mut document = serde_json::to_value(order).unwrap_or_default();
        self.change()(&mut document);
        document.to_string().into_bytes()
    }

    /// Returns the defects that break a rule of a well-formed order.
    pub fn of_rules() -> impl Iterator<Item = Self> {
        Self::ALL
            .iter()
            .copied()
            .filter(|defect| defect.reason() == Reason::InvalidOrder)
    }
}

//! Records to send: orders from different producers, and records that are not orders.

use rand::{Rng, SeedableRng, rngs::StdRng};
use serde_json::{Value, json};
use shared::order::{
    MAX_VALUE_BYTES, Order, Reason, UnknownFields, decode,
    sample::{Defect, Generator, broken_json, gibberish},
};

/// Name and value of a header to send. Brokers accept any name, UTF-8 or not.
pub type RawHeader = (Vec<u8>, Option<Vec<u8>>);

/// A record to send.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// Key.
    pub key: Option<Vec<u8>>,
    /// Value. `None` is Kafka's null.
    pub value: Option<Vec<u8>>,
    /// Headers.
    pub headers: Vec<RawHeader>,
    /// Partition. `None` means the one that follows from the key, or any.
    pub partition: Option<i32>,
    /// Timestamp, for topics that keep the producer's.
    pub timestamp_ms: Option<i64>,
}

/// Expected outcome of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expected {
    /// The record is an order.
    Order {
        /// Uid of the order.
        uid: String,
        /// The bytes that every tier returns.
        json: Vec<u8>,
    },
    /// The record erases an order.
    Erasure {
        /// Uid of the order.
        uid: String,
    },
    /// The worker rejects the record and writes a dead letter.
    Rejected(Reason),
}

/// A record to send and its expected outcome.
#[derive(Clone, Debug)]
pub struct Draft {
    /// The record.
    pub record: Record,
    /// Its expected outcome.
    pub expected: Expected,
}

impl Draft {
    /// The canonical document of an order, keyed by its uid.
    pub fn order(order: &Order) -> Self {
        Self::valid(order.to_json())
    }

    /// A document of an order, keyed by its uid.
    ///
    /// # Panics
    /// The document is not an order.
    pub fn valid(value: Vec<u8>) -> Self {
        let order = decode(&value, UnknownFields::Ignore).unwrap().order;
        Self {
            record: Record {
                key: Some(order.order_uid.as_bytes().to_vec()),
                value: Some(value),
                ..Record::default()
            },
            expected: Expected::Order {
                json: order.to_json(),
                uid: order.order_uid.into(),
            },
        }
    }

    /// A null value that erases the order `uid`.
    pub fn erasure(uid: &str) -> Self {
        Self {
            record: Record {
                key: Some(uid.as_bytes().to_vec()),
                ..Record::default()
            },
            expected: Expected::Erasure {
                uid: uid.to_owned(),
            },
        }
    }

    /// A value that the worker rejects.
    pub fn rejected(reason: Reason, value: impl Into<Vec<u8>>) -> Self {
        Self {
            record: Record {
                value: Some(value.into()),
                ..Record::default()
            },
            expected: Expected::Rejected(reason),
        }
    }

    /// Replaces the key, or removes it.
    #[must_use]
    pub fn with_key(mut self, key: Option<&[u8]>) -> Self {
        self.record.key = key.map(<[u8]>::to_vec);
        self
    }

    /// Adds a header. Its name may be other than UTF-8.
    #[must_use]
    pub fn with_header(mut self, name: impl Into<Vec<u8>>, value: Option<&[u8]>) -> Self {
        self.record
            .headers
            .push((name.into(), value.map(<[u8]>::to_vec)));
        self
    }

    /// Changes the expected outcome: the worker rejects the record.
    #[must_use]
    pub fn but_rejected(mut self, reason: Reason) -> Self {
        self.expected = Expected::Rejected(reason);
        self
    }
}

/// Lengthens the texts of an order of a thousand items until it is almost as large as an order may
/// be.
pub fn large_order(mut order: Order) -> Order {
    let missing = MAX_VALUE_BYTES - 4096 - order.to_json().len();
    let each = missing / order.items.len() / 3;
    for item in &mut order.items {
        for text in [&mut item.name, &mut item.brand, &mut item.size] {
            // At most 256 characters of four bytes each.
            *text = "𝄞".repeat((each / 4).min(256)).into();
        }
    }
    order
}

/// The longest valid uid.
const MAX_UID_LENGTH: usize = 64;

/// Orders as other producers write them, and the expected time of each.
const FOREIGN_ORDERS: [(&[u8], &str); 5] = [
    (
        include_bytes!("../fixtures/model.json"),
        "2021-11-26T06:22:19Z",
    ),
    // A uid with dashes; Go's RFC3339Nano in local time.
    (
        include_bytes!("../fixtures/go_nanoseconds.json"),
        "2025-09-01T09:34:56.123456Z",
    ),
    // Python's isoformat() with an offset; a uid of digits; no significant decimals.
    (
        include_bytes!("../fixtures/python_isoformat.json"),
        "2025-08-31T22:15:00Z",
    ),
    // JavaScript's toISOString(); unknown fields; escapes.
    (
        include_bytes!("../fixtures/javascript_milliseconds.json"),
        "2025-01-31T23:59:59.120Z",
    ),
    // The greatest valid numbers; money above 32 bits; fields in another order.
    (
        include_bytes!("../fixtures/greatest_numbers.json"),
        "9999-12-31T23:59:59.999999Z",
    ),
];

/// Records that the worker stores, one of each notable kind. Another seed gives other uids.
pub fn valid_samples(seed: u64) -> Vec<Draft> {
    let mut orders = Generator::new(seed, 1..=4);
    let mut order = move || orders.next().expect("the generator has no end");
    let mut rng = StdRng::seed_from_u64(seed);
    let mut samples: Vec<Draft> = FOREIGN_ORDERS
        .iter()
        .map(|(value, time)| foreign_order(&with_uid_of_its_own(value, &mut rng), time))
        .collect();

    let mut padded = order().to_json();
    padded.resize(MAX_VALUE_BYTES, b' ');
    samples.push(Draft::valid(padded));
    let long = Generator::new(seed + 1, 1000..=1000).next();
    samples.extend(long.as_ref().map(Draft::order));

    samples.push(Draft::order(&order()).with_key(None));
    samples.push(Draft::order(&order()).with_key(Some(b"another key \xff")));
    samples.push(
        Draft::order(&order())
            .with_header(
                "traceparent",
                Some(b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
            )
            .with_header("nothing", None),
    );
    samples.push(Draft::order(&order()).with_header("replay-version", Some(b"1700000000000/42/5")));
    samples.push(Draft::valid(with_members(
        &order(),
        &format!("\"foreign\":{}", "9".repeat(400)),
    )));
    samples.push(negative_zeros(order()));
    // Recently added codes, and withdrawn ones.
    for (currency, locale) in [("XAD", "ajs"), ("ANG", "iw"), ("DEM", "i-klingon")] {
        let mut order = order();
        order.payment.currency = currency.into();
        order.locale = locale.into();
        samples.push(Draft::order(&order));
    }
    samples
}

/// The order with the integer 0 written as `-0`.
fn negative_zeros(mut order: Order) -> Draft {
    order.payment.custom_fee = 0;
    order.items[0].status = 0;
    let json = String::from_utf8(order.to_json()).unwrap();
    let json = json
        .replace("\"custom_fee\":0", "\"custom_fee\":-0")
        .replace("\"status\":0", "\"status\":-0");
    let draft = Draft::valid(json.into_bytes());
    assert_eq!(draft.expected, Draft::order(&order).expected);
    draft
}

/// Returns the document with a unique uid of the same kind. Digits are valid in every kind.
fn with_uid_of_its_own(value: &[u8], rng: &mut StdRng) -> Vec<u8> {
    let document: Value = serde_json::from_slice(value).unwrap();
    let uid = document["order_uid"].as_str().unwrap();
    let number = format!("{:012}", rng.random_range(0..1_000_000_000_000_u64));
    let kept = &uid[..uid.len().min(MAX_UID_LENGTH - number.len())];
    let text = str::from_utf8(value).unwrap();
    text.replace(&format!("\"{uid}\""), &format!("\"{kept}{number}\""))
        .into_bytes()
}

fn foreign_order(value: &[u8], time: &str) -> Draft {
    let draft = Draft::valid(value.to_vec());
    // The decoder of `shared` produces the document. This asserts that it changes nothing but the
    // time.
    let mut expected: Value = serde_json::from_slice(value).unwrap();
    expected["date_created"] = json!(time);
    expected.as_object_mut().unwrap().remove("foreign");
    let Expected::Order { json, .. } = &draft.expected else {
        unreachable!("a valid draft is an order");
    };
    let canonical: Value = serde_json::from_slice(json).unwrap();
    assert_eq!(canonical, expected);
    draft
}

/// Records that the worker rejects, at least one of each kind.
pub fn rejected_samples(seed: u64) -> Vec<Draft> {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut orders = Generator::new(seed, 1..=3);
    let mut order = move || orders.next().expect("the generator has no end");
    let mut samples: Vec<Draft> = Defect::ALL
        .iter()
        .map(|defect| {
            let order = order();
            Draft::rejected(defect.reason(), defect.apply(&order))
                .with_key(Some(order.order_uid.as_bytes()))
        })
        .collect();
    samples.extend(malformed_values(&order(), &mut rng).map(|value| {
        // Some with the key that they would have had, some without.
        let key: Option<&[u8]> = rng.random_bool(0.5).then_some(b"malformed");
        Draft::rejected(Reason::MalformedJson, value).with_key(key)
    }));

    for size in [MAX_VALUE_BYTES + 1, 2 << 20, 7 << 20] {
        let mut value = order().to_json();
        value.resize(size, b' ');
        samples.push(Draft::rejected(Reason::TooLarge, value));
    }

    let erasure = Draft::erasure("unknown").but_rejected(Reason::InvalidOrder);
    samples.push(erasure.clone().with_key(None));
    samples.push(erasure.clone().with_key(Some(b"")));
    samples.push(erasure.with_key(Some(b"not/a/uid")));

    let valid = || Draft::order(&Generator::new(seed + 1, 1..=1).next().unwrap());
    for version in ["", "1/2", "1/2/3/4", "-1/2/3", "1700000000000/42/x"] {
        samples.push(
            valid()
                .but_rejected(Reason::InvalidOrder)
                .with_header("replay-version", Some(version.as_bytes())),
        );
    }
    samples.push(
        valid()
            .but_rejected(Reason::FutureTimestamp)
            .with_header("replay-version", Some(b"9000000000000/42/5")),
    );
    // Original headers with the names of dead letter headers, one of them null, stay in front.
    samples.push(
        Draft::rejected(Reason::MalformedJson, b"{".to_vec())
            .with_key(Some(b"with headers"))
            .with_header("dlq-reason", Some(b"an original"))
            .with_header("dlq-offset", None)
            .with_header(
                "traceparent",
                Some(b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
            )
            .with_header("twice", Some(b"1"))
            .with_header("twice", Some(b"2")),
    );
    samples
}

/// Values that are not one JSON text of the order's shape.
fn malformed_values(order: &Order, rng: &mut StdRng) -> impl Iterator<Item = Vec<u8>> + use<> {
    let json = String::from_utf8(order.to_json()).unwrap();
    let name = format!("\"{}\"", order.delivery.name);
    let amount = format!("\"amount\":{}", order.payment.amount);
    let mut values = vec![
        Vec::new(),
        b" ".to_vec(),
        b"null".to_vec(),
        b"{}".to_vec(),
        b"[]".to_vec(),
        b"\"order\"".to_vec(),
        b"NaN".to_vec(),
        "[".repeat(10_000).into_bytes(),
        ["[".repeat(10_000), "]".repeat(10_000)]
            .concat()
            .into_bytes(),
        format!("\u{feff}{json}").into_bytes(),
        format!("{json}{json}").into_bytes(),
        format!("{json}\0").into_bytes(),
        json.as_bytes()[..json.len() - 1].to_vec(),
        format!("[{json}]").into_bytes(),
        json.replace(&amount, "\"amount\":NaN").into_bytes(),
        json.replace(&amount, &format!("\"amount\":{}", "9".repeat(400)))
            .into_bytes(),
        json.replace(&amount, "\"amount\":9223372036854775808")
            .into_bytes(),
        json.replace(&amount, "\"amount\":1e3").into_bytes(),
        json.replace(&amount, "\"amount\":-0.0").into_bytes(),
        json.replace(&amount, "\"amount\":-01").into_bytes(),
        json.replace(&amount, &format!("{amount},{amount}"))
            .into_bytes(),
        with_members(order, "\"locale\":\"en\""),
        with_members(
            order,
            &format!("\"deep\":{}1{}", "[".repeat(10_000), "]".repeat(10_000)),
        ),
    ];
    // Latin-1 in the middle of a text.
    let at = json.find(&name).unwrap() + 1;
    let mut latin1 = json.clone().into_bytes();
    latin1.insert(at, 0xe4);
    values.push(latin1);
    // The values without their names.
    let array: Vec<Value> = serde_json::from_str::<Value>(&json)
        .unwrap()
        .as_object()
        .unwrap()
        .values()
        .cloned()
        .collect();
    values.push(Value::Array(array).to_string().into_bytes());
    values.extend((0..20).map(|_| broken_json(order, rng)));
    values.extend((0..20).map(|_| gibberish(rng)));
    values.into_iter()
}

/// Returns the document of an order with `members` in front of its own.
fn with_members(order: &Order, members: &str) -> Vec<u8> {
    let json = String::from_utf8(order.to_json()).unwrap();
    json.replacen('{', &format!("{{{members},"), 1).into_bytes()
}

//! Generates valid orders that are varied and plausible.

use std::ops::RangeInclusive;

use chrono::{DateTime, Utc};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use smol_str::{SmolStr, ToSmolStr, format_smolstr};
use uuid::Builder;

use crate::order::{Delivery, Item, Order, Payment};

/// 2025-01-01T00:00:00Z in microseconds since 1970. The generated orders have dates in the year
/// that follows.
const EPOCH_US: i64 = 1_735_689_600_000_000;
const YEAR_US: i64 = 365 * 24 * 60 * 60 * 1_000_000;

/// An endless generator of valid orders. The same seed generates the same orders. Different seeds
/// generate different uids.
#[derive(Clone, Debug)]
pub struct Generator {
    rng: StdRng,
    items: RangeInclusive<usize>,
}

impl Generator {
    /// Creates a generator of orders with `items` lines each.
    ///
    /// # Panics
    /// If `items` is empty or not within 1 to 1000, the number of lines that an order can have.
    pub fn new(seed: u64, items: RangeInclusive<usize>) -> Self {
        assert!(
            1 <= *items.start() && items.start() <= items.end() && *items.end() <= 1000,
            "an order has 1 to 1000 lines"
        );
        Self {
            rng: StdRng::seed_from_u64(seed),
            items,
        }
    }

    fn order(&mut self) -> Order {
        let place = self.pick(PLACES);
        let uid = self.uuid();
        let track_number =
            format_smolstr!("WBIL{:010}", self.rng.random_range(0..10_000_000_000_u64));
        let date_created = self.date();
        let count = self.rng.random_range(self.items.clone());
        let items: Vec<Item> = (0..count).map(|_| self.item(&track_number)).collect();
        let goods_total = items
            .iter()
            .map(|item| item.total_price)
            .sum::<i64>()
            .max(1);
        let delivery_cost = self.rng.random_range(0..=20) * 100;
        let custom_fee = if self.rng.random_bool(0.1) {
            goods_total / 10
        } else {
            0
        };
        Order {
            payment: Payment {
                transaction: uid.clone(),
                request_id: self.sometimes(Self::uuid),
                currency: place.currency.into(),
                provider: self.pick(&["wbpay", "stripe", "adyen"]).into(),
                amount: goods_total + delivery_cost + custom_fee,
                payment_dt: date_created.timestamp() + self.rng.random_range(0..600),
                bank: self.pick(&["alpha", "sber", "tinkoff", "hapoalim"]).into(),
                delivery_cost,
                goods_total,
                custom_fee,
            },
            order_uid: uid,
            track_number,
            entry: self.pick(&["WBIL", "WBRU", "WBEU"]).into(),
            delivery: self.delivery(place),
            items,
            locale: place.locale.into(),
            internal_signature: self
                .sometimes(|this| format_smolstr!("{:016x}", this.rng.random::<u64>())),
            customer_id: format_smolstr!("customer-{}", self.rng.random_range(1..=100_000)),
            delivery_service: self.pick(&["meest", "cdek", "dhl", "gls"]).into(),
            shardkey: self.rng.random_range(0..10).to_smolstr(),
            sm_id: self.rng.random_range(1..=999),
            date_created,
            oof_shard: self.rng.random_range(1..=4).to_smolstr(),
        }
    }

    fn delivery(&mut self, place: Place) -> Delivery {
        let (name, mailbox) = self.pick(PEOPLE);
        Delivery {
            name: name.into(),
            phone: format_smolstr!("{}{:07}", place.phone, self.rng.random_range(0..10_000_000)),
            zip: format_smolstr!("{}{:03}", place.zip, self.rng.random_range(0..1000)),
            city: place.city.into(),
            address: format_smolstr!("{} {}", place.street, self.rng.random_range(1..=200)),
            region: place.region.into(),
            email: format_smolstr!("{mailbox}{}@example.com", self.rng.random_range(1..=999)),
        }
    }

    fn item(&mut self, track_number: &SmolStr) -> Item {
        let (brand, name, size) = self.pick(ARTICLES);
        let price = self.rng.random_range(100..=50_000);
        let sale = self.pick(&[0, 0, 10, 25, 30, 50]);
        Item {
            chrt_id: self.rng.random_range(1..=99_999_999),
            track_number: track_number.clone(),
            price,
            rid: self.uuid(),
            name: name.into(),
            sale,
            size: size.into(),
            total_price: price * i64::from(100 - sale) / 100,
            nm_id: self.rng.random_range(1..=9_999_999),
            brand: brand.into(),
            status: self.pick(&[200, 202, 301, -1]),
        }
    }

    /// Returns a random (version 4) UUID, with or without dashes.
    fn uuid(&mut self) -> SmolStr {
        let uuid = Builder::from_random_bytes(self.rng.random()).into_uuid();
        if self.rng.random() {
            uuid.simple().to_smolstr()
        } else {
            uuid.hyphenated().to_smolstr()
        }
    }

    /// Returns a point in time in whole seconds, milliseconds or microseconds.
    fn date(&mut self) -> DateTime<Utc> {
        let us = EPOCH_US + self.rng.random_range(0..YEAR_US);
        let unit = self.pick(&[1_000_000, 1000, 1]);
        DateTime::from_timestamp_micros(us - us % unit).unwrap_or_default()
    }

    /// Returns the text for one order in four, and an empty text for the others.
    fn sometimes(&mut self, text: impl FnOnce(&mut Self) -> SmolStr) -> SmolStr {
        if self.rng.random_bool(0.25) {
            text(self)
        } else {
            SmolStr::default()
        }
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.rng.random_range(0..from.len())]
    }
}

impl Iterator for Generator {
    type Item = Order;

    fn next(&mut self) -> Option<Order> {
        Some(self.order())
    }
}

/// Where orders go. Codes are prefixes: 7 digits follow the phone code, and 3 follow the postal
/// code.
#[derive(Clone, Copy)]
struct Place {
    city: &'static str,
    region: &'static str,
    street: &'static str,
    zip: &'static str,
    phone: &'static str,
    locale: &'static str,
    currency: &'static str,
}

const fn place([city, region, street, zip, phone, locale, currency]: [&'static str; 7]) -> Place {
    Place {
        city,
        region,
        street,
        zip,
        phone,
        locale,
        currency,
    }
}

const PLACES: &[Place] = &[
    place([
        "Kiryat Mozkin",
        "Kraiot",
        "Ploshad Mira",
        "2639",
        "+9724",
        "he",
        "ILS",
    ]),
    place([
        "Москва",
        "Москва",
        "улица Ленина",
        "101",
        "+7495",
        "ru",
        "RUB",
    ]),
    place([
        "Казань",
        "Татарстан",
        "улица Баумана",
        "420",
        "+7843",
        "ru-RU",
        "RUB",
    ]),
    place([
        "Berlin",
        "Berlin",
        "Lindenstraße",
        "10",
        "+4930",
        "de",
        "EUR",
    ]),
    place([
        "São Paulo",
        "SP",
        "Rua Augusta",
        "01304-",
        "+5511",
        "pt-BR",
        "BRL",
    ]),
    place([
        "London",
        "Greater London",
        "Baker Street",
        "NW1 ",
        "+4420",
        "en-GB",
        "GBP",
    ]),
    place([
        "Springfield",
        "Illinois",
        "Main Street",
        "62",
        "+1217",
        "en",
        "USD",
    ]),
    place([
        "臺北市",
        "臺灣",
        "中山路",
        "10",
        "+8862",
        "zh-Hant-TW",
        "TWD",
    ]),
];

/// Names, and the user part of their e-mail addresses.
const PEOPLE: &[(&str, &str)] = &[
    ("Test Testov", "test"),
    ("Анна Петрова", "anna.petrova"),
    ("Jürgen Müller", "j.mueller"),
    ("Chloé O'Neill", "chloe+shop"),
    ("João da Silva", "joao_silva"),
    ("王小明", "wang-xm"),
];

/// Brand, name and size.
const ARTICLES: &[(&str, &str, &str)] = &[
    ("Vivienne Sabo", "Mascaras", "0"),
    ("Nordkapp", "Куртка зимняя", "XL"),
    ("Acme", "Running shoes", "42.5"),
    ("Lumen", "Desk lamp", "one size"),
    ("Bäckerei Süd", "Baking tin", "30 × 11 cm"),
    ("Papyrus", "Notebook A5", "A5"),
];

//! Lists of orders, newest first: by the time when they were first stored, then by id.
//!
//! A page is found in one of these ways. Each is a statement whose plan does not depend on the
//! statistics of the tables, which are missing after a bulk load.
//!
//! | way | for | reads at most |
//! |---|---|---|
//! | [`Way::Orders`] | filters on `orders` | the page |
//! | [`Way::Pair`] | customer and track number | orders of a rare one; else the customer's index |
//! | [`Way::Contact`] | a phone or an e-mail address of few orders | all orders with the contact |
//! | [`Way::Newest`] | one of many orders | [`WALK`] orders |
//!
//! `deliveries` does not have the time that sorts the list. So all orders of a contact must be read
//! and sorted, unless the contact is so frequent that the newest orders contain a page of them. Of
//! several filters, the first that few orders match leads, and the others are checked on those.
//! Only if many orders match each of them, and few match all, all orders of a contact are read,
//! until the deadline of the call.

use bytes::Bytes;
use chrono::{DateTime, Utc};
use futures_util::TryStreamExt;
use sqlx::{PgConnection, Postgres as Driver, QueryBuilder, Row, postgres::PgRow};

use super::{
    Postgres, StorageError,
    read::{revision, select_revisions},
};

/// Number of orders up to which all orders of a contact are read and sorted. That takes about
/// 10 ms.
const FEW: i64 = 5_000;

/// Maximum number of the newest orders in which a page of a frequent contact is searched.
const WALK: u32 = 50_000;

/// The order of every list.
const NEWEST_FIRST: &str = " ORDER BY o.created_at DESC, o.id DESC";

/// The end of a list page; the next page starts behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// When the order was first stored.
    pub created_at: DateTime<Utc>,
    /// The order's id in Postgres.
    pub id: i64,
}

/// The filter of a list of orders. All conditions must hold.
#[derive(Clone, Default)]
pub struct ListFilter {
    /// Lists only orders of this customer.
    pub customer_id: Option<String>,
    /// Lists only orders with this track number.
    pub track_number: Option<String>,
    /// Lists only orders that are delivered to this phone number.
    pub phone: Option<String>,
    /// Lists only orders that are delivered to this e-mail address, exactly as stored.
    pub email: Option<String>,
    /// Lists only orders that were first stored at this time or later.
    pub created_from: Option<DateTime<Utc>>,
    /// Lists only orders that were first stored before this time.
    pub created_to: Option<DateTime<Utc>>,
    /// Lists only orders behind this position.
    pub after: Option<Position>,
}

/// One line of a list of orders.
#[derive(Clone, Debug)]
pub struct Summary {
    /// The position of the order in the list.
    pub position: Position,
    /// The order's uid.
    pub order_uid: String,
    /// Its track number.
    pub track_number: String,
    /// The id of its customer.
    pub customer_id: String,
    /// When the customer placed the order.
    pub date_created: DateTime<Utc>,
    /// Currency of the payment, ISO 4217.
    pub currency: String,
    /// Amount of the payment in minor units.
    pub amount: i64,
    /// The number of its items.
    pub item_count: i64,
}

/// Whole orders of a list.
#[derive(Default)]
pub struct Documents {
    /// The canonical bytes of each order.
    pub documents: Vec<Bytes>,
    /// The position of the last order if more orders may follow.
    pub next: Option<Position>,
}

/// How a page is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// By an index of `orders` that has the order of the list.
    Orders,
    /// By the index of one column, for a customer together with a track number.
    Pair(Lead),
    /// By the index of the phone or of the e-mail address.
    Contact(Contact),
    /// In the newest orders. Misses orders behind the first [`WALK`] ones.
    Newest,
}

/// The filter whose index is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lead {
    Customer,
    TrackNumber,
}

/// A column of `deliveries` that has an index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Contact {
    Phone,
    Email,
}

impl ListFilter {
    /// The contacts of the filter.
    fn contacts(&self) -> impl Iterator<Item = Contact> {
        let phone = self.phone.as_ref().map(|_| Contact::Phone);
        let email = self.email.as_ref().map(|_| Contact::Email);
        phone.into_iter().chain(email)
    }

    /// Returns whether the filter has a condition that may leave few orders.
    fn narrows_orders(&self) -> bool {
        self.customer_id.is_some() || self.track_number.is_some() || self.created_from.is_some()
    }

    /// Adds the conditions on the table `orders o`.
    fn push_orders(&self, query: &mut QueryBuilder<Driver>) {
        self.push_orders_by(query, None);
    }

    /// Adds the conditions on the table `orders o`. With `lead`, only the index of that column has
    /// the order of the list: for Postgres, the other one has a range of values. An index that
    /// contains its column still checks it without reading the row.
    fn push_orders_by(&self, query: &mut QueryBuilder<Driver>, lead: Option<Lead>) {
        query.push("o.erased_at IS NULL");
        if let Some(customer_id) = &self.customer_id {
            if lead == Some(Lead::TrackNumber) {
                query
                    .push(" AND o.customer_id >= ")
                    .push_bind(customer_id.clone());
                query
                    .push(" AND o.customer_id <= ")
                    .push_bind(customer_id.clone());
            } else {
                query
                    .push(" AND o.customer_id = ")
                    .push_bind(customer_id.clone());
            }
        }
        if let Some(track_number) = &self.track_number {
            if lead == Some(Lead::Customer) {
                query
                    .push(" AND o.track_number >= ")
                    .push_bind(track_number.clone());
                query
                    .push(" AND o.track_number <= ")
                    .push_bind(track_number.clone());
            } else {
                query
                    .push(" AND o.track_number = ")
                    .push_bind(track_number.clone());
            }
        }
        if let Some(from) = self.created_from {
            query.push(" AND o.created_at >= ").push_bind(from);
        }
        if let Some(to) = self.created_to {
            query.push(" AND o.created_at < ").push_bind(to);
        }
        if let Some(after) = self.after {
            query.push(" AND (o.created_at, o.id) < (");
            query.push_bind(after.created_at).push(", ");
            query.push_bind(after.id).push(")");
        }
    }

    /// Adds the conditions on the table `deliveries d`. With `by`, only the index of that column
    /// fits: the other one is in an expression.
    fn push_contact(&self, query: &mut QueryBuilder<Driver>, by: Option<Contact>) {
        let column = |contact, indexed, not_indexed| match by {
            Some(by) if by != contact => not_indexed,
            _ => indexed,
        };
        query.push("true");
        if let Some(phone) = &self.phone {
            query.push(column(
                Contact::Phone,
                " AND d.phone = ",
                " AND d.phone || '' = ",
            ));
            query.push_bind(phone.clone());
        }
        if let Some(email) = &self.email {
            query.push(column(
                Contact::Email,
                " AND d.email = ",
                " AND d.email || '' = ",
            ));
            query.push_bind(email.clone());
        }
    }

    /// Adds a query of the ids of a page.
    ///
    /// A subquery with `OFFSET 0` is planned on its own, for one row of the outer query. Otherwise,
    /// without statistics of the tables, Postgres may read a whole table instead of an index.
    ///
    /// Filters take columns of the first shape only. A column with `since` needs the expression of
    /// `columns::selected`, because the row of an older worker may hold a value of an earlier
    /// version.
    fn push_page(&self, query: &mut QueryBuilder<Driver>, way: Way, limit: u32) {
        match way {
            Way::Orders => {
                query.push("SELECT o.id FROM orders o WHERE ");
                self.push_orders(query);
            }
            Way::Pair(lead) => {
                // Planned on its own, as if all its orders were wanted: with the limit, Postgres
                // may expect to find a page among the newest orders of all customers.
                query.push("SELECT o.id FROM (SELECT o.id, o.created_at FROM orders o WHERE ");
                self.push_orders_by(query, Some(lead));
                query.push(NEWEST_FIRST).push(" OFFSET 0) o");
            }
            Way::Contact(by) => {
                query
                    .push("WITH found AS MATERIALIZED (SELECT d.order_id FROM deliveries d WHERE ");
                self.push_contact(query, Some(by));
                query.push(
                    ") SELECT o.id FROM found CROSS JOIN LATERAL ( \
                         SELECT o.id, o.created_at FROM orders o WHERE o.id = found.order_id AND ",
                );
                self.push_orders(query);
                query.push(" OFFSET 0) o");
            }
            Way::Newest => {
                query.push("SELECT o.id FROM (SELECT o.id, o.created_at FROM orders o WHERE ");
                self.push_orders(query);
                query.push(NEWEST_FIRST).push(" LIMIT ").push(WALK);
                query.push(
                    ") o CROSS JOIN LATERAL ( \
                         SELECT FROM deliveries d WHERE d.order_id = o.id AND ",
                );
                self.push_contact(query, None);
                query.push(" OFFSET 0) d");
            }
        }
        query.push(NEWEST_FIRST).push(" LIMIT ");
        query.push_bind(i64::from(limit));
    }

    /// Returns the ways to try, one after the other, until one finds a full page. The last one
    /// misses no order.
    async fn ways(&self, connection: &mut PgConnection) -> Result<Vec<Way>, sqlx::Error> {
        let Some(last) = self.contacts().last() else {
            if self.customer_id.is_none() || self.track_number.is_none() {
                return Ok(vec![Way::Orders]);
            }
            let of_track_number = Self {
                customer_id: None,
                ..self.clone()
            };
            let lead = match is_few(of_track_number.of_orders(), connection).await? {
                true => Lead::TrackNumber,
                false => Lead::Customer,
            };
            return Ok(vec![Way::Pair(lead)]);
        };
        for contact in self.contacts() {
            if is_few(self.of_contact(contact), connection).await? {
                return Ok(vec![Way::Contact(contact)]);
            }
        }
        // They are fewer than the newest orders that are searched.
        if self.narrows_orders() && is_few(self.of_orders(), connection).await? {
            return Ok(vec![Way::Newest]);
        }
        Ok(vec![Way::Newest, Way::Contact(last)])
    }

    /// Begins a count of the orders with a contact.
    fn of_contact(&self, contact: Contact) -> QueryBuilder<Driver> {
        let (condition, value) = match contact {
            Contact::Phone => ("d.phone = ", &self.phone),
            Contact::Email => ("d.email = ", &self.email),
        };
        let mut query = QueryBuilder::new("SELECT count(*) FROM (SELECT FROM deliveries d WHERE ");
        query.push(condition).push_bind(value.clone());
        query
    }

    /// Begins a count of the orders that match the conditions on `orders`, by an index that has the
    /// order of the list.
    fn of_orders(&self) -> QueryBuilder<Driver> {
        let mut query = QueryBuilder::new("SELECT count(*) FROM (SELECT FROM orders o WHERE ");
        self.push_orders(&mut query);
        query.push(NEWEST_FIRST);
        query
    }
}

/// Ends a count at [`FEW`] and returns whether there are no more orders.
async fn is_few(
    mut count: QueryBuilder<Driver>,
    connection: &mut PgConnection,
) -> Result<bool, sqlx::Error> {
    count.push(" LIMIT ").push(FEW + 1).push(") AS found");
    let found: i64 = count.build_query_scalar().fetch_one(connection).await?;
    Ok(found <= FEW)
}

impl Postgres {
    /// Returns at most `limit` orders that match `filter`, newest first. Erased orders are in no
    /// list.
    ///
    /// # Errors
    /// When Postgres does not answer.
    pub async fn list(
        &self,
        filter: &ListFilter,
        limit: u32,
    ) -> Result<Vec<Summary>, StorageError> {
        let rows = self
            .run("list", async |connection| {
                let mut rows = Vec::new();
                for way in filter.ways(connection).await? {
                    let mut statement = summaries(filter, way, limit);
                    rows = statement.build().fetch_all(&mut *connection).await?;
                    if rows.len() == limit as usize {
                        break;
                    }
                }
                Ok(rows)
            })
            .await?;
        rows.iter()
            .map(|row| summary(row).map_err(StorageError::from))
            .collect()
    }

    /// Returns whole orders that match `filter`, newest first: at most `limit`, and no more once
    /// they have `bytes` bytes. Erased orders are in no list.
    ///
    /// # Errors
    /// When Postgres does not answer.
    pub async fn list_documents(
        &self,
        filter: &ListFilter,
        limit: u32,
        bytes: usize,
    ) -> Result<Documents, StorageError> {
        let rows = self
            .run("list_documents", async |connection| {
                let mut page = Rows::default();
                for way in filter.ways(connection).await? {
                    page = Rows::read(connection, filter, way, limit, bytes).await?;
                    if page.is_cut || page.rows.len() == limit as usize {
                        break;
                    }
                }
                Ok(page)
            })
            .await?;
        rows.into_documents(limit)
    }
}

/// Rows of whole orders, up to a number of bytes.
#[derive(Default)]
struct Rows {
    rows: Vec<PgRow>,
    /// Whether more rows matched, but would have exceeded the number of bytes.
    is_cut: bool,
}

impl Rows {
    async fn read(
        connection: &mut PgConnection,
        filter: &ListFilter,
        way: Way,
        limit: u32,
        bytes: usize,
    ) -> Result<Self, sqlx::Error> {
        let mut statement = documents(filter, way, limit);
        // The driver discards the rows that are not read here before the next statement.
        let mut stream = statement.build().fetch(connection);
        let (mut page, mut read) = (Self::default(), 0);
        while let Some(row) = stream.try_next().await? {
            if read >= bytes {
                page.is_cut = true;
                break;
            }
            read += size(&row)?;
            page.rows.push(row);
        }
        Ok(page)
    }

    fn into_documents(self, limit: u32) -> Result<Documents, StorageError> {
        let more = self.is_cut || self.rows.len() == limit as usize;
        let last = self.rows.last().filter(|_| more);
        let next = last.map(position).transpose().map_err(StorageError::from)?;
        let documents = self.rows.iter().filter_map(|row| {
            // Erased orders have no document, and are not selected.
            revision(row).map(|revision| revision.document).transpose()
        });
        Ok(Documents {
            documents: documents.collect::<Result<_, _>>()?,
            next,
        })
    }
}

/// Returns the number of bytes of a row, which is about that of its document.
fn size(row: &PgRow) -> Result<usize, sqlx::Error> {
    let columns = (0..row.len()).map(|index| row.try_get_raw(index));
    let sizes = columns.map(|value| Ok(value?.as_bytes().map_or(0, <[u8]>::len)));
    sizes.sum()
}

fn summaries(filter: &ListFilter, way: Way, limit: u32) -> QueryBuilder<Driver> {
    let mut query = QueryBuilder::new(
        "SELECT o.id::int8, o.created_at::timestamptz, o.order_uid::text, o.track_number::text, \
                o.customer_id::text, o.date_created::timestamptz, \
                p.currency::text, p.amount::int8, \
                (SELECT count(*) FROM items WHERE order_id = o.id) AS item_count \
         FROM orders o JOIN payments p ON p.order_id = o.id WHERE o.id = ANY(ARRAY(",
    );
    filter.push_page(&mut query, way, limit);
    query.push("))").push(NEWEST_FIRST);
    query
}

fn documents(filter: &ListFilter, way: Way, limit: u32) -> QueryBuilder<Driver> {
    let position = ", o.id::int8 AS id, o.created_at::timestamptz AS created_at";
    let mut query = QueryBuilder::new(select_revisions(position, "WHERE o.id = ANY(ARRAY("));
    filter.push_page(&mut query, way, limit);
    query.push("))").push(NEWEST_FIRST);
    query
}

fn position(row: &PgRow) -> Result<Position, sqlx::Error> {
    Ok(Position {
        created_at: row.try_get("created_at")?,
        id: row.try_get("id")?,
    })
}

fn summary(row: &PgRow) -> Result<Summary, sqlx::Error> {
    Ok(Summary {
        position: position(row)?,
        order_uid: row.try_get("order_uid")?,
        track_number: row.try_get("track_number")?,
        customer_id: row.try_get("customer_id")?,
        date_created: row.try_get("date_created")?,
        currency: row.try_get("currency")?,
        amount: row.try_get("amount")?,
        item_count: row.try_get("item_count")?,
    })
}

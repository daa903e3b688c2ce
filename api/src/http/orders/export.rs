//! `GET /orders/export`: every order that matches a filter, in pages that are read one after the
//! other while the client receives them.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures_util::stream;
use poem::{
    Body, IntoResponse, Request, Response,
    http::{HeaderMap, HeaderValue, Method, Version, header},
};
use poem_openapi::{
    ApiResponse, OpenApi,
    registry::{MetaMediaType, MetaResponse, MetaResponses, MetaSchema, Registry},
};
use shared::{runtime::backoff::Backoff, storage::ListFilter};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    time::timeout,
};

use super::{
    super::{
        accept, csv,
        disclosed::Disclosed,
        dto::OrderSummary,
        params::{CreatedFrom, CreatedTo, CustomerId, Email, Phone, Query, TrackNumber, period},
        problem::Problem,
        route::{Operation, Resources},
        schema,
    },
    Tag, set_stream_headers,
};
use crate::{
    answer::{Selection, View},
    lookup::{Lookup, LookupError},
};

/// Exports that a replica sends at the same time.
const EXPORTS: usize = 4;

/// Rows of the first page, so that the response begins soon. Each page doubles the rows.
const FIRST_ROWS: u32 = 50;
/// Rows of a page.
const MAX_ROWS: u32 = 500;
/// Bytes after which a page ends, so that the memory of an export does not depend on the orders.
const PAGE_BYTES: usize = 1 << 20;

/// How often a page is read again before the export is aborted.
const RETRIES: u32 = 5;
/// By how much a failed page shrinks: orders with many items take longer to read.
const SHRINK: u32 = 4;

/// Maximum time in which a client takes a page. A client that is slower would keep others from
/// exporting.
const CLIENT: Duration = Duration::from_secs(60);

/// The operation.
pub(in super::super) struct ExportOrders {
    lookup: Lookup,
    slots: Arc<Semaphore>,
}

impl Operation for ExportOrders {
    fn new(resources: &Resources) -> Self {
        Self {
            lookup: resources.lookup.clone(),
            slots: Arc::new(Semaphore::new(EXPORTS)),
        }
    }
}

/// The representation of an export.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    /// A document in each line.
    Ndjson,
    /// A summary in each line.
    Csv,
}

impl Format {
    /// The representations, in the order of preference.
    const ALL: [Self; 2] = [Self::Ndjson, Self::Csv];

    /// Returns the representation that the client prefers.
    fn preferred(headers: &HeaderMap) -> Option<Self> {
        let offered = Self::ALL.map(Self::media_type);
        accept::preferred(headers, &offered).map(|index| Self::ALL[index])
    }

    const fn media_type(self) -> &'static str {
        match self {
            Self::Ndjson => "application/x-ndjson",
            Self::Csv => "text/csv",
        }
    }

    const fn content_type(self) -> HeaderValue {
        HeaderValue::from_static(match self {
            Self::Ndjson => "application/x-ndjson",
            Self::Csv => "text/csv; charset=utf-8; header=present",
        })
    }

    const fn content_disposition(self) -> HeaderValue {
        HeaderValue::from_static(match self {
            Self::Ndjson => "attachment; filename=\"orders.ndjson\"",
            Self::Csv => "attachment; filename=\"orders.csv\"",
        })
    }
}

#[OpenApi]
#[allow(
    clippy::too_many_arguments,
    reason = "an argument is a parameter of the operation"
)]
impl ExportOrders {
    /// Export orders
    ///
    /// Streams all orders that match, newest first by the time they were first stored: whole
    /// documents as `application/x-ndjson` (the default), or summaries as `text/csv`, as the
    /// `Accept` header says. Erased orders, and orders that are stored after the export began, are
    /// not exported. If the export fails in the middle, the response ends without its last chunk,
    /// which an HTTP client reports as an error. A caller that is bound to a customer gets only
    /// orders of that customer: none under another `customer_id`.
    #[oai(
        path = "/orders/export",
        method = "get",
        tag = "Tag::Orders",
        operation_id = "exportOrders"
    )]
    async fn export_orders(
        &self,
        request: &Request,
        view: View,
        /// Exports only orders of this customer; exact match.
        #[oai(name = "customer_id")]
        Query(customer_id): Query<CustomerId>,
        /// Exports only orders with this track number; exact match.
        #[oai(name = "track_number")]
        Query(track_number): Query<TrackNumber>,
        /// Exports only orders that are delivered to this phone number: E.164, with `+` as `%2B`.
        #[oai(name = "phone")]
        Query(phone): Query<Phone>,
        /// Exports only orders that are delivered to this e-mail address; exact match.
        #[oai(name = "email")]
        Query(email): Query<Email>,
        /// Exports only orders that were first stored at this time or later.
        #[oai(name = "created_from")]
        Query(created_from): Query<CreatedFrom>,
        /// Exports only orders that were first stored before this time.
        #[oai(name = "created_to")]
        Query(created_to): Query<CreatedTo>,
    ) -> ExportResponse {
        let [created_from, created_to] = match period(created_from, created_to) {
            Ok(period) => period,
            Err(problem) => return ExportResponse(Err(problem)),
        };
        let filter = ListFilter {
            customer_id: customer_id.0,
            track_number: track_number.0,
            phone: phone.0,
            email: email.0,
            created_from,
            created_to,
            after: None,
        };
        ExportResponse(self.export(request, view, filter).await)
    }
}

impl ExportOrders {
    async fn export(
        &self,
        request: &Request,
        view: View,
        filter: ListFilter,
    ) -> Result<Export, Problem> {
        let selection = view.select(filter)?;
        let format = Format::preferred(request.headers()).ok_or(Problem::NotAcceptable)?;
        if request.version() < Version::HTTP_11 {
            return Err(Problem::BadRequest(
                "An export needs HTTP/1.1, because a response of HTTP/1.0 does not show that it is \
                 incomplete.",
            ));
        }
        if request.method() == Method::HEAD {
            let body = Body::from_bytes_stream(stream::empty::<io::Result<Bytes>>());
            let orders = Arc::default();
            return Ok(Export {
                format,
                body,
                orders,
            });
        }
        let slot = self.slots.clone().try_acquire_owned();
        let slot = slot.map_err(|_| Problem::TooManyExports)?;
        let mut pages = Pages {
            lookup: self.lookup.clone(),
            selection,
            format,
            rows: FIRST_ROWS,
            may_grow: true,
            orders: Arc::default(),
        };
        let orders = pages.orders.clone();
        let first = pages.read().await?;
        let (sender, receiver) = mpsc::channel(1);
        tokio::spawn(pages.send(first, sender, slot));
        let body = body(receiver);
        Ok(Export {
            format,
            body,
            orders,
        })
    }
}

/// A piece of the body; `None` is its end. A channel that closes before is an aborted export.
type Piece = Option<Bytes>;

/// Returns the body, which fails if the export is aborted. Then the connection closes before the
/// last chunk.
fn body(receiver: mpsc::Receiver<Piece>) -> Body {
    let pieces = stream::unfold(Some(receiver), |receiver| async move {
        let mut receiver = receiver?;
        match receiver.recv().await {
            Some(Some(piece)) => Some((Ok(piece), Some(receiver))),
            Some(None) => None,
            None => Some((Err(io::Error::other("export aborted")), None)),
        }
    });
    Body::from_bytes_stream(pieces)
}

/// Reads the pages of an export.
struct Pages {
    lookup: Lookup,
    /// Begins behind the last page.
    selection: Selection,
    format: Format,
    rows: u32,
    /// Whether every page could be read at the first attempt.
    may_grow: bool,
    /// Number of orders so far, for the access log.
    orders: Arc<AtomicU64>,
}

struct Page {
    body: Bytes,
    is_last: bool,
}

impl Pages {
    /// Sends all pages, until the client disconnects.
    async fn send(mut self, first: Page, client: mpsc::Sender<Piece>, _slot: OwnedSemaphorePermit) {
        let mut page = first;
        loop {
            let is_last = page.is_last;
            let end = is_last.then_some(None);
            for piece in [Some(Some(page.body)), end].into_iter().flatten() {
                match timeout(CLIENT, client.send(piece)).await {
                    Ok(Ok(())) => {}
                    Ok(Err(_)) => return,
                    Err(_) => {
                        tracing::warn!(limit = ?CLIENT, "export aborted: client too slow");
                        return;
                    }
                }
            }
            if is_last {
                return;
            }
            let next = tokio::select! {
                biased;
                () = client.closed() => return,
                next = self.read_with_retries() => next,
            };
            page = match next {
                Ok(next) => next,
                Err(error) => {
                    tracing::warn!(%error, attempts = RETRIES + 1, "export aborted");
                    return;
                }
            };
        }
    }

    async fn read_with_retries(&mut self) -> Result<Page, LookupError> {
        let mut backoff = Backoff::default();
        loop {
            match self.read().await {
                Err(_) if backoff.attempts() < RETRIES => {
                    self.rows = (self.rows / SHRINK).max(1);
                    self.may_grow = false;
                    backoff.wait().await;
                }
                page => return page,
            }
        }
    }

    /// Reads the next page.
    async fn read(&mut self) -> Result<Page, LookupError> {
        let (body, count, next) = match self.format {
            Format::Ndjson => {
                let read = self
                    .lookup
                    .export_documents(&self.selection, self.rows, PAGE_BYTES);
                let page = read.await?;
                let count = page.documents.len();
                let mut lines =
                    Vec::with_capacity(page.documents.iter().map(|d| d.size() + 1).sum());
                for document in page.documents {
                    for part in document.slices() {
                        lines.extend_from_slice(part);
                    }
                    lines.push(b'\n');
                }
                (lines, count, page.next)
            }
            Format::Csv => {
                let page = self
                    .lookup
                    .export_summaries(&self.selection, self.rows)
                    .await?;
                let count = page.len();
                let is_full = count == self.rows as usize;
                let next = page.last().filter(|_| is_full).map(|last| last.position);
                let mut lines = Vec::new();
                if self.selection.is_at_start() {
                    csv::push_line(&mut lines, OrderSummary::COLUMNS);
                }
                for summary in page.into_iter().map(OrderSummary::from) {
                    csv::push_line(&mut lines, summary.cells().iter().map(|cell| &**cell));
                }
                (lines, count, next)
            }
        };
        self.orders.fetch_add(count as u64, Ordering::Relaxed);
        self.selection.begin_after(next);
        if self.may_grow {
            self.rows = (self.rows * 2).min(MAX_ROWS);
        }
        Ok(Page {
            body: body.into(),
            is_last: next.is_none(),
        })
    }
}

/// Response to an export request.
pub(super) struct ExportResponse(Result<Export, Problem>);

struct Export {
    format: Format,
    body: Body,
    orders: Arc<AtomicU64>,
}

impl IntoResponse for ExportResponse {
    fn into_response(self) -> Response {
        let Export {
            format,
            body,
            orders,
        } = match self.0 {
            Ok(export) => export,
            Err(problem) => return problem.into_response(),
        };
        let mut response = Response::default();
        response.set_body(body);
        response.extensions_mut().insert(Disclosed::Stream(orders));
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, format.content_type());
        headers.insert(header::CONTENT_DISPOSITION, format.content_disposition());
        set_stream_headers(headers);
        response
    }
}

impl ApiResponse for ExportResponse {
    fn meta() -> MetaResponses {
        let content = Format::ALL.map(|format| MetaMediaType {
            content_type: format.media_type(),
            schema: schema::text(MetaSchema {
                example: Some(schema::export_example(format.media_type())),
                ..MetaSchema::new("string")
            }),
        });
        let text = |name, description| schema::header(name, description, MetaSchema::new("string"));
        let export = MetaResponse {
            description: "The orders, one in each line. CSV begins with a line of column names.",
            status: Some(200),
            status_range: None,
            content: content.into(),
            headers: vec![
                text("Cache-Control", "Nothing may store an export."),
                text("Content-Disposition", "The name of a file for the export."),
            ],
        };
        MetaResponses {
            responses: vec![
                export,
                schema::problem(
                    400,
                    "A parameter is malformed, unknown or repeated (`bad_request`, \
                     `unknown_parameter`, `repeated_parameter`).",
                ),
                schema::problem(403, schema::FORBIDDEN_FILTER),
                schema::problem(
                    406,
                    "The `Accept` header has no media type of this operation (`not_acceptable`).",
                ),
                schema::problem(
                    503,
                    "The database does not answer in time (`unavailable`, `timeout`), or not for \
                     these filters (`list_timeout`), or other exports take all places \
                     (`too_many_exports`).",
                ),
            ],
        }
    }

    fn register(_: &mut Registry) {}
}

#[cfg(test)]
mod tests;

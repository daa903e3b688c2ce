//! `GET /orders`.

use poem::{IntoResponse, Response, http::header};
use poem_openapi::{
    ApiResponse, OpenApi,
    registry::{MetaMediaType, MetaResponse, MetaResponses, Registry},
};
use shared::storage::ListFilter;

use super::{
    super::{
        disclosed::Disclosed,
        dto::OrderList,
        params::{
            CreatedFrom, CreatedTo, Cursor, CustomerId, Email, Limit, Phone, Query, TrackNumber,
            period,
        },
        problem::Problem,
        route::{Operation, Resources},
        schema,
    },
    JSON, Tag, cache_control_header,
};
use crate::{answer::View, lookup::Lookup};

/// The operation.
pub(in super::super) struct ListOrders {
    lookup: Lookup,
}

impl Operation for ListOrders {
    fn new(resources: &Resources) -> Self {
        Self {
            lookup: resources.lookup.clone(),
        }
    }
}

#[OpenApi]
#[allow(
    clippy::too_many_arguments,
    reason = "an argument is a parameter of the operation"
)]
impl ListOrders {
    /// List orders
    ///
    /// Orders come newest first, by the time they were first stored. Erased orders are not listed.
    /// The response has `next_cursor` if there are more orders. A caller that is bound to a
    /// customer gets only orders of that customer: none under another `customer_id`.
    #[oai(
        path = "/orders",
        method = "get",
        operation_id = "listOrders",
        tag = "Tag::Orders"
    )]
    async fn list_orders(
        &self,
        /// Lists only orders of this customer; exact match.
        #[oai(name = "customer_id")]
        Query(customer_id): Query<CustomerId>,
        /// Lists only orders with this track number; exact match.
        #[oai(name = "track_number")]
        Query(track_number): Query<TrackNumber>,
        /// Lists only orders that are delivered to this phone number: E.164, with `+` as `%2B`.
        #[oai(name = "phone")]
        Query(phone): Query<Phone>,
        /// Lists only orders that are delivered to this e-mail address; exact match.
        #[oai(name = "email")]
        Query(email): Query<Email>,
        /// Lists only orders that were first stored at this time or later.
        #[oai(name = "created_from")]
        Query(created_from): Query<CreatedFrom>,
        /// Lists only orders that were first stored before this time.
        #[oai(name = "created_to")]
        Query(created_to): Query<CreatedTo>,
        /// Maximum number of orders in the page.
        #[oai(name = "limit")]
        Query(limit): Query<Limit>,
        /// The `next_cursor` of the previous page, unchanged.
        #[oai(name = "cursor")]
        Query(cursor): Query<Cursor>,
        view: View,
    ) -> ListResponse {
        let [created_from, created_to] = match period(created_from, created_to) {
            Ok(period) => period,
            Err(problem) => return ListResponse::Problem(problem),
        };
        let filter = ListFilter {
            customer_id: customer_id.0,
            track_number: track_number.0,
            phone: phone.0,
            email: email.0,
            created_from,
            created_to,
            after: cursor.0,
        };
        match self.page(filter, limit.0, view).await {
            Ok(page) => ListResponse::Page(page),
            Err(problem) => ListResponse::Problem(problem),
        }
    }
}

impl ListOrders {
    async fn page(&self, filter: ListFilter, limit: u32, view: View) -> Result<OrderList, Problem> {
        let selection = view.select(filter)?;
        // One order more than requested shows whether there is a next page.
        let orders = self.lookup.show_list(&selection, limit + 1).await?;
        Ok(OrderList::page(orders, limit as usize))
    }
}

/// Response to a list request.
pub(super) enum ListResponse {
    Page(OrderList),
    Problem(Problem),
}

impl IntoResponse for ListResponse {
    fn into_response(self) -> Response {
        let page = match self {
            Self::Page(page) => match serde_json::to_vec(&page) {
                Ok(body) => Ok((body, page.uids())),
                Err(error) => {
                    tracing::error!(%error, "serializing a list failed");
                    Err(Problem::Internal)
                }
            },
            Self::Problem(problem) => Err(problem),
        };
        match page {
            Ok((body, uids)) => {
                let mut response = Response::default();
                response.set_body(body);
                response.extensions_mut().insert(Disclosed::Orders(uids));
                response.headers_mut().insert(header::CONTENT_TYPE, JSON);
                response
            }
            Err(problem) => problem.into_response(),
        }
    }
}

impl ApiResponse for ListResponse {
    fn meta() -> MetaResponses {
        let page = MetaResponse {
            description: "A page of orders.",
            status: Some(200),
            status_range: None,
            content: vec![MetaMediaType {
                content_type: "application/json",
                schema: schema::list(),
            }],
            headers: vec![cache_control_header()],
        };
        MetaResponses {
            responses: vec![
                page,
                schema::problem(
                    400,
                    "A parameter is malformed, unknown or repeated (`invalid_limit`, \
                     `invalid_cursor`, `bad_request`, `unknown_parameter`, `repeated_parameter`).",
                ),
                schema::problem(403, schema::FORBIDDEN_FILTER),
                schema::problem(
                    503,
                    "The database does not answer in time (`unavailable`, `timeout`), or not for \
                     these filters (`list_timeout`).",
                ),
            ],
        }
    }

    fn register(registry: &mut Registry) {
        schema::register_list(registry);
    }
}

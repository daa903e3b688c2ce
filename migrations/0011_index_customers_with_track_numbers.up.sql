-- no-transaction
-- GET /orders?customer_id=&track_number=: a page of both filters reads only index entries of the customer, not the rows.
CREATE INDEX CONCURRENTLY IF NOT EXISTS idx_orders_customer_track_number
    ON orders (customer_id, created_at DESC, id DESC, track_number) WHERE erased_at IS NULL;

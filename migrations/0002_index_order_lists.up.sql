-- GET /orders: newest first, by customer, by track number. Erased orders are in no list.
CREATE INDEX idx_orders_newest ON orders (created_at DESC, id DESC) WHERE erased_at IS NULL;
CREATE INDEX idx_orders_customer ON orders (customer_id, created_at DESC, id DESC) WHERE erased_at IS NULL;
CREATE INDEX idx_orders_track_number ON orders (track_number, created_at DESC, id DESC) WHERE erased_at IS NULL;

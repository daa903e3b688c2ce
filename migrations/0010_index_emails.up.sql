-- no-transaction
-- GET /orders?email=, like the index of 0008.
CREATE INDEX CONCURRENTLY IF NOT EXISTS idx_deliveries_email ON deliveries (email);

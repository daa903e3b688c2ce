-- no-transaction
-- GET /orders?phone=. Built without blocking writes, which a transaction would not allow: one statement for each file.
CREATE INDEX CONCURRENTLY IF NOT EXISTS idx_deliveries_phone ON deliveries (phone);

-- no-transaction
-- The index of 0011 serves GET /orders?customer_id= as well.
DROP INDEX CONCURRENTLY IF EXISTS idx_orders_customer;

DROP INDEX idx_orders_updated_at;
DROP TABLE cache_repairs;

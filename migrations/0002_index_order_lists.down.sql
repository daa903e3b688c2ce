DROP INDEX idx_orders_track_number;
DROP INDEX idx_orders_customer;
DROP INDEX idx_orders_newest;

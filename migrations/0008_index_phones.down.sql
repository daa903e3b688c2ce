DROP INDEX idx_deliveries_phone;

DROP INDEX idx_deliveries_email;

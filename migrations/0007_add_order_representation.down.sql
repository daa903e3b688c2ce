ALTER TABLE orders DROP COLUMN representation;

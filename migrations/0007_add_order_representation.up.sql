-- The shape of the document that the last writer of a row knew. During a rolling upgrade, an older worker may replace a
-- row without changing a column that it does not know; readers then ignore that column. A constant default rewrites no row.
ALTER TABLE orders ADD COLUMN representation SMALLINT NOT NULL DEFAULT 1;

-- Orders whose write to Redis failed or was refused. A worker repairs and removes them; `mark` tells a mark that was set
-- anew during a repair from the one that was repaired.
CREATE TABLE cache_repairs (
    order_uid TEXT        PRIMARY KEY,
    mark      BIGINT      GENERATED ALWAYS AS IDENTITY UNIQUE,
    marked_at TIMESTAMPTZ NOT NULL DEFAULT now()
);

CREATE INDEX idx_cache_repairs_marked_at ON cache_repairs (marked_at);

-- Which orders changed since a moment: asked only when Redis comes back with older content. A block range index costs an
-- insert next to nothing.
CREATE INDEX idx_orders_updated_at ON orders USING brin (updated_at) WITH (pages_per_range = 16, autosummarize = on);

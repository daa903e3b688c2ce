-- How a worker last saw Redis when it was complete: up to which moment, and which server processes answered. A worker that
-- starts compares, and repairs only what Redis has lost since. One row at most.
CREATE TABLE complete_cache (
    only_row       BOOLEAN     PRIMARY KEY DEFAULT true CHECK (only_row),
    complete_until TIMESTAMPTZ NOT NULL,
    servers        TEXT[]      NOT NULL
);

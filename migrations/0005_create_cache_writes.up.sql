-- Writes to Redis that are under way: which orders a transaction has replaced, until Redis has learnt of it. What stands
-- here for longer was left behind by a worker that died, or stands still, between COMMIT and its write. A row for each
-- transaction, so that two of them never wait for each other here.
CREATE TABLE cache_writes (
    id         BIGINT      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    order_uids TEXT[]      NOT NULL,
    started_at TIMESTAMPTZ NOT NULL DEFAULT clock_timestamp()
);

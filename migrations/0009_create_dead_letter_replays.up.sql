-- The dead letters that `worker dead-letters` sent back: their place in the dead letter topic, and no data of the order. A
-- recreated topic uses its offsets again, so a row counts only for the record with the same timestamp.
CREATE TABLE dead_letter_replays (
    topic         TEXT        NOT NULL,
    partition     INT         NOT NULL,
    record_offset BIGINT      NOT NULL,
    timestamp_ms  BIGINT      NOT NULL,
    as_new        BOOLEAN     NOT NULL,
    replayed_at   TIMESTAMPTZ NOT NULL DEFAULT now(),
    PRIMARY KEY (topic, partition, record_offset)
);

-- The order in four tables. An order's version is where its record stood in Kafka: (timestamp, offset, partition).

CREATE TABLE orders (
    id                  BIGSERIAL   PRIMARY KEY,
    order_uid           TEXT        NOT NULL,
    track_number        TEXT        NOT NULL,
    entry               TEXT        NOT NULL,
    locale              TEXT        NOT NULL,
    internal_signature  TEXT        NOT NULL,
    customer_id         TEXT        NOT NULL,
    delivery_service    TEXT        NOT NULL,
    shard_key           TEXT        NOT NULL,
    sm_id               INTEGER     NOT NULL,
    date_created        TIMESTAMPTZ NOT NULL,
    oof_shard           TEXT        NOT NULL,
    source_timestamp_ms BIGINT      NOT NULL,
    source_offset       BIGINT      NOT NULL,
    source_partition    INTEGER     NOT NULL,
    -- Set while the newest version is an erasure: uid and version stay, every other column is blank.
    erased_at           TIMESTAMPTZ,
    created_at          TIMESTAMPTZ NOT NULL DEFAULT now(),
    updated_at          TIMESTAMPTZ NOT NULL DEFAULT now()
);

CREATE UNIQUE INDEX idx_orders_order_uid ON orders (order_uid);

CREATE TABLE deliveries (
    order_id BIGINT PRIMARY KEY REFERENCES orders (id) ON DELETE CASCADE,
    name     TEXT NOT NULL,
    phone    TEXT NOT NULL,
    zip      TEXT NOT NULL,
    city     TEXT NOT NULL,
    address  TEXT NOT NULL,
    region   TEXT NOT NULL,
    email    TEXT NOT NULL
);

-- Money is in minor units of the currency.
CREATE TABLE payments (
    order_id      BIGINT PRIMARY KEY REFERENCES orders (id) ON DELETE CASCADE,
    transaction   TEXT       NOT NULL,
    request_id    TEXT       NOT NULL,
    currency      VARCHAR(3) NOT NULL,
    provider      TEXT       NOT NULL,
    amount        BIGINT     NOT NULL,
    payment_dt    BIGINT     NOT NULL,
    bank          TEXT       NOT NULL,
    delivery_cost BIGINT     NOT NULL,
    goods_total   BIGINT     NOT NULL,
    custom_fee    BIGINT     NOT NULL
);

-- The key keeps the order of the lines and spares a second index.
CREATE TABLE items (
    order_id     BIGINT  NOT NULL REFERENCES orders (id) ON DELETE CASCADE,
    line_no      INTEGER NOT NULL,
    chrt_id      BIGINT  NOT NULL,
    track_number TEXT    NOT NULL,
    price        BIGINT  NOT NULL,
    rid          TEXT    NOT NULL,
    name         TEXT    NOT NULL,
    sale         INTEGER NOT NULL,
    size         TEXT    NOT NULL,
    total_price  BIGINT  NOT NULL,
    nm_id        BIGINT  NOT NULL,
    brand        TEXT    NOT NULL,
    status       INTEGER NOT NULL,
    PRIMARY KEY (order_id, line_no)
);

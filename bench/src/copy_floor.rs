//! The floor of ingest: one connection that only copies ready-made rows into the four tables.

use std::{pin::pin, time::Duration};

use anyhow::Context;
use bytes::{Bytes, BytesMut};
use futures_util::{SinkExt, TryStreamExt};
use tokio_postgres::{Client, NoTls};

use crate::cpu::cpu_time;

/// Transaction size of the floor, large enough to be fast without more memory than a worker uses.
pub(crate) const ORDERS_PER_TRANSACTION: usize = 1000;

/// The tables in the order of their foreign keys. Each has the column of the order id and the
/// columns that the worker also writes; all other columns have defaults.
pub(crate) const TABLES: [(&str, &str, &str); 4] = [
    (
        "orders",
        "id",
        "id, order_uid, track_number, entry, locale, internal_signature, customer_id, \
         delivery_service, shard_key, sm_id, date_created, oof_shard, source_timestamp_ms, \
         source_offset, source_partition",
    ),
    (
        "deliveries",
        "order_id",
        "order_id, name, phone, zip, city, address, region, email",
    ),
    (
        "payments",
        "order_id",
        "order_id, transaction, request_id, currency, provider, amount, payment_dt, bank, \
         delivery_cost, goods_total, custom_fee",
    ),
    (
        "items",
        "order_id",
        "order_id, line_no, chrt_id, track_number, price, rid, name, sale, size, total_price, \
         nm_id, brand, status",
    ),
];

/// Rows of one transaction, one buffer per table.
pub(crate) type Chunk = [Bytes; TABLES.len()];

/// Connects to Postgres and spawns the connection on the runtime.
pub(crate) async fn connect(url: &str) -> anyhow::Result<Client> {
    let (client, connection) = tokio_postgres::connect(url, NoTls)
        .await
        .context("connecting to Postgres")?;
    tokio::spawn(connection);
    Ok(client)
}

/// Reads all orders of a database in the format of binary `COPY`.
pub(crate) async fn rows_of(url: &str) -> anyhow::Result<Vec<Chunk>> {
    let client = connect(url).await?;
    let ids: Vec<i64> = client
        .query("SELECT id FROM orders ORDER BY id", &[])
        .await?
        .iter()
        .map(|row| row.get(0))
        .collect();
    let mut chunks = Vec::new();
    for ids in ids.chunks(ORDERS_PER_TRANSACTION) {
        let (first, last) = (ids[0], ids[ids.len() - 1]);
        let mut chunk = Chunk::default();
        for (rows, (table, id, columns)) in chunk.iter_mut().zip(TABLES) {
            let statement = format!(
                "COPY (SELECT {columns} FROM {table} WHERE {id} BETWEEN {first} \
                 AND {last} ORDER BY 1, 2) TO STDOUT (FORMAT binary)"
            );
            let stream = client.copy_out(&statement).await?;
            let bytes: BytesMut = stream.try_collect().await?;
            *rows = bytes.freeze();
        }
        chunks.push(chunk);
    }
    Ok(chunks)
}

/// Copies `chunks` into the tables. Returns the CPU time of the Postgres backend.
pub(crate) async fn copy(url: &str, chunks: &[Chunk]) -> anyhow::Result<Duration> {
    let client = connect(url).await?;
    let pid: i32 = client
        .query_one("SELECT pg_backend_pid()", &[])
        .await?
        .get(0);
    let before = cpu_time(pid as u32)?;
    for chunk in chunks {
        client.batch_execute("BEGIN").await?;
        for (rows, (table, _, columns)) in chunk.iter().zip(TABLES) {
            let statement = format!("COPY {table} ({columns}) FROM STDIN (FORMAT binary)");
            let mut sink = pin!(client.copy_in::<_, Bytes>(&statement).await?);
            sink.send(rows.clone()).await?;
            sink.finish().await?;
        }
        client.batch_execute("COMMIT").await?;
    }
    Ok(cpu_time(pid as u32)? - before)
}

// Uses the generated TypeScript client against a running api. `scripts/clients-test` runs it.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { EventSourceParserStream, type EventSourceMessage } from "eventsource-parser/stream";
import createClient from "openapi-fetch";
import type { components, paths } from "../../../clients/typescript/orders.js";
import { parseExact } from "./integers.js";

type Order = components["schemas"]["Order"];
type OrderBatch = components["schemas"]["OrderBatch"];

interface Expected {
  steady: [Order, Order, Order, ...Order[]];
  changing: string;
  erased: string;
  customer_id: string;
}

const { API_URL: baseUrl, ORDERS_FILE: file } = process.env;
assert(baseUrl && file, "API_URL and ORDERS_FILE are not set; run scripts/clients-test");
const expected: Expected = parseExact(readFileSync(file, "utf8"));
const client = createClient<paths>({ baseUrl });

async function getsAnOrder(): Promise<string> {
  const [order] = expected.steady;
  const path = { order_uid: order.order_uid };
  // As text: `JSON.parse` would round the amount.
  const { data } = await client.GET("/order/{order_uid}", { params: { path }, parseAs: "text" });
  assert(data !== undefined);
  const found = parseExact<Order>(data);
  assert.deepEqual(found, order);
  assert.equal(typeof found.payment.amount, "bigint");
  return `amount ${found.payment.amount}, ${found.items.length} items`;
}

async function getsATypedError(): Promise<string> {
  const wanted = [
    ["unknown", 404, "order_not_found"],
    [expected.erased, 410, "order_erased"],
    ["not a uid", 400, "malformed_uid"],
  ] as const;
  const codes: string[] = [];
  for (const [order_uid, status, code] of wanted) {
    const { error, response } = await client.GET("/order/{order_uid}", { params: { path: { order_uid } } });
    assert.equal(response.status, status);
    assert(error !== undefined);
    assert.equal(error.code, code);
    assert.equal(error.status, status);
    codes.push(`${error.status} ${error.code}`);
  }
  return codes.join(", ");
}

async function revalidatesACopy(): Promise<string> {
  const path = { order_uid: expected.steady[1].order_uid };
  const first = await client.GET("/order/{order_uid}", { params: { path } });
  const etag = first.response.headers.get("ETag");
  assert(etag);
  const again = await client.GET("/order/{order_uid}", {
    params: { path, header: { "If-None-Match": etag } },
  });
  assert.equal(again.response.status, 304);
  assert.equal(again.data, undefined);
  return `304 for ${etag}`;
}

async function readsAllPages(): Promise<string> {
  const uids: string[] = [];
  let pages = 0;
  let cursor: string | undefined;
  do {
    const query = { customer_id: expected.customer_id, limit: 10, ...(cursor ? { cursor } : {}) };
    const { data } = await client.GET("/orders", { params: { query } });
    assert(data !== undefined);
    uids.push(...data.orders.map((order) => order.order_uid));
    cursor = data.next_cursor;
    pages += 1;
  } while (cursor);
  const wanted = [...expected.steady.map((order) => order.order_uid), expected.changing];
  assert.deepEqual(uids.toSorted(), wanted.toSorted());
  return `${uids.length} orders in ${pages} pages`;
}

async function getsABatch(): Promise<string> {
  const wanted = expected.steady.slice(0, 3);
  const uids = wanted.map((order) => order.order_uid);
  const { data } = await client.POST("/orders/batch-get", {
    body: { order_uids: [...uids, "unknown", expected.erased, uids[0] ?? ""] },
    parseAs: "text",
  });
  assert(data !== undefined);
  const { orders, missing, erased } = parseExact<OrderBatch>(data);
  assert.deepEqual(orders, wanted);
  assert.deepEqual([missing, erased], [["unknown"], [expected.erased]]);
  const { error } = await client.POST("/orders/batch-get", { body: { order_uids: ["a", "b c"] } });
  assert.match(error?.detail ?? "", /order_uids\[1\]/);
  return `${orders.length} orders, missing ${missing}, ${erased.length} erased`;
}

async function exports(): Promise<string> {
  const query = { customer_id: expected.customer_id };
  const ndjson = await client.GET("/orders/export", {
    params: { query },
    headers: { Accept: "application/x-ndjson" },
    parseAs: "text",
  });
  assert(ndjson.data !== undefined);
  const lines = ndjson.data.trimEnd().split("\n").map((line) => parseExact<Order>(line));
  const orders = new Map(lines.map((order) => [order.order_uid, order]));
  assert.equal(orders.size, expected.steady.length + 1);
  for (const order of expected.steady) assert.deepEqual(orders.get(order.order_uid), order);
  const csv = await client.GET("/orders/export", {
    params: { query },
    headers: { Accept: "text/csv" },
    parseAs: "text",
  });
  const rows = csv.data?.trimEnd().split("\n").length;
  assert.equal(rows, expected.steady.length + 2);
  return `${lines.length} documents, ${rows} lines of CSV`;
}

/** Returns the events of a stream until `wanted` of them are read, then closes the stream. */
async function events(
  body: ReadableStream<Uint8Array<ArrayBuffer>> | null | undefined,
  wanted: number,
  accepts: (event: EventSourceMessage) => boolean,
): Promise<EventSourceMessage[]> {
  assert(body);
  const found: EventSourceMessage[] = [];
  const stream = body.pipeThrough(new TextDecoderStream()).pipeThrough(new EventSourceParserStream());
  for await (const event of stream) {
    if (accepts(event)) found.push(event);
    if (found.length === wanted) break;
  }
  assert.equal(found.length, wanted, "the stream ended");
  return found;
}

async function watchesAnOrder(): Promise<string> {
  const path = { order_uid: expected.changing };
  const { data } = await client.GET("/order/{order_uid}/events", { params: { path }, parseAs: "stream" });
  const found = await events(data, 3, () => true);
  assert.deepEqual(new Set(found.map((event) => event.event)), new Set(["order"]));
  const versions = found.map((event) => event.id ?? "");
  assert.deepEqual(versions, [...new Set(versions)].toSorted());
  const carriers = found.map((event) => parseExact<Order>(event.data).delivery_service);
  return `${carriers.join(", ")}, versions ascend`;
}

async function watchesAllOrders(): Promise<string> {
  const { data } = await client.GET("/orders/events", { parseAs: "stream" });
  const changes = await events(
    data,
    2,
    (event) => event.event === "change" && event.data.includes(expected.changing),
  );
  return `${changes.length} changes of one order`;
}

for (const check of [
  getsAnOrder,
  getsATypedError,
  revalidatesACopy,
  readsAllPages,
  getsABatch,
  exports,
  watchesAnOrder,
  watchesAllOrders,
]) {
  console.log(`typescript: ${check.name}: ${await check()}`);
}

// Orders that the tests send, made from the sample order of the contract.

import { readFileSync } from "node:fs";

const model = JSON.parse(readFileSync(new URL("../fixtures/model.json", import.meta.url), "utf8"));

/** An order with that uid. `changes` are merged into the sample: `{payment: {amount: 1}}` changes one field. */
export function order(order_uid, changes = {}) {
  const { delivery, payment, items, ...fields } = changes;
  const track_number = fields.track_number ?? `TRACK-${order_uid}`.slice(0, 64);
  return {
    ...structuredClone(model),
    order_uid,
    track_number,
    // No two tests share a customer, so each finds only its own orders.
    customer_id: `customer-of-${order_uid}`,
    ...fields,
    delivery: { ...model.delivery, email: `${order_uid}@example.com`.toLowerCase(), ...delivery },
    payment: { ...model.payment, transaction: order_uid, ...payment },
    items: items ?? [{ ...model.items[0], track_number, rid: `rid-${order_uid}`.slice(0, 64) }],
  };
}

/** `count` items with names, sizes and prices that differ. */
export const manyItems = (count, track_number) => Array.from({ length: count }, (_, i) => ({
  ...model.items[0], track_number, chrt_id: 100_000 + i, nm_id: 200_000 + i, rid: `rid${i}x`, name: `Article ${i}`, size: String(i % 50),
}));

/** The greatest values and the longest texts that the rules allow. */
export function greatest(order_uid) {
  const long = (length, word = "Wide ") => word.repeat(length / word.length + 1).slice(0, length - 1) + "x";
  // 2^63 - 1, as text: a JavaScript number would round it.
  const max = "9223372036854775807";
  const whole = order(order_uid.padEnd(64, "W"), {
    track_number: "T".repeat(64), customer_id: `customer ${"W".repeat(60)}`, entry: long(60),
    delivery: { name: long(120), city: long(90), address: long(200), region: "R".repeat(80), phone: "+123456789012345", email: `${"e".repeat(60)}@${"d".repeat(60)}.example.com` },
    payment: { request_id: "q".repeat(64), provider: long(70), bank: "B".repeat(70) },
  });
  const item = { ...whole.items[0], name: long(120), brand: "B".repeat(70), size: "XXXXXXXXXL long", rid: "r".repeat(64) };
  whole.items = [item, { ...item, name: "Short", rid: "s".repeat(64), track_number: "other" }];
  whole.payment.amount = whole.payment.goods_total = whole.payment.delivery_cost = "MAX";
  whole.items.forEach((one) => Object.assign(one, { price: "MAX", total_price: "MAX", nm_id: "MAX", chrt_id: "MAX" }));
  return { uid: whole.order_uid, json: JSON.stringify(whole).replaceAll('"MAX"', max) };
}

/** Texts in Arabic and Hebrew, with a Latin brand and punctuation at their ends. */
export const rightToLeft = (order_uid) => order(order_uid, {
  customer_id: "عميل-١٢ (VIP)",
  delivery: { name: "محمد عبد الله!", city: "תל אביב (מרכז)", address: "شارع الملك فهد 12, شقة 4", region: "الرياض" },
  items: [{ ...order(order_uid).items[0], name: "قميص XL (قطن)", brand: "Nordkapp" }],
});

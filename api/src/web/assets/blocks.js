// The blocks of an order: delivery, payment, details, raw JSON.

import { code, copyButton, h, own } from "./dom.js";
import { amount, language, money, unixTime, versionFacts } from "./format.js";
import { indent, integer, sum } from "./json.js";
import { listAddress, searchAddress } from "./address.js";

/** A description list of [name, value, class]; an empty value shows as a dash. */
const facts = (block, pairs, name) => h("dl", { class: name }, pairs.map(([term, value, kind]) => [
  h("dt", {}, term),
  h("dd", { class: kind, "data-key": `${block}/${term}` },
    typeof value === "string" || value === undefined ? own(value) || "—" : value),
]));

const card = (title, ...content) => h("section", { class: "card" }, h("h2", {}, title), content);

/** In place of a masked value, which must not be taken for the customer's. */
const hidden = () => h("span", { class: "muted" }, "Hidden");

/** `masked` states that the token may not see personal data. */
export function deliveryCard({ delivery = {}, delivery_service, track_number }, masked) {
  const { city, region } = delivery;
  if (masked) {
    return card("Delivery",
      h("p", { class: "muted" }, "Your token may not see personal data. Its operator can add the scope ", code("orders:pii"), "."),
      facts("delivery", [
        ...["Name", "Phone", "E-mail", "Address"].map((term) => [term, hidden()]),
        ["City", city],
        ["Region", region],
        ["Zip", hidden()],
        ["Service", delivery_service],
        ["Track no.", track_number, "mono"],
      ]));
  }
  const { name, phone, email, address, zip } = delivery;
  const other = (value, what) => h("a", { class: "more", href: searchAddress(value), title: `Orders with this ${what}` }, "orders");
  return card("Delivery", h("p", { class: "person", "data-key": "delivery/name" }, own(name) || "—"), facts("delivery", [
    ["Phone", phone && h("span", {}, h("a", { href: `tel:${phone}`, dir: "ltr" }, phone), " ", other(phone, "phone number"))],
    ["E-mail", email && h("span", {}, h("a", { href: `mailto:${encodeURIComponent(email)}` }, h("bdi", { dir: "auto" }, email.split(/(?=@)/).flatMap((part, i) => (i ? [h("wbr"), part] : [part])))), " ", other(email, "e-mail address"))],
    ["Address", address],
    ["City", city],
    ["Region", region],
    ["Zip", zip],
    ["Service", delivery_service],
    ["Track no.", track_number, "mono"],
  ]));
}

export function paymentCard({ payment = {}, items = [] }) {
  const { currency, amount: paid, goods_total, delivery_cost, custom_fee } = payment;
  const check = (what, is, should) => is !== integer(should) && h("p", { class: "check" }, `${what} add up to ${money(is, currency)}.`);
  const part = (value) => h("span", {}, amount(value, currency, false));
  return card("Payment",
    facts("payment", [
      ["Goods", part(goods_total)],
      ["Delivery", part(delivery_cost)],
      ["Customs fee", part(custom_fee)],
      ["Paid", h("span", {}, amount(paid, currency))],
    ], "money"),
    check("The items", sum(items.map((item) => item.total_price)), goods_total),
    check("Goods, delivery and fee", sum([goods_total, delivery_cost, custom_fee]), paid),
    h("hr"),
    facts("payment", [
      ["Paid at", unixTime(payment.payment_dt)],
      ["Provider", payment.provider],
      ["Bank", payment.bank],
      ["Transaction", payment.transaction, "mono"],
      ["Request", payment.request_id, "mono"],
    ]));
}

export function detailsCard(order, etag) {
  const { customer_id } = order;
  return card("Details",
    facts("details", [
      ["Customer", customer_id && h("a", { href: listAddress({ customer_id }), title: "Orders of this customer" }, own(customer_id))],
      ["Language", order.locale && language(order.locale)],
      ["Entry", order.entry],
      ["Signature", order.internal_signature, "mono"],
      ["Shard key", order.shardkey],
      ["OOF shard", order.oof_shard],
      ["SM id", String(order.sm_id)],
    ]),
    h("hr"),
    facts("version", versionFacts(etag)));
}

/** `view.raw` keeps whether it is open. */
export function rawCard(text, view) {
  const pre = h("pre", { tabindex: "0", "aria-label": "Raw JSON", role: "region", "data-focus": "raw" });
  const fill = ({ currentTarget }) => {
    view.raw = currentTarget.open;
    pre.textContent ||= view.raw ? indent(text) : "";
  };
  return h("details", { class: "card flush", id: "raw", ontoggle: fill, open: view.raw && "" },
    h("summary", { "data-focus": "raw-summary" }, "Raw JSON"),
    copyButton("Copy", () => text, { "aria-label": "Copy the JSON as it came" }), pre);
}

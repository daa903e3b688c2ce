// Rows of listed orders.

import { orderAddress } from "./address.js";
import { h, own } from "./dom.js";
import { amount, time } from "./format.js";
import { row, table } from "./table.js";

const HEAD = [["Order"], ["Received"], ["Track number"], ["Customer"], ["Items", "n"], ["Paid", "n last"]];

/** The uid of the order that is open. */
let current;

/** The fields of an order that a list has. */
export const asListed = (order) => ({
  ...order, amount: order.payment?.amount, currency: order.payment?.currency, item_count: order.items?.length,
});

/** A row of a listed order, with its uid in `data-uid`. */
export function orderRow(order) {
  const key = (name) => `${order.order_uid}/${name}`;
  return row([
    [h("a", { class: "mono", href: orderAddress(order.order_uid), "aria-current": order.order_uid === current && "page" }, order.order_uid)],
    [time(order.created_at ?? order.date_created), "muted"],
    [order.track_number, "mono", "Track", key("track")],
    [own(order.customer_id), "", "Customer", key("customer")],
    [String(order.item_count ?? "—"), "n", "Items", key("items")],
    [order.amount === undefined ? "—" : amount(order.amount, order.currency), "n last", undefined, key("paid")],
  ], { "data-uid": order.order_uid });
}

/** A table of listed orders. */
export function orderTable(label, orders) {
  const whole = table("rows", label, HEAD, orders.map(orderRow));
  // The whole row is a target for the mouse. Keyboards and screen readers use the link in it.
  whole.addEventListener("click", (event) => {
    const link = event.target.closest("a") ? null : event.target.closest("tbody tr")?.querySelector("a");
    if (link && !String(getSelection())) location.hash = link.hash;
  });
  return whole;
}

/** Marks the rows of the order that is open. */
export function markRow(uid) {
  current = uid;
  for (const line of document.querySelectorAll(".rows [data-uid]")) {
    line.querySelector("a").ariaCurrent = line.dataset.uid === uid ? "page" : null;
  }
}

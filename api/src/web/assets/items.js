// The items of an order: up to 1000, collapsed and searchable.

import { announce, button, h, own, plural } from "./dom.js";
import { amount } from "./format.js";
import { sum } from "./json.js";
import { status } from "./statuses.js";
import { row, table } from "./table.js";

/** Items that a collapsed table shows. */
const SHORT = 20;

const HEAD = [["Item"], ["Article"], ["Size"], ["Status"], ["Price", "n"], ["Sale", "n"], ["Total", "n last"]];

const words = (item) => [item.name, item.brand, item.nm_id, item.chrt_id, item.rid, item.size, item.track_number,
  status(item.status)].join("\n").toLowerCase();

const sub = (content) => h("span", { class: "sub" }, content);

function itemRow(item, { track_number }, currency) {
  const key = (name) => `item/${item.rid}/${name}`;
  return row([
    [[own(item.name), sub(own(item.brand))], "wide", undefined, key("name")],
    [[String(item.nm_id), sub(`chrt ${item.chrt_id}`), sub(`rid ${item.rid}`),
      // Shown only if the line has another parcel than the order.
      item.track_number !== track_number && sub(`track ${item.track_number}`)], "wide", undefined, key("article")],
    [own(item.size), "", "Size", key("size")],
    [status(item.status), "", "Status", key("status")],
    [amount(item.price, currency, false), "n", "Price", key("price")],
    [`${item.sale} %`, "n", "Sale", key("sale")],
    [amount(item.total_price, currency, false), "n last", "Total", key("total")],
  ]);
}

/** "3 items · 2 × status 200 · 1 × status 202" */
export function summary(items) {
  const statuses = new Map();
  for (const item of items) statuses.set(status(item.status), (statuses.get(status(item.status)) ?? 0) + 1);
  const parts = [...statuses].map(([value, n]) => `${statuses.size > 1 ? `${n} × ` : ""}status ${value}`);
  return `${[plural(items.length, "item"), ...parts.slice(0, 6)].join(" · ")}${parts.length > 6 ? " …" : ""}`;
}

/** The card of the items. `view` ({query, all}) keeps what the reader chose while the order changes. */
export function itemsCard(order, view) {
  const { items = [], payment: { currency } = {} } = order;
  const place = h("div", {});
  const count = h("span", { class: "muted" });
  const more = button("", () => { view.all = !view.all; fill(); more.focus(); }, { "data-focus": "more-items" });

  function fill() {
    const query = (view.query ?? "").trim().toLowerCase();
    const found = query ? items.filter((item) => words(item).includes(query)) : items;
    const shown = view.all ? found : found.slice(0, SHORT);
    count.textContent = query ? `${found.length} of ${plural(items.length, "item")}` : plural(items.length, "item");
    more.hidden = found.length <= SHORT;
    more.textContent = view.all ? `Show the first ${SHORT} only` : `Show all ${found.length} items`;
    const total = sum(found.map((item) => item.total_price));
    const label = query ? `${plural(found.length, "item")} found` : plural(items.length, "item");
    place.replaceChildren(found.length === 0 ? h("p", { class: "pad muted" }, "No item matches.")
      : table("items", "Items", HEAD, shown.map((item) => itemRow(item, order, currency)),
        row([[label], [], [], [], [], [], [amount(total, currency), "n last", "", query ? undefined : "items/total"]])));
  }

  const search = items.length > 5 && h("input", {
    type: "search", class: "find", placeholder: "Search items", "aria-label": "Search items", "data-focus": "find-items", dir: "auto",
    oninput: ({ target }) => { view.query = target.value; fill(); announce(count.textContent); },
  });
  if (search) search.value = view.query ?? "";
  fill();
  return h("section", { class: "card flush", id: "items", "aria-labelledby": "items-title" },
    h("div", { class: "head" },
      h("h2", { id: "items-title" }, "Items", currency && h("span", { class: "muted" }, ` in ${currency}`)), search, count),
    place, h("div", { class: "pad under" }, more));
}

// The newest orders, filtered. The list follows the announcements of changes without moving what is being read.

import { apiFilter, go, listAddress } from "./address.js";
import { Problem, curl, get, listPath, orderPath } from "./api.js";
import { saveAll, saveShown } from "./csv.js";
import { $, announce, copyButton, h, plural } from "./dom.js";
import { fillFilters, readFilters } from "./filters.js";
import { stringify } from "./json.js";
import { follow, unfollow } from "./live.js";
import { replaceMarked } from "./marks.js";
import { Region, explain } from "./region.js";
import { asListed, orderRow, orderTable } from "./rows.js";

const LIMIT = 20;
/** Time between a change and the look at the list, so that one look sees a batch of changes. */
const SETTLE_MS = 300;
/** Shortest time between two looks while orders change. */
const LOOK_MS = 2000;
/** Rows below the first page that one look reads again. */
const REREAD = 5;

const list = new Region($("list"), "h3");
let filter = {};
/** The loaded orders by uid, in the order of the list. */
let orders = new Map();
let body;
let next;
/** Orders that were stored since the list was loaded. */
let unseen = new Set();
let unseenMore = false;
let changed = new Set();
let timer;
let lastLook = 0;

const path = (more) => listPath({ limit: LIMIT, ...apiFilter(filter), ...more });

function failed(problem) {
  if (problem.status === 400) {
    return { tone: "warn", title: "The service rejects this filter", text: "Correct the value in the form, then filter again.", final: true };
  }
  if (!mayNotList(problem)) return explain(problem);
  showControls(false);
  return { title: "Your token does not list orders", text: "Find an order by its uid in the search box." };
}

/** Whether the caller may list no orders at all, under any filter. */
const mayNotList = ({ status, code }) => status === 403 && code === "forbidden";

function showControls(visible) {
  $("filters").hidden = $("reload").hidden = !visible;
}

/** Loads the first page. `keep` keeps the old rows until the new ones are there. */
export function loadList({ keep, focus, quiet } = {}) {
  list.load({
    keep,
    quiet,
    forget,
    explain: failed,
    request: (signal) => get(path(), { signal }),
    show: ({ data }) => {
      showFirst(data);
      if (focus) body?.querySelector("a").focus();
    },
  });
}

/** Forgets the rows that are no longer shown, so that nothing continues, saves or copies them. */
function forget() {
  orders = new Map();
  body = next = undefined;
  forgetUnseen();
  showRest();
}

function showFirst({ orders: found = [], next_cursor }) {
  showControls(true);
  const again = body && found.length > 0 && orders.size > 0;
  orders = new Map(found.map((order) => [order.order_uid, order]));
  next = next_cursor;
  forgetUnseen();
  if (found.length === 0) {
    body = undefined;
    const none = Object.keys(apiFilter(filter)).length === 0;
    list.body.replaceChildren(h("p", { class: "card muted" },
      none ? "No orders yet. New orders appear here when they are stored." : "No order matches this filter."));
  } else {
    const whole = orderTable("Orders", found);
    [body] = whole.tBodies;
    list.body.replaceChildren(h("div", { class: "card flush" }, whole));
  }
  showRest();
  if (again) announce(`List refreshed, ${plural(found.length, "order")}`);
}

/** Shows what depends on the rows: the local filter, the buttons, the note. */
function showRest() {
  const { currency } = filter;
  let visible = 0;
  for (const line of body?.rows ?? []) {
    line.hidden = Boolean(currency) && orders.get(line.dataset.uid)?.currency !== currency;
    if (!line.hidden) visible += 1;
  }
  $("note").hidden = !currency || !body;
  $("note").textContent = `${visible} of ${plural(orders.size, "loaded order")} in ${currency}. `
    + "The service has no filter by currency: it chooses among the rows that this page has loaded.";
  $("more").hidden = !next;
  $("tools").hidden = orders.size === 0;
}

$("more").addEventListener("click", () => {
  list.load({
    keep: true,
    slot: $("more-slot"),
    explain: failed,
    request: (signal) => get(path({ cursor: next }), { signal }),
    show: ({ data }) => {
      const fresh = (data.orders ?? []).filter(({ order_uid }) => !orders.has(order_uid));
      fresh.forEach((order) => orders.set(order.order_uid, order));
      const rows = fresh.map(orderRow);
      body.append(...rows);
      next = data.next_cursor;
      showRest();
      announce(plural(fresh.length, "more order"));
      if (!next) rows[0]?.querySelector("a").focus();
    },
  });
});

// ---- following

function forgetUnseen() {
  unseen = new Set();
  unseenMore = false;
  changed = new Set();
  $("fresh").hidden = true;
}

function onEvent({ type, data }) {
  if (type === "change") {
    try { changed.add(JSON.parse(data).order_uid); } catch { return; }
  } else if (type !== "reset") return;
  plan();
}

function plan() {
  timer ??= setTimeout(look, Math.max(SETTLE_MS, lastLook + LOOK_MS - Date.now()));
}

/** Compares the first page with the rows: counts new orders, updates changed ones, marks erased ones. */
async function look() {
  const [uids, at] = [changed, filter];
  lastLook = Date.now();
  let again = Boolean(list.controller);
  // A load in progress may have read the state before the change.
  if (!again) {
    changed = new Set();
    try {
      const { data } = await get(path());
      again = at !== filter || Boolean(list.controller);
      if (!again) await compare(data, uids);
    } catch (problem) {
      if (!(problem instanceof Problem)) throw problem;
      // The next event looks again. If the service is down, the state of the stream says so.
    }
  }
  timer = undefined;
  if (again || changed.size > 0) plan();
}

/** A time of the api with six decimals, which sorts as text. */
const sortable = (time = "") => time.replace(/(?:\.(\d+))?Z$/, (_, digits = "") => `.${digits.padEnd(6, "0")}`);

async function compare({ orders: page = [], next_cursor }, uids) {
  if (orders.size === 0) {
    if (page.length > 0) showFirst({ orders: page, next_cursor });
    return;
  }
  const [newest] = orders.values();
  const isNew = ({ order_uid, created_at }) => !orders.has(order_uid) && sortable(created_at) >= sortable(newest.created_at);
  const fresh = page.filter(isNew);
  // A whole page of orders that were never seen: others may be behind it.
  unseenMore ||= fresh.length === LIMIT && !fresh.some(({ order_uid }) => unseen.has(order_uid));
  fresh.forEach(({ order_uid }) => unseen.add(order_uid));
  showUnseen();

  const listed = new Set(page.map(({ order_uid }) => order_uid));
  page.forEach(update);
  const last = next_cursor ? sortable(page.at(-1)?.created_at) : "";
  for (const { order_uid, created_at } of orders.values()) {
    if (!listed.has(order_uid) && sortable(created_at) > last) markErased(order_uid);
  }
  const below = [...uids].filter((uid) => orders.has(uid) && !listed.has(uid)).slice(0, REREAD);
  await Promise.all(below.map(reread));
  showRest();
}

function showUnseen() {
  const text = `${unseen.size}${unseenMore ? "+" : ""} new order${unseen.size === 1 ? "" : "s"}`;
  if (unseen.size === 0) return;
  $("fresh").textContent = `${text} – show`;
  // Under load the number grows every two seconds, which would drown a screen reader.
  if ($("fresh").hidden) announce(text);
  $("fresh").hidden = false;
}

const rowOf = (uid) => body?.querySelector(`[data-uid="${CSS.escape(uid)}"]`);

/** Shows the newest state of a loaded order. */
function update(order) {
  const old = orders.get(order.order_uid);
  if (!old || stringify(old) === stringify(order)) return;
  orders.set(order.order_uid, order);
  const line = rowOf(order.order_uid);
  if (line) replaceMarked(line, orderRow(order));
}

async function reread(uid) {
  const old = orders.get(uid);
  try {
    const { order_uid, track_number, customer_id, date_created, currency, amount, item_count } = asListed((await get(orderPath(uid))).data);
    update({ ...old, order_uid, track_number, customer_id, date_created, currency, amount, item_count });
  } catch (problem) {
    if (!(problem instanceof Problem)) throw problem;
    if (problem.status === 410) markErased(uid);
  }
}

/** A row of an order that is no longer listed: it was erased, or no longer matches. It stays until the next refresh. */
function markErased(uid) {
  const line = rowOf(uid);
  if (!line || line.classList.contains("gone")) return;
  line.classList.add("gone");
  line.title = "No longer in this list: erased, or no longer a match";
  line.cells[1].replaceChildren("no longer listed");
}

// ---- the buttons

const visibleOrders = () => [...body?.rows ?? []].filter((line) => !line.hidden && !line.classList.contains("gone"))
  .map((line) => orders.get(line.dataset.uid));

$("fresh").addEventListener("click", () => loadList({ keep: true, focus: true }));
$("reload").addEventListener("click", () => loadList({ keep: true }));
$("save-shown").addEventListener("click", () => saveShown(visibleOrders()));
$("save-all").addEventListener("click", () => saveAll(listPath(apiFilter(filter), "orders/export"), $("export-slot")));
$("copies").append(
  copyButton("JSON", () => stringify({ orders: visibleOrders() }, 2), { "aria-label": "Copy the shown orders as JSON" }),
  copyButton("curl", () => curl(path()), { "aria-label": "Copy the request of this list as a curl command" }));

$("filter").addEventListener("submit", (event) => {
  event.preventDefault();
  if (!go(listAddress(readFilters()))) loadList({ keep: true });
});
$("clear").addEventListener("click", () => { if (!go("#/")) show({}); });

/** Shows the list under `by`. Reloads it only if the filter of the api changed or `force` is set. */
export function show(by, force) {
  const other = listPath(apiFilter(by)) !== listPath(apiFilter(filter));
  filter = by;
  fillFilters(filter);
  // The first load accompanies an order or a search, whose place on the screen stays.
  if (force || other) loadList({ quiet: force });
  else showRest();
}

/** Follows the announcements of changes. A stream begins with the next change, so each start looks for those before it. */
export const followList = () => follow("list", {
  path: "orders/events",
  onEvent,
  onOpen: plan,
  // Without the scope, the list above says why it is empty. A token of one customer has no stream of all orders.
  onProblem: (problem) => (mayNotList(problem) || problem.code === "bound_to_customer") && unfollow("list"),
});

// One order: reads it, shows it, follows its changes.

import { orderAddress } from "./address.js";
import { Problem, curl, get, orderPath } from "./api.js";
import { deliveryCard, detailsCard, paymentCard, rawCard } from "./blocks.js";
import { $, announce, button, code, copyButton, h, jump, plural, touch } from "./dom.js";
import { ago, amount, clock, isMasked, money, time } from "./format.js";
import { itemsCard, summary } from "./items.js";
import { parse } from "./json.js";
import { follow, unfollow } from "./live.js";
import { replaceMarked } from "./marks.js";
import { markRow } from "./rows.js";
import { recent } from "./recent.js";
import { Region, explain } from "./region.js";

const UID = /^[A-Za-z0-9_-]{1,64}$/;
const TIERS = { local: "the local cache", redis: "Redis", postgres: "the Postgres database" };

export const result = new Region($("result"), "h1");

/** The order on the screen: uid, text, order, etag, answer, note, view, article. */
let shown;

/** Removes the order from the screen. */
export function close() {
  result.clear();
  forget();
}

function forget() {
  unfollow("order");
  shown = undefined;
  markRow();
}

/**
 * Reads the order `uid`. `again` names the button that requested a second read, if any. `lead` is what stands above the
 * order; `answer`, if the order has been read already, replaces the request.
 */
export function open(uid, { nocache, again, lead, answer, typed } = {}) {
  const keep = again && shown?.uid === uid;
  const task = {
    keep,
    request: async (signal) => answer ?? get(`${orderPath(uid)}${nocache ? "?nocache=1" : ""}`, { signal }),
    explain: (problem) => explainOrder(problem, uid),
    show: (found) => (keep ? reread(found, again) : show(uid, found, lead, typed)),
  };
  if (!keep) forget();
  recent({ current: uid });
  if (UID.test(uid)) return result.load(task);
  result.clear();
  result.fail(new Problem(400), task);
}

function explainOrder(problem, uid) {
  if ([400, 404].includes(problem.status) && !touch()) $("q").select();
  switch (problem.status) {
    case 400: return {
      tone: "warn", title: "This is not an order uid", final: true,
      text: ["A uid has 1 to 64 letters A–Z, a–z, digits, ", code("_"), " or ", code("-"), ", like ",
        code("b563feb7b2b84b6test"), ". Read: ", code(uid)],
    };
    case 404: return {
      title: "No order has this uid", action: button("Ask the database", () => open(uid, { nocache: true })),
      text: [code(uid), " is well-formed but unknown. Compare it with the customer's copy. A new order may not be stored yet."],
    };
    case 410: return erased(uid);
    default: {
      const words = explain(problem);
      if (shown) words.text += ` Below is the order as read at ${shown.at}.`;
      return words;
    }
  }
}

function erased(uid) {
  forget();
  recent({ uid, add: false });
  document.title = "Orders";
  return { title: "This order was erased", text: [code(uid), " existed. Its data was deleted permanently."], final: true };
}

/** The version in an `ETag`. */
const versionOf = (headers) => headers.get("ETag")?.replace(/^W\/|"/g, "");

function show(uid, { text, data, headers, roundTrip }, lead, typed) {
  shown = { uid, text, order: data, etag: versionOf(headers), answer: { headers, roundTrip }, at: clock(), view: {} };
  shown.article = article(shown);
  result.body.replaceChildren(...(lead ? [lead, shown.article] : [shown.article]));
  recent({ uid, add: true, current: uid });
  markRow(uid);
  document.title = `${uid} · Orders`;
  const { payment = {}, items = [] } = data;
  announce(`Order ${uid}, ${plural(items.length, "item")}, ${money(payment.amount, payment.currency)}`);
  const heading = shown.article.querySelector("h1");
  // On a phone the search box would bring its keyboard over the order.
  if (typed && !touch()) $("q").select();
  else heading.focus({ preventScroll: true });
  heading.scrollIntoView({ block: "nearest" });
  follow("order", {
    path: `${orderPath(uid)}/events`,
    lastId: shown.etag,
    onEvent: (event) => changed(uid, event),
    onProblem: ({ status }) => { if (status === 410) eraseNow(uid); },
  });
}

/** Whether version `a` is older than `b`. Each part of a version has a fixed width. */
const older = (a, b) => /^\d{19}-\d{19}-\d{10}/.test(a) && a.slice(0, 50) < b.slice(0, 50);

/** Shows the answer to a second read. An event may have brought a newer version meanwhile. */
function reread({ text, data, headers, roundTrip }) {
  let etag = versionOf(headers);
  if (older(etag, shown.etag)) ({ text, order: data, etag } = shown);
  const same = etag === shown.etag;
  update({ text, order: data, etag, answer: { headers, roundTrip } }, same ? `Unchanged at ${clock()}` : `Changed, read at ${clock()}`, !same);
}

/** Shows what an event says. */
function changed(uid, { type, data, id }) {
  if (shown?.uid !== uid) return;
  if (type === "erased") return eraseNow(uid);
  if (type !== "order" || id === shown.etag) return;
  update({ text: data, order: parse(data), etag: id }, `Changed at ${clock()}`, true);
}

function eraseNow(uid) {
  if (shown?.uid !== uid) return;
  result.clear();
  result.fail(new Problem(410), { explain: () => erased(uid) });
}

function update(values, note, isNew) {
  const before = shown.article;
  Object.assign(shown, values, { note, isNew, at: clock() });
  shown.article = article(shown);
  const n = replaceMarked(before, shown.article);
  announce(isNew ? `The order has changed: ${plural(n, "new value")}` : "Read again, unchanged");
}

function article({ uid, text, order, etag, answer, note, isNew, view }) {
  const { payment = {}, items = [] } = order;
  const tier = answer.headers.get("X-Source");
  const served = answer.headers.get("X-Duration-Ms");
  const rows = items.length;
  const to = (id, act) => () => {
    const target = $(id);
    act?.(target);
    jump(target);
  };
  return h("article", { class: "order" },
    h("div", { class: "title" },
      h("div", {}, h("h1", { tabindex: "-1", "data-focus": "heading" }, order.order_uid),
        h("p", { class: "summary", "data-key": "summary" }, h("strong", {}, amount(payment.amount, payment.currency)), ` · ${summary(items)}`),
        h("p", { class: "muted" }, "Placed ", time(order.date_created, true), ago(order.date_created))),
      h("div", { class: "line" },
        button("Refresh", () => open(uid, { again: "refresh" }), { "data-focus": "refresh" }),
        button("From the database", () => open(uid, { again: "database", nocache: true }),
          { "data-focus": "database", title: "Reads Postgres, past all caches (?nocache=1)" }))),
    h("div", { class: "tools" },
      h("div", { class: "line", role: "group", "aria-label": "Copy" }, h("span", { class: "muted", "aria-hidden": "true" }, "Copy"),
        copyButton("Uid", () => order.order_uid, { "data-focus": "copy-uid", "aria-label": "Copy the uid" }),
        copyButton("Link", () => new URL(orderAddress(uid), location.href).href, { "data-focus": "copy-link", "aria-label": "Copy a link to this page" }),
        copyButton("JSON", () => text, { "data-focus": "copy-json", "aria-label": "Copy the order as JSON" }),
        copyButton("curl", () => curl(orderPath(uid)), { "data-focus": "copy-curl", "aria-label": "Copy the request as a curl command" })),
      h("nav", { class: "line", "aria-label": "Parts of this page" }, h("span", { class: "muted", "aria-hidden": "true" }, "Go to"),
        button(plural(rows, "item"), to("items"), { class: "small", "data-focus": "to-items" }),
        button("Raw JSON", to("raw", (raw) => { raw.open = true; }), { class: "small", "data-focus": "to-raw" }),
        button("Order list", to("list"), { class: "small", "data-focus": "to-list" }))),
    h("p", { class: "answer" },
      h("span", { class: `source ${tier}` }, "Answered by ", h("b", {}, TIERS[tier] ?? tier ?? "the service"), served && ` in ${served} ms`),
      h("span", {}, `Round trip ${answer.roundTrip.toFixed(answer.roundTrip < 10 ? 1 : 0)} ms`),
      note && h("span", { class: isNew && "changed" }, note)),
    h("div", { class: "cards" }, deliveryCard(order, isMasked(etag)), paymentCard(order), detailsCard(order, etag)),
    itemsCard(order, view),
    rawCard(text, view));
}

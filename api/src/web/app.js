// The support page: look an order up, read it, browse the newest ones.
//
// Data is inserted as text, never as markup. Amounts are 64-bit integers in minor units. They stay digits or BigInt
// from the wire to the screen, because a double loses digits above 2^53.

const $ = (id) => document.getElementById(id);
const UID = /^[A-Za-z0-9_-]{1,64}$/;
/** Longer than any deadline of the api: a later response means that the network is slow. */
const TIMEOUT_MS = 10_000;
/** Longest pause between automatic attempts, in seconds, unless the server asks for more. */
const RETRY_MAX_S = 30;

// ---- small tools

/** An element with attributes (`on…`: listener) and children. Strings become text nodes; empty ones are skipped. */
function h(tag, attributes, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value || value === "") node.setAttribute(name, value);
  }
  node.append(...children.flat(Infinity).filter((child) => child || child === 0));
  return node;
}

const button = (label, onclick, attributes) => h("button", { type: "button", onclick, ...attributes }, label);
const code = (text) => h("code", {}, text);
const plural = (n, noun) => `${n} ${noun}${n === 1 ? "" : "s"}`;

function announce(text) {
  $("status").textContent = "";
  // A screen reader announces changes only, so the same text twice must differ.
  setTimeout(() => { $("status").textContent = text; }, 50);
}

function copyButton(text, label) {
  return button("Copy", async ({ currentTarget: pressed }) => {
    let copied = true;
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      // Plain http inside a company network has no clipboard API.
      const area = h("textarea", { class: "hidden" });
      area.value = text;
      document.body.append(area);
      area.select();
      copied = document.execCommand("copy");
      area.remove();
      pressed.focus();
    }
    pressed.textContent = copied ? "Copied" : "Failed";
    announce(copied ? "Copied" : "Copying failed");
    setTimeout(() => { pressed.textContent = "Copy"; }, 1500);
  }, { class: "small", "aria-label": label });
}

// ---- JSON, money, time

const TOKEN = /"(?:[^"\\]|\\.)*"|[{}[\],:]|[^\s{}[\],:"]+/g;

/** Parses JSON; an integer that a double might round becomes a string of its digits. */
const parse = (text) => JSON.parse(text.replace(TOKEN, (token) => (/^-?\d{16,}$/.test(token) ? `"${token}"` : token)));

/** Indents JSON token by token, so that every digit stays as it came. */
function indent(text) {
  let depth = 0;
  const line = () => `\n${"  ".repeat(depth)}`;
  return text.match(TOKEN).map((token, i, all) => {
    const empty = /^[[{][\]}]$/.test(token + all[i + 1]) || /^[[{][\]}]$/.test(all[i - 1] + token);
    switch (token) {
      case "{": case "[": depth += 1; return empty ? token : token + line();
      case "}": case "]": depth -= 1; return empty ? token : line() + token;
      case ",": return token + line();
      case ":": return ": ";
      default: return token;
    }
  }).join("");
}

// ISO 4217 decimals where they are not 2. Intl knows CLDR's cash habits instead: 0 for HUF, IQD or PKR.
const DECIMALS = {
  0: "BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX UYI VND VUV XAF XOF XPF",
  3: "BHD IQD JOD KWD LYD OMR TND",
  4: "CLF UYW",
};
const decimals = (currency) => Number(Object.keys(DECIMALS).find((n) => DECIMALS[n].split(" ").includes(currency)) ?? 2);

/** The integer value of a number or of a string of digits, or undefined. */
const integer = (value) => (/^-?\d+$/.test(value) ? BigInt(value) : undefined);

/** The sum of integers; other values count as 0. */
const sum = (values) => values.reduce((total, value) => total + (integer(value) ?? 0n), 0n);

/** Minor units in the reader's notation, after the currency if `named`. */
function money(minor, currency, named = true) {
  const units = integer(minor);
  if (units === undefined) return String(minor ?? "—");
  const digits = decimals(currency);
  const scale = 10n ** BigInt(digits);
  const fraction = String(units % scale).padStart(digits, "0");
  const format = new Intl.NumberFormat(undefined, { numberingSystem: "latn", minimumFractionDigits: digits });
  const parts = format.formatToParts(units / scale).map(({ type, value }) => (type === "fraction" ? fraction : value));
  return (named && currency ? `${currency}\u00a0` : "") + parts.join("");
}

const DAY = { year: "numeric", month: "short", day: "numeric", hour: "2-digit", minute: "2-digit", second: "2-digit" };
const LOCAL = new Intl.DateTimeFormat(undefined, DAY);
const ZONED = new Intl.DateTimeFormat(undefined, { ...DAY, timeZoneName: "short" });

/** A time (RFC 3339, or ms since 1970): local, with UTC on hover. Any other text stays as it is. */
function time(value, format = LOCAL) {
  const date = new Date(value ?? NaN);
  if (Number.isNaN(date.getTime())) return String(value ?? "—");
  const utc = typeof value === "string" ? value : date.toISOString();
  return h("time", { datetime: utc, title: utc.replace("T", " ").replace("Z", " UTC") }, format.format(date));
}

/** "4 years ago". */
function ago(value) {
  let span = (new Date(value) - Date.now()) / 1000;
  for (const [unit, size] of [["second", 60], ["minute", 60], ["hour", 24], ["day", 30.4], ["month", 12], ["year", Infinity]]) {
    if (Math.abs(span) < size) return `, ${new Intl.RelativeTimeFormat().format(Math.trunc(span), unit)}`;
    span /= size;
  }
  return "";
}

function language(tag) {
  try { return `${new Intl.DisplayNames("en", { type: "language" }).of(tag)} (${tag})`; } catch { return tag; }
}

// ---- the api

/** A failed request. `status` is 0 if there was no response. */
class Problem extends Error {
  constructor(status, body, retryAfter) {
    super();
    const { title, detail, code: name } = body ?? {};
    Object.assign(this, { status, said: [title, detail].filter(Boolean).join(": "), code: name, retryAfter });
    /** Whether an automatic retry may succeed. */
    this.passing = [0, 429, 502, 503, 504].includes(status);
  }
}

/** Requests `path`, which is relative, so that the page also works below a prefix. */
async function get(path, controller) {
  const timer = setTimeout(() => controller.abort(), TIMEOUT_MS);
  const key = sessionStorage.getItem("key");
  const started = performance.now();
  let response, text, data;
  try {
    // Orders are personal data, so the browser must not cache them.
    response = await fetch(path, { cache: "no-store", signal: controller.signal, headers: key ? { Authorization: `Bearer ${key}` } : {} });
    text = await response.text();
  } catch {
    throw new Problem(0);
  } finally {
    clearTimeout(timer);
  }
  const roundTrip = performance.now() - started;
  try { data = parse(text); } catch { /* a proxy answered with a page */ }
  const wait = response.headers.get("Retry-After"); // seconds or an HTTP date
  if (!response.ok) throw new Problem(response.status, data, wait && (Number(wait) || Math.ceil((Date.parse(wait) - Date.now()) / 1000)));
  if (data === null || typeof data !== "object") throw new Problem(502, { title: "The response is not JSON" });
  return { text, data, headers: response.headers, roundTrip };
}

/** A part of the page that loads data, shows it, and retries after a failure. A newer load cancels an older one. */
class Region {
  constructor(element) {
    this.element = element;
    [this.slot, this.body] = [element.querySelector(".slot"), element.querySelector(".body")];
  }

  stop() {
    this.controller?.abort();
    clearInterval(this.timer);
    this.controller = this.retry = undefined;
    this.element.removeAttribute("aria-busy");
  }

  /** Requests `path`, then calls `show`, or `explain` to describe the problem. `keep` keeps the old content until then. */
  async load(task, attempt = 0) {
    this.stop();
    const mine = this.controller = new AbortController();
    this.element.setAttribute("aria-busy", "true");
    if (!task.keep && attempt === 0) {
      this.slot.replaceChildren();
      this.body.replaceChildren(h("p", { class: "card loading" }, "Loading…"));
    }
    const outcome = await get(task.path, mine).catch((problem) => problem);
    if (this.controller !== mine) return;
    this.stop();
    if (outcome instanceof Error) return this.fail(outcome, task, attempt);
    this.slot.replaceChildren();
    task.show(outcome);
  }

  fail(problem, task, attempt = 0) {
    const focused = this.slot.contains(document.activeElement);
    // While the service is unavailable, the content that was read before stays readable.
    if (!task.keep || !problem.passing) this.body.replaceChildren();
    if (problem.status === 401) {
      this.slot.replaceChildren();
      return askForKey();
    }
    const { tone, title, text, action, final } = task.explain(problem);
    const retry = () => this.load(task, attempt + 1);
    const countdown = h("span", { class: "muted" });
    this.slot.replaceChildren(h("div", { class: `card notice ${tone ?? ""}` },
      h("h2", {}, title),
      text && h("p", {}, text),
      problem.said && h("p", { class: "said" }, `${problem.status} `, problem.code && code(problem.code), ` ${problem.said}`),
      !final && h("div", { class: "line" }, button(problem.passing ? "Try now" : "Try again", retry), action, countdown)));
    if (focused) this.slot.querySelector("button")?.focus();
    if (attempt === 0) announce(title);
    if (!problem.passing) return;

    const asked = problem.retryAfter > 0 ? problem.retryAfter : 0;
    const pause = Math.max(asked, Math.min(RETRY_MAX_S, 2 ** attempt));
    // With jitter, so that open pages do not retry at the same moment.
    const due = Date.now() + pause * 1000 + Math.random() * 500;
    const tick = () => {
      const left = Math.ceil((due - Date.now()) / 1000);
      if (left <= 0) retry();
      else countdown.textContent = `Retrying in ${Math.min(left, pause)} s${asked ? ` (Retry-After: ${asked} s)` : ""}`;
    };
    tick();
    this.timer = setInterval(tick, 250);
    this.retry = retry;
  }
}

const result = new Region($("result"));
const list = new Region($("list"));
addEventListener("online", () => [result, list].forEach((region) => region.retry?.()));

function explain(problem) {
  switch (problem.status) {
    case 0: return { tone: "warn", title: "The service cannot be reached", text: "The network or the service is down." };
    case 403: return { tone: "bad", title: "This API key may not read orders", action: button("Use another key", askForKey) };
    case 429: return { tone: "warn", title: "Too many requests", text: "The service limits the requests of each client." };
    case 502: case 503: case 504: return { tone: "warn", title: "The service is unavailable", text: "The order may exist. The page retries." };
    default: return { tone: "bad", title: `Unexpected response (${problem.status})`, text: "If it persists, report it to the operator of the service." };
  }
}

// ---- API key: in this tab only

function askForKey() {
  $("auth-why").textContent = sessionStorage.getItem("key") ? "The service rejects the key of this tab." : "This service requires an API key.";
  if (!$("auth").hidden) return;
  $("auth").hidden = false;
  announce("Enter an API key");
  $("key").focus();
}

function setKey(key) {
  if (key) sessionStorage.setItem("key", key);
  else sessionStorage.removeItem("key");
  $("auth").hidden = true;
  $("forget").hidden = !key;
  $("key").value = "";
  $("uid").focus();
  navigate(true);
}

$("auth-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const key = $("key").value.trim();
  if (/^[\x21-\x7e]+$/.test(key)) setKey(key);
  else $("auth-why").textContent = "A key consists of ASCII characters without blanks.";
});
$("forget").addEventListener("click", () => setKey());

// ---- lookup

/** Finds the uid in pasted text: a bare uid, a link, or a line of JSON or text, with stray blanks and punctuation. */
function findUid(text) {
  const joined = text.replace(/[\s\u00ad\u200b-\u200f\u2060\ufeff]+/g, "");
  // A bare link may have been broken anywhere; in a sentence, a blank ends it.
  const link = /^\W*(https?:|order\/)/i.test(joined) ? joined : text;
  const found = /order(?:\/\s*|_uid["']?\s*[:=]\s*["']?)([^\s"'?#&<>,/]+)/i.exec(link)?.[1] ?? joined;
  return (found.replace(/^[^\w-]+|[^\w-]+$/g, "") || text).slice(0, 200);
}

/** The element that gets the focus when the order is shown: "search", the name of a button, or else the heading. */
let focusNext;

$("search").addEventListener("submit", (event) => {
  event.preventDefault();
  const text = $("uid").value.trim();
  if (!text) return announce("Enter an order uid");
  focusNext = "search";
  const hash = `#/order/${encodeURIComponent(findUid(text))}`;
  if (location.hash === hash) navigate();
  else location.hash = hash;
});

addEventListener("keydown", (event) => {
  if (event.key !== "/" || event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input")) return;
  event.preventDefault();
  $("uid").select();
});

/** The order on the screen: uid, version, when it was read. */
let shown = {};

/** Reads the order `uid`. `button` names the button that requested a second read, if any. */
function open(uid, { nocache, button: pressed } = {}) {
  const task = {
    path: `order/${uid}${nocache ? "?nocache=1" : ""}`,
    keep: pressed && shown.uid === uid,
    explain: (problem) => explainOrder(problem, uid),
    show: (answer) => showOrder(uid, answer, task.keep),
  };
  focusNext = pressed ?? focusNext;
  if (!task.keep) shown = {};
  if (UID.test(uid)) return result.load(task);
  result.stop();
  result.fail(new Problem(400), task);
}

function explainOrder(problem, uid) {
  switch (problem.status) {
    case 400: return {
      tone: "warn", title: "This is not an order uid", final: true,
      text: ["A uid has 1 to 64 letters A–Z, a–z, digits, ", code("_"), " or ", code("-"), ", like ", code("b563feb7b2b84b6test"), ". Read: ", code(uid)],
    };
    case 404: return {
      title: "No order has this uid", action: button("Ask the database", () => open(uid, { nocache: true })),
      text: [code(uid), " is well-formed but unknown. Compare it with the customer's copy. A new order may not be stored yet."],
    };
    case 410: recent(uid, false); return { title: "This order was erased", text: [code(uid), " existed. Its data was deleted permanently."], final: true };
    default: {
      const words = explain(problem);
      if (shown.uid && result.body.firstChild) words.text += ` Below is the order as read at ${shown.at}.`;
      return words;
    }
  }
}

const TIERS = { local: "the local cache", redis: "Redis", postgres: "the Postgres database" };

function showOrder(uid, { text, data: order, headers, roundTrip }, again) {
  const etag = headers.get("ETag")?.replace(/^W\/|"/g, "");
  const changed = again && shown.etag !== etag;
  shown = { uid, etag, at: new Date().toLocaleTimeString() };
  recent(uid, true);

  const { payment = {}, items = [] } = order;
  const paid = money(payment.amount, payment.currency);
  const tier = headers.get("X-Source");
  const served = headers.get("X-Duration-Ms");
  const statuses = new Map();
  for (const { status } of items) statuses.set(status, (statuses.get(status) ?? 0) + 1);
  const status = [...statuses].map(([value, n]) => `${statuses.size > 1 ? `${n} × ` : ""}status ${value}`);

  const heading = h("h1", { tabindex: "-1" }, order.order_uid, copyButton(order.order_uid, "Copy the uid"));
  const buttons = {
    refresh: button("Refresh", () => open(uid, { button: "refresh" })),
    database: button("From the database", () => open(uid, { button: "database", nocache: true }), { title: "Reads Postgres, past all caches (?nocache=1)" }),
  };
  result.body.replaceChildren(h("article", { class: "order" },
    h("div", { class: "title" },
      h("div", {}, heading,
        h("p", { class: "summary" }, h("strong", {}, paid), ` · ${[plural(items.length, "item"), ...status.slice(0, 6)].join(" · ")}${status.length > 6 ? " …" : ""}`),
        h("p", { class: "muted" }, "Placed ", time(order.date_created, ZONED), ago(order.date_created))),
      h("div", { class: "line" }, Object.values(buttons))),
    h("div", { class: "answer" },
      h("span", { class: `source ${tier}` }, "Answered by ", h("b", {}, TIERS[tier] ?? tier ?? "the service"), served && ` in ${served} ms`),
      h("span", {}, "Round trip ", h("b", {}, `${roundTrip.toFixed(roundTrip < 10 ? 1 : 0)} ms`)),
      etag && h("span", {}, "Version ", version(etag)),
      again && h("span", { class: changed && "changed" }, changed ? "Changed since you last looked" : `Unchanged at ${shown.at}`)),
    h("div", { class: "cards" }, deliveryCard(order), paymentCard(payment, items), detailsCard(order)),
    itemsCard(order, items, payment.currency),
    rawCard(text)));

  document.title = `${uid} · Orders`;
  announce(again ? `Read again, ${changed ? "it has changed" : "unchanged"}` : `Order ${uid}, ${plural(items.length, "item")}, ${paid}`);
  // On a phone the search box would bring its keyboard over the order.
  if (buttons[focusNext]) buttons[focusNext].focus();
  else if (focusNext === "search" && !matchMedia("(pointer: coarse)").matches) $("uid").select();
  else heading.focus({ preventScroll: true });
  if (!again) heading.scrollIntoView({ block: "nearest" });
  focusNext = undefined;
}

/** A version (record time in ms, offset, partition, each of fixed width; then the shape of the document) in words. */
function version(etag) {
  const [, ms, offset, partition] = /^(\d{19})-(\d{19})-(\d{10})(?:-\d+)?$/.exec(etag) ?? [];
  if (!ms) return code(etag);
  return h("b", { title: etag }, time(Number(ms)), `, partition ${Number(partition)}, offset ${BigInt(offset)}`);
}

// ---- the blocks of an order

/** A description list of [name, value, class]; an empty value shows as a dash. */
const facts = (pairs, name) => h("dl", { class: name }, pairs.map(([term, value, kind]) =>
  [h("dt", {}, term), h("dd", { class: kind }, value || value === 0 ? value : "—")]));

const card = (title, ...content) => h("section", { class: "card" }, h("h2", {}, title), content);

function deliveryCard({ delivery = {}, delivery_service, track_number }) {
  const { name, phone, email, address, city, zip, region } = delivery;
  return card("Delivery", h("p", { class: "person" }, name ?? "—"), facts([
    ["Phone", phone && h("a", { href: `tel:${phone}` }, phone)],
    ["E-mail", email && h("a", { href: `mailto:${encodeURIComponent(email)}` }, email)],
    ["Address", address],
    ["City", city],
    ["Region", region],
    ["Zip", zip],
    ["Service", delivery_service],
    ["Track no.", track_number, "mono"],
  ]));
}

function paymentCard(payment, items) {
  const { currency, amount, goods_total, delivery_cost, custom_fee } = payment;
  const check = (what, is, should) => is !== integer(should) && h("p", { class: "check" }, `${what} add up to ${money(is, currency)}.`);
  return card("Payment",
    facts([
      ["Goods", money(goods_total, currency, false)],
      ["Delivery", money(delivery_cost, currency, false)],
      ["Customs fee", money(custom_fee, currency, false)],
      ["Paid", money(amount, currency)],
    ], "money"),
    check("The items", sum(items.map((item) => item.total_price)), goods_total),
    check("Goods, delivery and fee", sum([goods_total, delivery_cost, custom_fee]), amount),
    h("hr"),
    facts([
      ["Paid at", Math.abs(payment.payment_dt) < 8.64e12 ? time(payment.payment_dt * 1000) : payment.payment_dt],
      ["Provider", payment.provider],
      ["Bank", payment.bank],
      ["Transaction", payment.transaction, "mono"],
      ["Request", payment.request_id, "mono"],
    ]));
}

function detailsCard(order) {
  const { customer_id } = order;
  return card("Details", facts([
    ["Customer", customer_id && h("a", { href: listHash({ customer_id }), title: "Orders of this customer" }, customer_id)],
    ["Language", order.locale && language(order.locale)],
    ["Entry", order.entry],
    ["Signature", order.internal_signature, "mono"],
    ["Shard key", order.shardkey],
    ["OOF shard", order.oof_shard],
    ["SM id", order.sm_id],
  ]));
}

/** A table row of [content, class, label on a phone]. With roles: on a phone, CSS makes a stack of it. */
const row = (cells, attributes, tag = "td") => h("tr", { role: "row", ...attributes }, cells.map(([content, name, label]) =>
  h(tag, { role: tag === "th" ? "columnheader" : "cell", class: name, "data-label": label }, content)));

const table = (name, label, head, body, foot = []) => h("table", { role: "table", class: name, "aria-label": label },
  h("thead", { role: "rowgroup" }, row(head, {}, "th")),
  h("tbody", { role: "rowgroup" }, body),
  h("tfoot", { role: "rowgroup" }, foot));

function itemsCard({ track_number }, items, currency) {
  return h("section", { class: "card flush" },
    h("div", { class: "head" }, h("h2", {}, "Items"), currency && h("span", { class: "muted" }, `in ${currency}`)),
    table("items", "Items", [["Item"], ["Article"], ["Size"], ["Status"], ["Price", "n"], ["Sale", "n"], ["Total", "n last"]],
      items.map((item) => row([
        [[item.name, h("span", { class: "sub" }, item.brand)], "wide"],
        [[item.nm_id, h("span", { class: "sub" }, `chrt ${item.chrt_id} · rid ${item.rid}`,
          // Shown only if the line has another parcel than the order.
          item.track_number !== track_number && ` · track ${item.track_number}`)], "wide"],
        [item.size, "", "Size"],
        [item.status, "", "Status"],
        [money(item.price, currency, false), "n", "Price"],
        [`${item.sale} %`, "n", "Sale"],
        [money(item.total_price, currency, false), "n last", "Total"],
      ])),
      row([[plural(items.length, "item")], [], [], [], [], [], [money(sum(items.map((item) => item.total_price)), currency), "n last"]])));
}

function rawCard(text) {
  const pre = h("pre", { tabindex: "0", "aria-label": "Raw JSON", role: "region" });
  return h("details", { class: "card flush", ontoggle: () => { pre.textContent ||= indent(text); } },
    h("summary", {}, "Raw JSON"), copyButton(text, "Copy the JSON as it came"), pre);
}

// ---- recent lookups

/** Shows the recent lookups, after adding or removing `uid`. */
function recent(uid, add) {
  let uids = JSON.parse(sessionStorage.getItem("recent") ?? "[]");
  if (uid) uids = [...(add ? [uid] : []), ...uids.filter((other) => other !== uid)].slice(0, 8);
  sessionStorage.setItem("recent", JSON.stringify(uids));
  $("recent").hidden = uids.length === 0;
  $("recent").replaceChildren(h("span", { class: "muted" }, "Recent"), ...uids.map((other) =>
    h("a", { class: "mono", href: `#/order/${other}`, "aria-current": other === route().uid && "page" }, other)));
}

// ---- newest orders

const FILTERS = ["customer_id", "track_number"];
let filter = {};
let rows;

/** The address of the list under a filter. */
function listHash(by) {
  const query = String(new URLSearchParams(FILTERS.filter((name) => by[name]).map((name) => [name, by[name]])));
  return query ? `#/?${query}` : "#/";
}

function loadList({ cursor, keep } = {}) {
  if (!cursor) $("more").hidden = true;
  list.load({
    path: `orders?${new URLSearchParams({ limit: 20, ...filter, ...(cursor && { cursor }) })}`,
    keep,
    explain: (problem) => (problem.status === 400 ? { tone: "warn", title: "The service rejects this filter", final: true } : explain(problem)),
    show: ({ data }) => showList(data, cursor),
  });
}

function showList({ orders = [], next_cursor: next }, cursor) {
  const fresh = orders.map((order) => row([
    [h("a", { class: "mono", href: `#/order/${encodeURIComponent(order.order_uid)}` }, order.order_uid)],
    [time(order.created_at ?? order.date_created), "muted"],
    [order.track_number, "mono id opt"],
    [order.customer_id, "id opt"],
    [order.item_count, "n opt"],
    [order.amount === undefined ? "" : money(order.amount, order.currency), "n last"],
  ]));

  if (cursor && rows) rows.append(...fresh);
  else if (fresh.length === 0) {
    rows = undefined;
    const why = listHash(filter) === "#/" ? "No orders yet. New orders appear here when they are stored." : "No order matches this filter.";
    list.body.replaceChildren(h("p", { class: "card muted" }, why));
  } else {
    const head = [["Order"], ["Received"], ["Track number", "id opt"], ["Customer", "id opt"], ["Items", "n opt"], ["Paid", "n last"]];
    const whole = table("rows", "Newest orders", head, fresh);
    rows = whole.tBodies[0];
    list.body.replaceChildren(h("div", { class: "card flush" }, whole));
  }
  markRow();
  if (cursor) {
    announce(plural(fresh.length, "more order"));
    if (!next && document.activeElement === $("more")) fresh[0]?.querySelector("a").focus();
  }
  $("more").hidden = !next;
  $("more").onclick = () => loadList({ cursor: next, keep: true });
}

/** Marks the row of the order that is open. */
function markRow() {
  for (const link of rows?.querySelectorAll("a") ?? []) link.ariaCurrent = link.textContent === route().uid ? "page" : null;
}

// The whole row is a target for the mouse. Keyboards and screen readers use the link in it.
list.body.addEventListener("click", (event) => {
  const link = event.target.closest("a") ? null : event.target.closest("tbody tr")?.querySelector("a");
  if (link && !String(getSelection())) location.hash = link.hash;
});
$("reload").addEventListener("click", () => loadList({ keep: true }));
$("filter").addEventListener("submit", (event) => {
  event.preventDefault();
  const hash = listHash(Object.fromEntries(FILTERS.map((name) => [name, $(name).value.trim()])));
  if (location.hash === hash) loadList({ keep: true });
  else location.hash = hash;
});
$("clear").addEventListener("click", () => { location.hash = "#/"; });

// ---- routes: #/order/UID and #/?customer_id=…&track_number=…

function route() {
  const [path, query] = location.hash.slice(1).split("?");
  const uid = /^\/order\/(.+)$/.exec(path)?.[1];
  if (!uid) return { by: Object.fromEntries([...new URLSearchParams(query)].filter(([name]) => FILTERS.includes(name))) };
  try { return { uid: decodeURIComponent(uid) }; } catch { return { uid }; }
}

/** Shows the page of the address. Reloads the list only if the filter changed or `force` is set. */
function navigate(force) {
  const { uid, by = filter } = route();
  const other = listHash(by) !== listHash(filter);
  filter = by;
  for (const name of FILTERS) $(name).value = filter[name] ?? "";
  $("clear").hidden = listHash(filter) === "#/";
  $("uid").value = uid ?? "";
  document.title = "Orders";
  recent();
  if (uid) open(uid);
  else {
    result.stop();
    shown = {};
    result.slot.replaceChildren();
    result.body.replaceChildren(h("div", { class: "welcome" }, h("h1", {}, "Find an order"),
      h("p", { class: "muted" }, "Paste its uid, or a link to it, and press Enter.")));
  }
  if (force || other) loadList();
  else markRow();
}

addEventListener("hashchange", () => navigate());
$("forget").hidden = !sessionStorage.getItem("key");
navigate(true);

// The search box: tries everything that its text may mean, shows what it tried, and opens a single match.

import { go, listAddress, orderAddress, searchAddress } from "./address.js";
import { Problem, get, listPath, orderPath } from "./api.js";
import { $, announce, button, code, h, own, plural, touch } from "./dom.js";
import { close, open, result } from "./order.js";
import { KINDS, recognise } from "./query.js";
import { recent } from "./recent.js";
import { explain } from "./region.js";
import { asListed, orderTable } from "./rows.js";

/** Orders that one attempt lists. */
const LIMIT = 20;

/** Whether the text has just been entered; then the box keeps the focus. */
let typed = false;

/** One attempt: {kind, value} with `orders` and `more`, `answer` of a uid, `erased`, or `problem`. */
async function attempt({ kind, value }, signal) {
  try {
    if (kind === "order_uid") {
      const answer = await get(orderPath(value), { signal });
      return { kind, value, answer, orders: [asListed(answer.data)] };
    }
    const { data } = await get(listPath({ [kind]: value, limit: LIMIT }), { signal });
    return { kind, value, orders: data.orders ?? [], more: Boolean(data.next_cursor) };
  } catch (problem) {
    if (problem.status === 410) return { kind, value, orders: [], erased: true };
    // 400: no order can have such a value.
    if ([400, 404].includes(problem.status)) return { kind, value, orders: [] };
    return { kind, value, orders: [], problem };
  }
}

/** Searches for everything that `text` may mean. */
export function search(text) {
  const searches = recognise(text);
  close();
  recent();
  document.title = "Search · Orders";
  const wasTyped = typed;
  typed = false;
  if (searches.length === 0) return result.fail(new Problem(400), { explain: () => nothingToSearch(text) });
  result.load({
    explain,
    request: async (signal) => {
      const attempts = await Promise.all(searches.map((one) => attempt(one, signal)));
      // If all failed, the region explains it and retries.
      if (attempts.every(({ problem }) => problem)) throw attempts[0].problem;
      const denied = attempts.find(({ problem }) => problem?.status === 401);
      if (denied) throw denied.problem;
      return attempts;
    },
    show: (attempts) => show(text, attempts, wasTyped),
  });
}

function nothingToSearch(text) {
  if (!touch()) $("q").select();
  return {
    tone: "warn", final: true, title: "Nothing to search for",
    text: [code(text.slice(0, 200)), " holds no order uid, track number, customer id, phone number or e-mail address."],
  };
}

function show(text, attempts, wasTyped) {
  const uids = new Map(attempts.flatMap(({ orders }) => orders.map((order) => [order.order_uid, order])));
  const tried = triedCard(text, attempts);
  if (uids.size === 1 && !attempts.some(({ more }) => more)) {
    const [uid] = uids.keys();
    const answer = attempts.find((one) => one.answer)?.answer;
    return open(uid, { lead: tried, answer, typed: wasTyped });
  }
  if (uids.size > 0) {
    const found = attempts.filter(({ orders }) => orders.length > 0);
    const title = h("h1", { tabindex: "-1" }, found.some(({ more }) => more) ? `More than ${uids.size} orders` : plural(uids.size, "order"));
    result.body.replaceChildren(tried, title, ...found.map((one) => matches(one)));
    announce(`${plural(uids.size, "order")} found`);
    if (wasTyped && !touch()) $("q").select();
    else title.focus({ preventScroll: true });
    return;
  }
  const { tone, title, words, final } = nothingFound(attempts);
  result.body.replaceChildren(tried, h("div", { class: `card notice ${tone ?? ""}` },
    h("h1", {}, title), h("p", {}, words),
    !final && h("div", { class: "line" }, button("Search again", () => search(text)))));
  announce(title);
  if (!touch()) $("q").select();
}

function nothingFound(attempts) {
  const erased = attempts.find((one) => one.erased);
  if (erased) {
    return { title: "This order was erased", final: true, words: [code(erased.value), " existed. Its data was deleted permanently."] };
  }
  if (attempts.some(({ problem }) => problem)) {
    return { tone: "warn", title: "The search is incomplete", words: "What could be searched has no match. The order may exist." };
  }
  return {
    title: "No order found",
    words: "Compare the text with the customer's copy: the page needs the whole uid, number or address, not a part of it. "
      + "A new order may not be stored yet. Names and postal addresses cannot be searched.",
  };
}

/** What was searched, and which of it matched. */
function triedCard(text, attempts) {
  const outcome = ({ orders, more, erased, problem }) => {
    if (problem) return `not searched: ${explain(problem).title.toLowerCase()}`;
    if (erased) return "erased";
    if (orders.length === 0) return "none";
    return more ? `more than ${orders.length} orders` : plural(orders.length, "order");
  };
  // Without a match, the button is below.
  const failed = attempts.some(({ problem }) => problem) && attempts.some(({ orders }) => orders.length > 0);
  return h("div", { class: "tried", role: "group", "aria-label": "What was searched" },
    h("span", { class: "muted" }, "Searched as"),
    h("ul", {}, attempts.map((one) => h("li", { class: one.problem ? "failed" : one.orders.length > 0 && "hit" },
      `${KINDS[one.kind]} `, one.value === text ? "" : [code(one.value), " "], h("b", {}, outcome(one))))),
    failed && button("Search again", () => search(text), { class: "small" }));
}

/** The orders of one attempt. */
function matches({ kind, value, orders, more }) {
  const all = kind !== "order_uid" && h("a", { href: listAddress({ [kind]: value }) }, more ? "Show all" : "Show as a list");
  return h("section", { class: "card flush" },
    h("div", { class: "head" }, h("h2", {}, `By ${KINDS[kind]} `, own(value)), all),
    orderTable(`Orders by ${KINDS[kind]}`, orders));
}

$("search").addEventListener("submit", (event) => {
  event.preventDefault();
  const text = $("q").value.trim();
  if (!text) return announce("Enter what to search for");
  // The box holds the uid of an open order: Enter reads it again.
  if (location.hash === orderAddress(text)) return open(text, { typed: true });
  typed = true;
  if (!go(searchAddress(text))) search(text);
});

addEventListener("keydown", (event) => {
  const typing = event.target.closest("input, select, textarea");
  if (event.key !== "/" || event.ctrlKey || event.metaKey || event.altKey || typing) return;
  event.preventDefault();
  $("q").select();
});

// CSV files: of the rows that are shown, and of all matches from the api.

import { Problem, request } from "./api.js";
import { $, announce, button, download, h } from "./dom.js";
import { explain } from "./region.js";
import { rejected } from "./session.js";

/** Columns of the export of the api, which a file of the shown rows has too. */
export const COLUMNS = ["order_uid", "track_number", "customer_id", "date_created", "created_at", "currency", "amount", "item_count"];

/** First characters of a formula, as in the export of the api. */
const FORMULA = /^[=+\-@\t\r\n＝＋－＠]/;

/** A cell as RFC 4180 has it. A spreadsheet would run text that begins like a formula, so that gets an apostrophe. */
function cell(value) {
  const text = String(value ?? "");
  const safe = FORMULA.test(text) ? `'${text}` : text;
  return /[",\r\n]/.test(safe) ? `"${safe.replace(/"/g, '""')}"` : safe;
}

/** The orders as CSV. Amounts are in minor units, exact. */
export const csv = (orders) =>
  [COLUMNS, ...orders.map((order) => COLUMNS.map((name) => order[name]))].map((line) => `${line.map(cell).join(",")}\r\n`).join("");

const fileName = (what) => `orders-${what}-${new Date().toISOString().slice(0, 19).replace(/:/g, "")}.csv`;

export function saveShown(orders) {
  download(fileName("shown"), new Blob([csv(orders)], { type: "text/csv;charset=utf-8" }));
  announce(`${orders.length} rows saved`);
}

/** Reads a response to its end. Calls `progress(bytes)`. */
async function collect(response, progress) {
  const reader = response.body.getReader();
  const parts = [];
  for (let bytes = 0; ;) {
    const { done, value } = await reader.read().catch(() => { throw new Problem(0); });
    if (done) return new Blob(parts, { type: "text/csv;charset=utf-8" });
    parts.push(value);
    bytes += value.length;
    progress(bytes);
  }
}

/** Whether an export is running. */
let exporting = false;

/** Saves all orders of an export. Shows progress, with a button that cancels, and a failure, in `place`. */
export async function saveAll(path, place) {
  if (exporting) return;
  exporting = true;
  const controller = new AbortController();
  const progress = h("span", {}, "Exporting…");
  const cancel = button("Cancel", () => controller.abort(), { class: "small" });
  place.replaceChildren(h("div", { class: "line export", role: "group", "aria-label": "Export" }, progress, cancel));
  const done = (text, ...content) => {
    const focused = place.contains(document.activeElement);
    place.replaceChildren(...content);
    announce(text);
    // Only from what has disappeared: the reader may be typing elsewhere.
    if (focused) $("save-all").focus();
  };
  try {
    const response = await request(path, { signal: controller.signal, headers: { Accept: "text/csv" } });
    if (!response.ok) throw await Problem.of(response);
    const blob = await collect(response, (bytes) => {
      progress.textContent = `Exporting… ${(bytes / 1e6).toFixed(1)} MB`;
    });
    download(fileName("all"), blob);
    done("The export is saved");
  } catch (problem) {
    if (controller.signal.aborted) return done("The export is cancelled");
    if (problem.status === 401) {
      done("");
      return rejected();
    }
    const { tone, title } = problem.status === 0 ? { tone: "warn", title: "The export broke off; nothing was saved" } : explain(problem);
    done(title, h("div", { class: `card notice ${tone}` }, h("h3", {}, title),
      problem.said && h("p", { class: "said" }, `${problem.status} ${problem.said}`),
      h("div", { class: "line" }, button("Export again", () => saveAll(path, place)))));
  } finally {
    exporting = false;
  }
}

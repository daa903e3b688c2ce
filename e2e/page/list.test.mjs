// The list: filters, pages, files.

import assert from "node:assert/strict";
import { accessible, clipboard, heading, hold, saved, shows, visit } from "./browser.mjs";
import { order } from "./orders.mjs";
import { eventually, send } from "./system.mjs";

const uids = (page) => page.locator("#list tbody tr:not([hidden]) a").allInnerTexts();

/** The times at which orders were stored, by uid. */
async function stored(api, customer_id) {
  const { orders } = await (await fetch(`${api.url}/orders?${new URLSearchParams({ customer_id })}`)).json();
  return new Map(orders.map(({ order_uid, created_at }) => [order_uid, created_at]));
}

async function fill(page, values) {
  if (!await page.locator("#filter").isVisible()) await page.click("#filter-title");
  for (const [name, value] of Object.entries(values)) await page.fill(`#${name}`, value);
  await page.click("#filter .primary");
}

export const tests = {
  async "each filter chooses its orders"(api) {
    const customer_id = "filtered customer";
    const own = { customer_id, delivery: { phone: "+4930111", email: "Filter+1@example.com" } };
    await send(api, order("filter-1", own));
    await send(api, order("filter-2", { customer_id, track_number: "filter-track" }));
    const page = await visit(api);
    await fill(page, { customer_id });
    await eventually(async () => assert.deepEqual(await uids(page), ["filter-2", "filter-1"]));
    await shows(page, "#filter-title", "Filter (1 set)");
    await accessible(page, "filtered list");
    await fill(page, { customer_id, track_number: "filter-track" });
    await eventually(async () => assert.deepEqual(await uids(page), ["filter-2"]));
    await fill(page, { customer_id: "", track_number: "", phone: "+49 30 111" });
    await eventually(async () => assert.deepEqual(await uids(page), ["filter-1"]));
    await fill(page, { phone: "", email: "Filter+1@example.com" });
    await eventually(async () => assert.deepEqual(await uids(page), ["filter-1"]));
    assert.equal(new URLSearchParams(new URL(page.url()).hash.slice(3)).get("email"), "Filter+1@example.com");
    await fill(page, { email: "unknown@example.com" });
    await shows(page, "#list .body", "No order matches this filter.");
    await page.goBack();
    await eventually(async () => assert.deepEqual(await uids(page), ["filter-1"]));
    await page.click("#clear");
    await shows(page, "#filter-title", "Filter");
  },

  async "times are exact in a link, and local in the form"(api) {
    const customer_id = "timed";
    await send(api, order("timed-1", { customer_id }));
    await send(api, order("timed-2", { customer_id }));
    const times = await stored(api, customer_id);
    const query = (values) => `/#/?${new URLSearchParams({ customer_id, ...values })}`;
    const page = await visit(api, query({ created_from: times.get("timed-2") }));
    await eventually(async () => assert.deepEqual(await uids(page), ["timed-2"]));
    // An unchanged time keeps its microseconds when another filter is set.
    await page.click("#filter .primary");
    assert.equal(new URLSearchParams(new URL(page.url()).hash.slice(3)).get("created_from"), times.get("timed-2"));
    await page.goto(`${api.url}${query({ created_to: times.get("timed-2") })}`);
    await eventually(async () => assert.deepEqual(await uids(page), ["timed-1"]));
    // 12:00 in Moscow.
    await fill(page, { created_to: "2020-01-01T12:00:00" });
    await shows(page, "#list .body", "No order matches this filter.");
    assert.equal(new URLSearchParams(new URL(page.url()).hash.slice(3)).get("created_to"), "2020-01-01T09:00:00Z");
  },

  async "a filter that the service rejects is explained above the list"(api) {
    const page = await visit(api, "/#/?phone=12");
    await shows(page, "#list > .slot h3", "The service rejects this filter");
    await shows(page, "#list > .slot .said", /^400 /);
    await accessible(page, "rejected filter");
  },

  async "a filter that loads or is rejected leaves no old rows to continue, save or copy"(api) {
    await send(api, ...Array.from({ length: 21 }, (_, i) => order(`left-${i}`)));
    const page = await visit(api);
    await shows(page, "#more", "Load more");
    const release = await hold(page, "**/orders?*customer_id=customer-of-left-1");
    const offered = async () => [await page.locator("#more").isVisible(), await page.locator("#tools").isVisible()];
    await fill(page, { customer_id: "customer-of-left-1" });
    await shows(page, "#list .body", "Loading…");
    assert.deepEqual(await offered(), [false, false]);
    release();
    await eventually(async () => assert.deepEqual(await uids(page), ["left-1"]));
    assert.deepEqual(await offered(), [false, true]);
    await fill(page, { phone: "12" });
    await shows(page, "#list > .slot h3", "The service rejects this filter");
    assert.deepEqual(await offered(), [false, false]);
  },

  async "an export does not take the focus from another place"(api) {
    await send(api, order("export-focus"));
    const page = await visit(api);
    await shows(page, "#list tbody tr:first-child a", "export-focus");
    const release = await hold(page, "**/orders/export*");
    await page.click("#save-all");
    await shows(page, "#export-slot", /^Exporting/);
    await page.focus("#q");
    const file = page.waitForEvent("download");
    release();
    await file;
    await shows(page, "#status", "The export is saved");
    assert.equal(await page.evaluate(() => document.activeElement.id), "q");
  },

  async "the filter by currency names what it does"(api) {
    const customer_id = "currencies";
    await send(api, order("currency-1", { customer_id, payment: { currency: "EUR" } }), order("currency-2", { customer_id }));
    const page = await visit(api, `/#/?customer_id=${customer_id}`);
    await fill(page, { currency: "eur" });
    await eventually(async () => assert.deepEqual(await uids(page), ["currency-1"]));
    await shows(page, "#note", /^1 of 2 loaded orders in EUR\. The service has no filter by currency/);
    const file = await saved(page, "#save-shown");
    assert.match(file.name, /^orders-shown-.*\.csv$/);
    assert.deepEqual(file.text.split("\r\n").slice(1).map((line) => line.split(",")[0]), ["currency-1", ""]);
  },

  async "files hold the shown rows or all matches"(api) {
    const customer_id = "=files";
    const orders = Array.from({ length: 25 }, (_, i) => order(`file-${i}`, { customer_id }));
    await send(api, ...orders);
    const page = await visit(api, `/#/?${new URLSearchParams({ customer_id })}`);
    await eventually(async () => assert.equal((await uids(page)).length, 20));
    const shown = await saved(page, "#save-shown");
    const all = await saved(page, "#save-all");
    const lines = (file) => file.text.trimEnd().split("\r\n");
    assert.deepEqual([lines(shown).length, lines(all).length], [21, 26]);
    // Both have the same columns and cells.
    assert.deepEqual(lines(shown), lines(all).slice(0, 21));
    assert.match(lines(shown)[1], /,'=files,/);

    await page.click("#more");
    await eventually(async () => assert.equal((await uids(page)).length, 25));
    assert.equal(await page.locator("#more").isVisible(), false);
    assert.deepEqual(lines(await saved(page, "#save-shown")), lines(all));
    await page.click("#copies button:has-text('curl')");
    await shows(page, "#copies button", "JSON\nCopied");
    assert.equal(await clipboard(page), `curl -sS '${api.url}/orders?limit=20&customer_id=%3Dfiles'`);
  },

  async "an export that breaks off saves nothing"(api) {
    await send(api, order("broken-export"));
    const page = await visit(api);
    await shows(page, "#list tbody tr:first-child a", "broken-export");
    await page.route("**/orders/export*", (route) => route.abort());
    await page.click("#save-all");
    await shows(page, "#export-slot h3", "The export broke off; nothing was saved");
    await accessible(page, "failed export");
    await page.unroute("**/orders/export*");
    assert.match((await saved(page, "#export-slot button")).text, /broken-export/);
  },

  async "a click on a row opens its order"(api) {
    await send(api, order("row-click"));
    const page = await visit(api);
    await page.click('[data-uid="row-click"] td:nth-child(4)');
    await heading(page, "row-click");
    assert.equal(await page.locator('#list [data-uid="row-click"] a').getAttribute("aria-current"), "page");
  },
};

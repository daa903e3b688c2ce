// Changes that appear without a reload.

import assert from "node:assert/strict";
import { accessible, heading, shows, text, visit } from "./browser.mjs";
import { manyItems, order } from "./orders.mjs";
import { erase, eventually, send } from "./system.mjs";

const isLive = (page) => shows(page, "#live-state", "Live");
const marked = (page) => page.locator(".order .fresh").evaluateAll((all) => all.map((one) => one.dataset.key));

export const tests = {
  async "an open order follows its changes, and marks them"(api) {
    await send(api, order("live"));
    const page = await visit(api, "/#/order/live");
    await heading(page, "live");
    await isLive(page);
    await page.evaluate(() => { globalThis.same = true; });
    await send(api, order("live", { delivery: { city: "Haifa" } }));
    await shows(page, '[data-key="delivery/City"]', "Haifa");
    await shows(page, ".answer .changed", /^Changed at/);
    const keys = (await marked(page)).filter((key) => !key.startsWith("version/"));
    assert.deepEqual(keys, ["delivery/City"]);
    assert.equal(await page.evaluate(() => globalThis.same), true);
    await accessible(page, "changed order");

    await send(api, order("live", { delivery: { city: "Haifa" }, items: manyItems(2, "TRACK-live") }));
    await shows(page, ".items tfoot", /^2 items/);
    await erase(api, "live");
    await heading(page, "This order was erased");
    assert.equal(await page.locator(".order").count(), 0);
  },

  async "a change keeps the focus, the item search and the open raw JSON"(api) {
    const items = manyItems(30, "TRACK-kept");
    const one = order("kept", { track_number: "TRACK-kept", items });
    await send(api, one);
    const page = await visit(api, "/#/order/kept");
    await heading(page, "kept");
    await isLive(page);
    await page.click('[data-focus="to-raw"]');
    await shows(page, "pre", /"order_uid": "kept"/);
    await page.fill(".find", "article 2");
    await send(api, { ...one, items: items.map((item) => ({ ...item, brand: "Renamed" })) });
    await shows(page, ".items tbody tr:first-child .sub >> nth=0", "Renamed");
    assert.equal(await page.inputValue(".find"), "article 2");
    assert.equal(await page.evaluate(() => document.activeElement.dataset.focus), "find-items");
    await shows(page, "pre", /"brand": "Renamed"/);
    await shows(page, "#items .head > .muted", "11 of 30 items");
  },

  async "a pause holds changes back until it ends"(api) {
    await send(api, order("paused"));
    const page = await visit(api, "/#/order/paused");
    await heading(page, "paused");
    await isLive(page);
    await page.click("#pause");
    await shows(page, "#live-state", "Paused");
    await accessible(page, "paused");
    await send(api, order("paused", { delivery: { city: "Haifa" } }));
    // Another page shows that the change has arrived.
    const other = await visit(api, "/#/order/paused");
    await shows(other, '[data-key="delivery/City"]', "Haifa");
    await shows(page, '[data-key="delivery/City"]', "Kiryat Mozkin");
    await page.reload();
    await shows(page, "#live-state", "Paused");
    await shows(page, '[data-key="delivery/City"]', "Haifa");
    await send(api, order("paused", { delivery: { city: "Jaffa" } }));
    await page.click("#pause");
    await isLive(page);
    await shows(page, '[data-key="delivery/City"]', "Jaffa");
  },

  async "a hidden tab closes its streams, and catches up when it is shown"(api) {
    await send(api, order("hidden"));
    const page = await visit(api, "/#/order/hidden");
    await heading(page, "hidden");
    await isLive(page);
    const hide = (state) => page.evaluate((value) => {
      Object.defineProperty(document, "visibilityState", { value, configurable: true });
      document.dispatchEvent(new Event("visibilitychange"));
    }, state);
    const closed = page.waitForEvent("requestfailed", (request) => request.url().endsWith("/order/hidden/events"));
    await hide("hidden");
    await closed;
    await send(api, order("hidden", { delivery: { city: "Haifa" } }));
    await shows(page, '[data-key="delivery/City"]', "Kiryat Mozkin");
    await hide("visible");
    await shows(page, '[data-key="delivery/City"]', "Haifa");
  },

  async "the list announces new orders, and moves only on request"(api) {
    await send(api, order("list-live-0"));
    const page = await visit(api);
    await shows(page, "#list tbody tr:first-child a", "list-live-0");
    await isLive(page);
    await send(api, order("list-live-1"));
    await shows(page, "#fresh", "1 new order – show");
    await send(api, order("list-live-2"));
    await shows(page, "#fresh", "2 new orders – show");
    await shows(page, "#list tbody tr:first-child a", "list-live-0");
    await accessible(page, "new orders");
    await page.click("#fresh");
    await shows(page, "#list tbody tr:first-child a", "list-live-2");
    assert.equal(await page.locator("#fresh").isVisible(), false);
    assert.equal(await page.evaluate(() => document.activeElement.textContent), "list-live-2");
  },

  async "the list catches up after a pause, and says so once"(api) {
    await send(api, order("missed-0"));
    const page = await visit(api);
    await shows(page, "#list tbody tr:first-child a", "missed-0");
    await isLive(page);
    await page.evaluate(() => {
      globalThis.said = [];
      const status = document.getElementById("status");
      new MutationObserver(() => { if (/new order/.test(status.textContent)) globalThis.said.push(status.textContent); }).observe(status, { childList: true });
    });
    await page.click("#pause");
    await send(api, order("missed-1"));
    await page.click("#pause");
    await shows(page, "#fresh", "1 new order – show");
    await send(api, order("missed-2"));
    await shows(page, "#fresh", "2 new orders – show");
    // The last announcement is this one, so none is still due.
    await page.click("#fresh");
    await shows(page, "#status", /^List refreshed/);
    assert.deepEqual(await page.evaluate(() => globalThis.said), ["1 new order"]);
  },

  async "a listed order shows its changes in place, and that it was erased"(api) {
    await send(api, order("row-1"), order("row-2"));
    const page = await visit(api);
    await shows(page, '[data-uid="row-1"] a', "row-1");
    await isLive(page);
    await send(api, order("row-1", { payment: { amount: 77700 } }));
    await shows(page, '[data-key="row-1/paid"]', "USD 777.00");
    await eventually(async () => assert.equal(await text(page, '[data-uid="row-1"] .fresh'), "USD 777.00"));
    await erase(api, "row-2");
    await shows(page, '[data-uid="row-2"]', /no longer listed/);
    await accessible(page, "erased row");
  },
};

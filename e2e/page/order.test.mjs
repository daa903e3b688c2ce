// One order.

import assert from "node:assert/strict";
import { accessible, clipboard, heading, hold, shows, text, visit } from "./browser.mjs";
import { greatest, order, rightToLeft } from "./orders.mjs";
import { eventually, send } from "./system.mjs";

const copy = async (page, name) => {
  await page.click(`[data-focus="copy-${name}"]`);
  await shows(page, `[data-focus="copy-${name}"]`, "Copied");
  return clipboard(page);
};

export const tests = {
  async "an order is shown with its tier, delivery first, version last"(api) {
    await send(api, order("shown", { payment: { currency: "JPY", amount: 1817 } }));
    const page = await visit(api, "/#/order/shown");
    await heading(page, "shown");
    await shows(page, ".summary", "JPY 1,817 · 1 item · status 202");
    await shows(page, ".answer", /^Answered by (the local cache|Redis|the Postgres database) in [\d.]+ ms\nRound trip/);
    const words = await text(page, ".order");
    const places = ["Delivery\n\n", "Payment", "Details", "Partition", "Offset", "Items in JPY"].map((word) => words.indexOf(word));
    assert.deepEqual([...places].sort((a, b) => a - b), places, words);
    assert(places[0] > 0);
    await accessible(page, "order");
    await page.click('[data-focus="database"]');
    await shows(page, ".answer", /Postgres database.*Unchanged at/s);
    assert.equal(await page.evaluate(() => document.activeElement.dataset.focus), "database");
  },

  async "integers above 2^53 are shown and copied exactly"(api) {
    const { uid, json } = greatest("exact");
    await send(api, json);
    const page = await visit(api, `/#/order/${uid}`);
    await heading(page, uid);
    const shown = await text(page, ".order");
    assert(shown.includes("USD 92,233,720,368,547,758.07"), shown);
    assert(shown.includes("9223372036854775807"), shown);
    // The sum of two items.
    assert(shown.includes("USD 184,467,440,737,095,516.14"), shown);
    assert.equal(await copy(page, "json"), json);
    await page.click('[data-focus="to-raw"]');
    await shows(page, "pre", /"nm_id": 9223372036854775807/);
    await shows(page, "#list tbody tr:first-child", /92,233,720,368,547,758\.07/);
    await page.click("#copies button:has-text('JSON')");
    await shows(page, "#copies button", "Copied\ncurl");
    assert.match(await clipboard(page), /"amount": 9223372036854775807,/);
  },

  async "uid, link and curl command are copied"(api) {
    await send(api, order("copied"));
    const page = await visit(api, "/?q=copied");
    await heading(page, "copied");
    assert.equal(await copy(page, "uid"), "copied");
    assert.equal(await copy(page, "link"), `${api.url}/#/order/copied`);
    assert.equal(await copy(page, "curl"), `curl -sS '${api.url}/order/copied'`);
  },

  async "a slow answer does not bring an older version back"(api) {
    await send(api, order("slow"));
    const page = await visit(api, "/#/order/slow");
    await shows(page, "#live-state", "Live");
    const old = await fetch(`${api.url}/order/slow`);
    const answer = { status: 200, headers: { ETag: old.headers.get("ETag") }, body: await old.text() };
    const release = await hold(page, "**/order/slow", (route) => route.fulfill(answer));
    await page.click('[data-focus="refresh"]');
    await send(api, order("slow", { delivery: { city: "Haifa" } }));
    await shows(page, '[data-key="delivery/City"]', "Haifa");
    // The old order stays readable during the request.
    assert.equal(await page.locator("#result").getAttribute("aria-busy"), "true");
    await accessible(page, "busy");
    release();
    await shows(page, ".answer", /Unchanged at/);
    assert.equal(await text(page, '[data-key="delivery/City"]'), "Haifa");
  },

  async "a failed refresh keeps the order, unless it is gone"(api) {
    await send(api, order("refreshed"));
    const page = await visit(api, "/#/order/refreshed");
    await heading(page, "refreshed");
    let status = 500;
    await page.route("**/order/refreshed", (route) => route.fulfill({ status, body: "" }));
    await page.click('[data-focus="refresh"]');
    await shows(page, "#result .slot", /Unexpected response \(500\).*Below is the order as read at/s);
    await heading(page, "refreshed");
    await accessible(page, "failed refresh");
    status = 404;
    await page.click('[data-focus="refresh"]');
    await heading(page, "No order has this uid");
    assert.equal(await page.locator(".order").count(), 0);
  },

  async "right-to-left text keeps its own direction"(api) {
    const one = rightToLeft("rtl");
    await send(api, one);
    const page = await visit(api, "/#/order/rtl");
    await heading(page, "rtl");
    const directions = await page.evaluate(() => [...document.querySelectorAll(".order bdi")]
      .map((node) => [node.textContent, getComputedStyle(node).direction]));
    for (const value of [one.delivery.name, one.delivery.address, one.delivery.city, one.delivery.region, one.customer_id, one.items[0].name]) {
      assert.deepEqual(directions.find(([found]) => found === value), [value, "rtl"]);
    }
    assert.deepEqual(directions.find(([found]) => found === "Nordkapp"), ["Nordkapp", "ltr"]);
    await accessible(page, "right to left");
  },

  async "recent orders are one click away"(api) {
    await send(api, order("recent-1"), order("recent-2"));
    const page = await visit(api, "/#/order/recent-1");
    await heading(page, "recent-1");
    // The order on the screen needs no link to itself.
    assert.equal(await page.locator("#recent").isVisible(), false);
    await page.goto(`${api.url}/#/order/recent-2`);
    await heading(page, "recent-2");
    await shows(page, "#recent a", "recent-2\nrecent-1");
    await page.click("#recent a:last-child");
    await heading(page, "recent-1");
    await eventually(async () => assert.equal(await text(page, "#recent [aria-current]"), "recent-1"));
  },
};

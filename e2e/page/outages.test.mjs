// A service or a network that is down.

import assert from "node:assert/strict";
import { accessible, heading, search, shows, visit } from "./browser.mjs";
import { order } from "./orders.mjs";
import { Api, send, slowProxy } from "./system.mjs";

export const tests = {
  async "a stopped service is reported, and the page recovers by itself"() {
    const api = await Api.start();
    await send(api, order("outage"));
    const page = await visit(api, "/#/order/outage");
    await heading(page, "outage");
    await shows(page, "#live-state", "Live");
    await api.stop();
    await shows(page, "#live-state", "Reconnecting…");
    await page.click('[data-focus="refresh"]');
    await shows(page, "#result .slot h2", "The service cannot be reached");
    await shows(page, "#result .slot", /Below is the order as read at/);
    await page.click("#reload");
    // The failure stands above the rows, next to the button.
    await shows(page, "#list > .slot h3", "The service cannot be reached");
    const [slot, rows] = await page.evaluate(() => ["#list > .slot", "#list .body"].map((one) => document.querySelector(one).getBoundingClientRect().top));
    assert(slot < rows);
    assert.equal(await page.locator('#list [data-uid="outage"]').count(), 1);
    await accessible(page, "service down, order kept");
    await search(page, "outage-2");
    await heading(page, "The service cannot be reached");
    await shows(page, "#result .slot .line", /Try now\s+Retrying in \d+ s/);
    await accessible(page, "service down");

    await api.start();
    await heading(page, "No order found");
    await shows(page, "#live-state", "Live");
    await shows(page, "#list > .slot >> nth=0", "");
    await api.stop();
  },

  async "an offline browser is reported, and recovers when it is online"(api) {
    await send(api, order("offline"));
    const page = await visit(api);
    await shows(page, "#live-state", "Live");
    await page.context().setOffline(true);
    await search(page, "offline");
    await heading(page, "The service cannot be reached");
    await accessible(page, "offline");
    await page.context().setOffline(false);
    await heading(page, "offline");
    await shows(page, "#live-state", "Live");
  },

  async "an order that arrives slowly is waited for"(api) {
    await send(api, order("slow-body"));
    const proxy = await slowProxy(api, "/order/slow-body");
    try {
      const page = await visit(proxy);
      await page.evaluate(() => {
        const { fetch } = globalThis;
        globalThis.fetch = async (path, options) => {
          const response = await fetch(path, options);
          if (path === "order/slow-body") setTimeout(() => { globalThis.answered = true; });
          return response;
        };
      });
      await page.clock.install();
      await page.evaluate(() => { location.hash = "#/order/slow-body"; });
      await page.waitForFunction(() => globalThis.answered);
      // Longer than the wait for the head of a response.
      await page.clock.fastForward(11_000);
      proxy.release();
      await heading(page, "slow-body");
      assert.equal(proxy.requests, 1);
    } finally {
      proxy.close();
    }
  },

  async "a list that fails leaves the order in view"(api) {
    await send(api, order("in-view"));
    const page = await visit(api, "/docs", { height: 500 });
    await page.route("**/orders?*", (route) => route.fulfill({ status: 503, body: "" }));
    await page.goto(`${api.url}/#/order/in-view`);
    await heading(page, "in-view");
    await shows(page, "#list > .slot h3", "The service is unavailable");
    assert.equal(await page.evaluate(() => scrollY), 0);
  },

  async "a failure to load more rows is shown below them"(api) {
    await send(api, ...Array.from({ length: 21 }, (_, i) => order(`page-of-${i}`)));
    const page = await visit(api);
    await page.route("**/orders?*cursor=*", (route) => route.fulfill({
      status: 503, headers: { "Retry-After": "1", "Content-Type": "application/problem+json" },
      body: '{"title":"Unavailable","detail":"Try again later.","code":"unavailable","status":503}',
    }));
    await page.click("#more");
    await shows(page, "#more-slot h3", "The service is unavailable");
    await shows(page, "#more-slot .said", /503 unavailable Unavailable: Try again later\./);
    await accessible(page, "failed page");
    await page.unroute("**/orders?*cursor=*");
    await page.waitForFunction(() => document.querySelectorAll("#list tbody tr").length > 20);
  },

  async "an answer that is no JSON, and a rate limit, are named"(api) {
    const page = await visit(api);
    await page.route("**/order/strange", (route) => route.fulfill({ status: 200, body: "<html>proxy</html>" }));
    await page.goto(`${api.url}/#/order/strange`);
    await heading(page, "The service is unavailable");
    await shows(page, ".said", /The response is not JSON/);
    await page.route("**/order/limited", (route) => route.fulfill({ status: 429, headers: { "Retry-After": "7" }, body: "" }));
    await page.goto(`${api.url}/#/order/limited`);
    await heading(page, "Too many requests");
    await shows(page, ".line", /Retry-After: 7 s/);
    await page.route("**/order/denied", (route) => route.fulfill({ status: 403, body: "" }));
    await page.goto(`${api.url}/#/order/denied`);
    await heading(page, "Your token does not allow this");
    await accessible(page, "denied");
    await page.route("**/order/broken", (route) => route.fulfill({ status: 500, body: "" }));
    await page.goto(`${api.url}/#/order/broken`);
    await heading(page, "Unexpected response (500)");
  },
};

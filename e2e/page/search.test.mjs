// The search box, links and history.

import assert from "node:assert/strict";
import { accessible, focusByKey, heading, search, selected, shows, text, visit } from "./browser.mjs";
import { order } from "./orders.mjs";
import { erase, eventually, send } from "./system.mjs";

const address = (page) => page.evaluate(() => location.pathname + location.search + location.hash);

export const tests = {
  async "each kind of text finds its order"(api) {
    const one = order("search-kinds", { delivery: { phone: "+4930123456" } });
    await send(api, one);
    const page = await visit(api);
    const cases = [
      ["Order search-kinds", /order uid search-kinds 1 order/],
      [`track no. ${one.track_number}`, /track number TRACK-search-kinds 1 order/],
      [one.customer_id, /customer id 1 order/],
      ["+49 30 123456", /phone \+4930123456 1 order/],
      ["Test <search-kinds@example.com>", /e-mail search-kinds@example.com 1 order/],
    ];
    for (const [query, tried] of cases) {
      await search(page, query);
      await shows(page, ".tried", tried);
      await heading(page, "search-kinds");
      await shows(page, "#q", "");
      assert.equal(await page.inputValue("#q"), query);
      await eventually(async () => assert.equal(await selected(page), query));
      assert.equal(await address(page), `/#/?${new URLSearchParams({ q: query })}`);
      await page.click(".brand");
      await heading(page, "Find an order");
    }
  },

  async "an ambiguous code is searched in all ways, and the page shows which matched"(api) {
    await send(api, order("both-ways"), order("both-ways-2", { track_number: "both-ways" }), order("both-ways-3", { customer_id: "both-ways" }));
    const page = await visit(api);
    await search(page, "both-ways");
    await heading(page, "3 orders");
    await shows(page, ".tried li", "order uid 1 order\ntrack number 1 order\ncustomer id 1 order");
    await shows(page, "#result h2", "By order uid both-ways\nBy track number both-ways\nBy customer id both-ways");
    await accessible(page, "several matches");
    await page.click("#result .flush:nth-of-type(3) a.mono");
    await heading(page, "both-ways-3");
  },

  async "an unknown text is selected, so that the next one replaces it"(api) {
    const page = await visit(api);
    await search(page, "nothing-like-this");
    await heading(page, "No order found");
    await shows(page, ".tried li", "order uid none\ntrack number none\ncustomer id none");
    assert.equal(await selected(page), "nothing-like-this");
    await accessible(page, "not found");
    await search(page, "?!");
    await heading(page, "Nothing to search for");
    await page.goto(`${api.url}/#/order/nothing-like-this`);
    await heading(page, "No order has this uid");
    assert.equal(await selected(page), "nothing-like-this");
    await page.goto(`${api.url}/#/order/no%20uid`);
    await heading(page, "This is not an order uid");
    await accessible(page, "malformed uid");
  },

  async "a search that failed in part is not called empty"(api) {
    const page = await visit(api);
    let broken = true;
    await page.route("**/orders?track_number=*", (route) => (broken ? route.fulfill({ status: 503, body: "" }) : route.continue()));
    await search(page, "in-part");
    await heading(page, "The search is incomplete");
    await shows(page, ".tried li", "order uid none\ntrack number not searched: the service is unavailable\ncustomer id none");
    await accessible(page, "incomplete search");
    broken = false;
    await page.click("#result .notice button");
    await heading(page, "No order found");
  },

  async "an erased order is named as such"(api) {
    await send(api, order("search-erased"));
    await erase(api, "search-erased");
    const page = await visit(api, "/?q=search-erased");
    await heading(page, "This order was erased");
    await shows(page, ".tried li", "order uid erased\ntrack number none\ncustomer id none");
    await page.goto(`${api.url}/#/order/search-erased`);
    await heading(page, "This order was erased");
    await accessible(page, "erased");
  },

  async "links open an order, a search and a filtered list"(api) {
    await send(api, order("deep-link"));
    for (const link of ["/#/order/deep-link", "/?q=deep-link", "/#/?q=deep-link", "/?q=deep-link%40example.com"]) {
      const page = await visit(api, link);
      await heading(page, "deep-link");
      // What is searched moves behind the #, where no server sees it.
      assert.doesNotMatch(await address(page), /\?.*#/);
    }
    const page = await visit(api, "/#/?customer_id=customer-of-deep-link");
    await shows(page, ".rows tbody a", "deep-link");
    assert.equal(await page.inputValue("#customer_id"), "customer-of-deep-link");
  },

  async "back and forward lead through orders, searches and lists"(api) {
    await send(api, order("history-1"), order("history-2"));
    const page = await visit(api);
    await heading(page, "Find an order");
    await search(page, "history-1");
    await heading(page, "history-1");
    await page.click(`a[href="#/?customer_id=customer-of-history-1"]`);
    await heading(page, "Find an order");
    await shows(page, ".rows tbody a", "history-1");
    await search(page, "no-history");
    await heading(page, "No order found");
    await search(page, "history-2");
    await heading(page, "history-2");
    for (const [expected, query] of [["No order found", "no-history"], ["Find an order", ""], ["history-1", "history-1"], ["Find an order", ""]]) {
      await page.goBack();
      await heading(page, expected);
      assert.equal(await page.inputValue("#q"), query);
    }
    await page.goForward();
    await heading(page, "history-1");
    assert.equal(await page.title(), "history-1 · Orders");
  },

  async "the keyboard alone reaches everything"(api) {
    await send(api, order("keyboard-1"));
    await send(api, order("keyboard-2", { customer_id: "customer-of-keyboard-1" }));
    const page = await visit(api);
    await page.focus("#reload");
    await page.keyboard.press("/");
    await page.keyboard.type("customer-of-keyboard-1");
    await page.keyboard.press("Enter");
    await heading(page, "2 orders");
    await focusByKey(page, '#result a[href="#/order/keyboard-2"]');
    await page.keyboard.press("Enter");
    await heading(page, "keyboard-2");
    await eventually(async () => assert.equal(await page.evaluate(() => document.activeElement.tagName), "H1"));
    await focusByKey(page, '[data-focus="to-raw"]');
    await page.keyboard.press("Enter");
    await shows(page, "pre", /"order_uid": "keyboard-2"/);
    await focusByKey(page, '[data-focus="to-list"]', "Shift+Tab");
    await page.keyboard.press("Enter");
    assert.equal(await page.evaluate(() => document.activeElement.id), "list");
    await focusByKey(page, "#filter-title");
    await page.keyboard.press("Enter");
    await focusByKey(page, "#customer_id");
    await page.keyboard.type("customer-of-keyboard-1");
    await page.keyboard.press("Enter");
    await shows(page, "#list tbody a", "keyboard-2\nkeyboard-1");
    await focusByKey(page, "#clear");
    await page.keyboard.press("Space");
    await eventually(async () => assert.equal(await page.inputValue("#customer_id"), ""));
    assert.equal(await text(page, "#filter-title"), "Filter");
  },
};

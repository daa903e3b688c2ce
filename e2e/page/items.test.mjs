// An order with as many items as the rules allow.

import assert from "node:assert/strict";
import { accessible, heading, shows, text, visit } from "./browser.mjs";
import { manyItems, order } from "./orders.mjs";
import { send } from "./system.mjs";

const rows = (page) => page.locator(".items tbody tr").count();

export const tests = {
  async "1000 items are collapsed and searchable, and hide nothing below"(api) {
    const items = manyItems(1000, "TRACK-many");
    items[999].name = "Needle";
    await send(api, order("many", { track_number: "TRACK-many", items }));
    const page = await visit(api, "/#/order/many");
    await heading(page, "many");
    assert.equal(await rows(page), 20);
    await shows(page, ".items tfoot", /^1000 items/);
    await accessible(page, "collapsed items");

    await page.fill(".find", "needle");
    assert.equal(await rows(page), 1);
    await shows(page, "#items .head > .muted", "1 of 1000 items");
    await page.fill(".find", "200777");
    assert.match(await text(page, ".items tbody"), /^Article 777/);
    await page.fill(".find", "no such thing");
    await shows(page, "#items .pad.muted", "No item matches.");
    await page.fill(".find", "");
    await page.click('[data-focus="more-items"]');
    assert.equal(await rows(page), 1000);
    await shows(page, '[data-focus="more-items"]', "Show the first 20 only");

    // Above 1000 rows, the rest of the page is one click away.
    for (const [name, id] of [["to-raw", "raw"], ["to-list", "list"], ["to-items", "items"]]) {
      await page.click(`[data-focus="${name}"]`);
      const place = await page.locator(`#${id}`).evaluate((one) => one.getBoundingClientRect().top / innerHeight);
      assert(place >= 0 && place < 1, `${id} is at ${place}`);
    }
    await page.click('[data-focus="more-items"]');
    assert.equal(await rows(page), 20);
  },
};

// Widths from a small phone to a large window, touch, and the screenshots of the documentation.

import assert from "node:assert/strict";
import { statSync } from "node:fs";
import { join } from "node:path";
import { accessible, cut, heading, search, shows, visit } from "./browser.mjs";
import { greatest, order, rightToLeft } from "./orders.mjs";
import { eventually, send } from "./system.mjs";

const WIDTHS = [...Array.from({ length: 55 }, (_, i) => 320 + i * 20), 375, 899, 900, 901, 1040, 1041, 1050, 1059];

/** Pictures that pages of the documentation load. */
const PUBLISHED = ["order", "list", "phone"];
const IMAGE_MAX = 150_000;

async function image(page, name, options) {
  const path = join(process.env.IMAGES, `${name}.png`);
  await page.screenshot({ path, ...options });
  // Other fonts give other sizes, so only pictures that are to be published are checked.
  if (process.env.RENEW_IMAGES === "1" && PUBLISHED.includes(name)) assert(statSync(path).size <= IMAGE_MAX, `${name}.png has ${statSync(path).size} bytes`);
}

const basket = order("fc57a2a670d74df1bf9b1082bd6979e5", {
  track_number: "WBIL4708592687", customer_id: "customer-15220", locale: "ru",
  delivery: { name: "Анна Петрова", phone: "+74955214495", email: "anna.petrova@example.com", zip: "101319", city: "Москва", address: "улица Ленина 41", region: "Москва" },
  payment: { currency: "RUB", amount: 87245, goods_total: 86245, delivery_cost: 1000, custom_fee: 0, bank: "sber", request_id: "" },
});
const article = (name, brand, nm_id, size, price, sale, total_price) =>
  ({ ...basket.items[0], name, brand, nm_id, chrt_id: nm_id + 1_445_000, rid: `${nm_id}b0a124e38b9bd83784b848bf7`, size, price, sale, total_price });
basket.items = [
  article("Notebook A5", "Papyrus", 6594809, "A5", 7779, 25, 5834), article("Куртка зимняя", "Nordkapp", 9402450, "XL", 18581, 0, 18581),
  article("Desk lamp", "Lumen", 723701, "one size", 17352, 25, 13014), article("قميص قطن", "Atlas", 9636091, "M", 48816, 0, 48816),
];

export const tests = {
  async "no width cuts a column or scrolls sideways, even with the greatest values"(api) {
    const { uid, json } = greatest("widths");
    await send(api, json, rightToLeft("widths-rtl"));
    const page = await visit(api, `/?q=${uid}`);
    await heading(page, uid);
    await page.click('[data-focus="to-raw"]');
    await page.click("#filter-title");
    await shows(page, "#live-state", "Live");
    for (const width of WIDTHS) {
      await page.setViewportSize({ width, height: 800 });
      assert.deepEqual(await cut(page), [], `${width} px`);
    }
    await page.goto(`${api.url}/#/?q=${"long-text-".repeat(20)}`);
    await shows(page, "h1", "No order found");
    for (const width of WIDTHS) {
      await page.setViewportSize({ width, height: 800 });
      assert.deepEqual(await cut(page), [], `not found at ${width} px`);
    }
  },

  async "on a phone, nothing covers the heading or what a jump leads to"(api) {
    await send(api, order("phone"));
    const page = await visit(api, "/", { width: 375, height: 667, touch: true });
    await search(page, "phone");
    await heading(page, "phone");
    // Its keyboard would cover the order.
    await eventually(async () => assert.equal(await page.evaluate(() => document.activeElement.tagName), "H1"));
    const uncovered = (selector) => page.locator(selector).first().evaluate((one) => {
      const box = one.getBoundingClientRect();
      const top = document.elementFromPoint(box.left + 5, box.top + Math.min(5, box.height / 2));
      return top !== null && (one.contains(top) || top.contains(one));
    });
    await eventually(async () => assert.equal(await uncovered("h1"), true));
    for (const [name, target] of [["to-items", "#items"], ["to-raw", "#raw"], ["to-list", "#list-title"]]) {
      await page.tap(`[data-focus="${name}"]`);
      await eventually(async () => assert.equal(await uncovered(target), true, name));
    }
    assert.deepEqual(await cut(page), []);
    await accessible(page, "phone");
    // In a wide window the header stays above what is scrolled to.
    await page.setViewportSize({ width: 1200, height: 600 });
    await page.click('[data-focus="to-list"]');
    assert.equal(await uncovered("#list-title"), true);
  },

  async "pictures for the documentation"(api) {
    await send(api, ...Array.from({ length: 5 }, (_, i) => order(`9b537a83fed43f69f63e29120aa4480${i}`, {
      track_number: `WBIL59027418${i}`, customer_id: basket.customer_id, payment: { currency: ["RUB", "USD", "JPY"][i % 3], amount: 4471 * (i + 1) ** 3 },
    })), basket);
    const light = await visit(api, "/?q=WBIL4708592687", { width: 1160, height: 909 });
    await heading(light, basket.order_uid);
    await shows(light, "#live-state", "Live");
    await light.evaluate(() => document.activeElement.blur());
    await image(light, "order");
    await image(light, "order-whole", { fullPage: true });
    await light.emulateMedia({ colorScheme: "dark", reducedMotion: "reduce" });
    await image(light, "order-dark");
    await light.goto(`${api.url}/#/?customer_id=${basket.customer_id}`);
    await heading(light, "Find an order");
    await eventually(async () => assert.equal(await light.locator("#list tbody tr").count(), 6));
    await light.emulateMedia({ colorScheme: "light", reducedMotion: "reduce" });
    await light.setViewportSize({ width: 1160, height: 783 });
    await image(light, "list");

    const phone = await visit(api, `/#/order/${basket.order_uid}`, { width: 375, height: 812, touch: true });
    await heading(phone, basket.order_uid);
    await shows(phone, "#live-state", "Live");
    await image(phone, "phone");
    await image(phone, "phone-whole", { fullPage: true });
    await phone.emulateMedia({ colorScheme: "dark", reducedMotion: "reduce" });
    await image(phone, "phone-dark");
    await phone.goto(`${api.url}/#/?q=nothing-like-it`);
    await heading(phone, "No order found");
    await image(phone, "phone-not-found", { fullPage: true });
  },
};

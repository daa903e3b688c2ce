// Chromium, pages of it, and checks of what they show.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import { eventually } from "./system.mjs";

const modules = process.env.PAGE_TEST_MODULES;
assert(modules, "PAGE_TEST_MODULES is not set; run scripts/page-test");
const require = createRequire(join(modules, "package.json"));
const { chromium } = require("playwright-core");
const axe = readFileSync(require.resolve("axe-core/axe.min.js"), "utf8");

let browser;
const contexts = new Set();

export async function launch() {
  browser = await chromium.launch({
    executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
    // A container has no user namespaces, and runs the test as root.
    args: ["--no-sandbox", "--disable-dev-shm-usage"],
  });
}

export const close = () => browser?.close();

/** Opens `path` of `api` in a browser context of its own. The page fails the test if it throws or breaks its policy. */
export async function visit(api, path = "/", { width = 1200, height = 900, dark, touch, ...options } = {}) {
  const context = await browser.newContext({
    viewport: { width, height }, colorScheme: dark ? "dark" : "light", reducedMotion: "reduce", hasTouch: Boolean(touch),
    isMobile: Boolean(touch), locale: "en-GB", timezoneId: "Europe/Moscow", permissions: ["clipboard-read", "clipboard-write"],
    acceptDownloads: true, ...options,
  });
  context.setDefaultTimeout(20_000);
  const page = await context.newPage();
  page.faults = [];
  page.on("pageerror", (error) => page.faults.push(String(error)));
  page.on("console", (message) => {
    // Chromium logs each response that is no success.
    if (message.type() === "error" && !/Failed to load resource/.test(message.text())) page.faults.push(message.text());
  });
  contexts.add(context);
  await page.goto(`${api.url}${path}`);
  return page;
}

/** Closes all pages after a test, and fails if one of them had an error. */
export async function closePages() {
  const pages = [...contexts].flatMap((context) => context.pages());
  const faults = pages.flatMap((page) => page.faults);
  await Promise.all([...contexts].map((context) => context.close()));
  contexts.clear();
  assert.deepEqual(faults, []);
}

/** With plain spaces. */
const plain = (found) => found.replaceAll("\u00a0", " ");

export const text = async (page, selector) => plain(await page.locator(selector).innerText());

/** Waits until the text of `selector` matches. */
export async function shows(page, selector, expected) {
  await eventually(async () => {
    const found = plain((await page.locator(selector).allInnerTexts()).join("\n"));
    if (expected instanceof RegExp) assert.match(found, expected);
    else assert.equal(found, expected);
  });
}

/** Waits until the main heading has that text. */
export const heading = (page, expected) => shows(page, "h1", expected);

export async function search(page, query) {
  await page.fill("#q", query);
  await page.press("#q", "Enter");
}

/** The text that is selected in the search box. */
export const selected = (page) => page.evaluate(() => {
  const box = document.getElementById("q");
  return document.activeElement === box ? box.value.slice(box.selectionStart, box.selectionEnd) : null;
});

export const clipboard = (page) => page.evaluate(() => navigator.clipboard.readText());

/** Presses `key` until `selector` has the focus. */
export async function focusByKey(page, selector, key = "Tab") {
  for (let presses = 0; presses < 100; presses += 1) {
    if (await page.locator(selector).evaluate((one) => one === document.activeElement)) return;
    await page.keyboard.press(key);
  }
  assert.fail(`${key} does not reach ${selector}`);
}

/** Holds requests of `url` back until the returned function is called; then `answer(route)` responds. */
export async function hold(page, url, answer = (route) => route.continue()) {
  let release;
  const released = new Promise((resolve) => { release = resolve; });
  await page.route(url, async (route) => {
    await released;
    await answer(route);
  });
  return release;
}

/** Saves what a click downloads. Returns its name and text. */
export async function saved(page, selector) {
  const [file] = await Promise.all([page.waitForEvent("download"), page.click(selector)]);
  return { name: file.suggestedFilename(), text: readFileSync(await file.path(), "utf8") };
}

/** Has axe find no fault, and the page have one main heading, in light and dark. */
export async function accessible(page, state) {
  for (const colorScheme of ["dark", "light"]) {
    await page.emulateMedia({ colorScheme, reducedMotion: "reduce" });
    await page.evaluate(axe);
    const found = await page.evaluate(() => globalThis.axe.run(document, { resultTypes: ["violations"] }));
    const violations = found.violations.map(({ id, nodes }) => `${id}: ${nodes.map(({ html, failureSummary }) => `${html} ${failureSummary}`).join("\n")}`);
    assert.deepEqual(violations, [], `${state}, ${colorScheme}`);
  }
  assert.equal(await page.locator("h1:visible").count(), 1, `${state}: main headings`);
}

/** Returns the elements that are wider than their place, and whether the page scrolls sideways. */
export const cut = (page) => page.evaluate(() => {
  const faults = [];
  const root = document.documentElement;
  if (root.scrollWidth > root.clientWidth) faults.push(`page: ${root.scrollWidth} of ${root.clientWidth}`);
  for (const one of document.querySelectorAll("main *, header *")) {
    if (one.matches("pre, pre *, .hidden, thead, thead *, input, option") || !one.checkVisibility()) continue;
    const box = one.getBoundingClientRect();
    const name = `${one.tagName}.${one.className} ${one.textContent.slice(0, 40)}`;
    if (one.scrollWidth > one.clientWidth + 1 && getComputedStyle(one).display !== "inline") faults.push(`cut: ${name}`);
    if (box.right > root.clientWidth + 1 || box.left < -1) faults.push(`outside: ${name}`);
  }
  for (const head of document.querySelectorAll("thead th")) {
    if (getComputedStyle(head.closest("thead")).position !== "absolute" && head.scrollWidth > head.clientWidth + 1) {
      faults.push(`cut: ${head.textContent}`);
    }
  }
  return [...new Set(faults)].slice(0, 8);
});

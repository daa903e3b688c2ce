// Keys: sign in, sign out, a key that expires.

import assert from "node:assert/strict";
import { accessible, clipboard, heading, shows, visit } from "./browser.mjs";
import { order } from "./orders.mjs";
import { Api, eventually, keyFile, send } from "./system.mjs";

let guarded;

/** The api with keys; all tests share it. */
async function guardedApi() {
  guarded ??= await Api.start({ API_KEYS_FILE: keyFile("support", "letmein") });
  return guarded;
}

async function signIn(page, token) {
  await page.fill("#token", token);
  await page.press("#token", "Enter");
}

export const tests = {
  async "without keys, the page asks for none"(api) {
    const page = await visit(api);
    await shows(page, "#live-state", "Live");
    assert.equal(await page.locator("#auth").isVisible(), false);
    assert.equal(await page.locator("#session").isVisible(), false);
  },

  async "with keys, the page asks, shows who is signed in, and forgets on sign out"() {
    const api = await guardedApi();
    await send(api, order("signed-in"));
    const page = await visit(api, "/?q=signed-in");
    await heading(page, "Sign in");
    await eventually(async () => assert.equal(await page.evaluate(() => document.activeElement.id), "token"));
    await accessible(page, "sign in");
    assert.deepEqual([await page.locator("#list").isVisible(), await page.locator("#live").isVisible()], [false, false]);
    await signIn(page, "wrong");
    await shows(page, "#auth-why", /does not accept this token/);
    await accessible(page, "rejected token");
    await signIn(page, "not ascii ∞");
    await shows(page, "#auth-why", /consists of ASCII/);
    await signIn(page, "letmein");
    // The search that the page was opened with.
    await heading(page, "signed-in");
    await shows(page, "#session", /^Signed in as support \(read, list, personal data\)\s+Sign out$/);
    await shows(page, "#live-state", "Live");
    await shows(page, "#list tbody tr:first-child a", "signed-in");
    await accessible(page, "signed in");

    await page.click('[data-focus="copy-curl"]');
    await shows(page, '[data-focus="copy-curl"]', "Copied");
    assert.equal(await clipboard(page), `curl -sS -H "Authorization: Bearer $TOKEN" '${api.url}/order/signed-in'`);
    // The name is shown as soon as the service can be reached.
    await page.route("**/caller", (route) => route.abort(), { times: 1 });
    await page.reload();
    await shows(page, "#session", /Signed in as support/);

    await page.click("#session button");
    await shows(page, "#auth h2", "Sign in");
    assert.deepEqual(await page.evaluate(() => [sessionStorage.length, document.querySelectorAll(".order, .rows").length]), [0, 0]);
  },

  async "after a key has expired, the page asks again and keeps what it shows"() {
    const api = await guardedApi();
    await send(api, order("expired"));
    const page = await visit(api, "/#/order/expired");
    await signIn(page, "letmein");
    await heading(page, "expired");
    await shows(page, "#live-state", "Live");
    await page.locator("#q").pressSequentially("typing");
    await api.stop();
    api.variables = { API_KEYS_FILE: keyFile("nightshift", "letmein2") };
    await api.start();
    await shows(page, "#auth h2", "Sign in");
    await shows(page, "#auth-why", /no longer accepts your token/);
    assert.equal(await page.evaluate(() => document.activeElement.id), "q");
    await shows(page, "h1", "expired");
    await accessible(page, "expired key");
    await signIn(page, "letmein2");
    await shows(page, "#session", /Signed in as nightshift/);
    await shows(page, "#live-state", "Live");
    assert.equal(await page.locator("#auth").isVisible(), false);
    await page.click('[data-focus="refresh"]');
    await shows(page, ".answer", /Unchanged at/);
    await api.stop();
    api.variables = { API_KEYS_FILE: keyFile("support", "letmein") };
    await api.start();
  },

  async "without the scope for lists, the page finds orders and says why it has no list"() {
    const api = await Api.start({ API_KEYS_FILE: keyFile("clerk", "letmein", "orders:read,orders:pii") });
    await send(api, order("only-read"));
    const page = await visit(api);
    await signIn(page, "letmein");
    await shows(page, "#session", /^Signed in as clerk \(read, personal data\)/);
    await shows(page, "#list h3", "Your token does not list orders");
    await shows(page, "#list .said", /orders:list/);
    for (const part of ["#filters", "#reload", "#tools", "#live"]) {
      await eventually(async () => assert.equal(await page.locator(part).isVisible(), false, part));
    }
    await accessible(page, "no list");
    await page.fill("#q", "only-read");
    await page.press("#q", "Enter");
    await heading(page, "only-read");
    await shows(page, "#live-state", "Live");
    await page.fill("#q", "customer-1");
    await page.press("#q", "Enter");
    await shows(page, ".tried", /not searched: your token does not allow this/);
    await api.stop();
  },
};

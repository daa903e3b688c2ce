// Runs the tests one after another, with one browser and one api without keys. `scripts/page-test` starts it.

import { after, before, test } from "node:test";
import { close, closePages, launch } from "./browser.mjs";
import { Api, stopApis } from "./system.mjs";

const suites = ["modules", "search", "order", "items", "live", "list", "session", "outages", "layout"];
const only = process.argv.slice(2);
let api;

before(async () => {
  [api] = await Promise.all([Api.start(), launch()]);
});
after(async () => {
  await close();
  await stopApis();
});

for (const suite of suites) {
  const { tests } = await import(`./${suite}.test.mjs`);
  for (const [name, run] of Object.entries(tests)) {
    const title = `${suite}: ${name}`;
    if (only.length > 0 && !only.some((word) => title.includes(word))) continue;
    test(title, { timeout: 120_000 }, async () => {
      try {
        await run(api);
      } finally {
        await closePages();
      }
    });
  }
}

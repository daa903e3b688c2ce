// Modules that need no elements, run inside the page.

import assert from "node:assert/strict";
import { visit } from "./browser.mjs";

/** Calls `name` of a module for each of `inputs`. */
const call = (page, module, name, inputs) => page.evaluate(async ([path, member, values]) => {
  const found = (await import(path))[member];
  return values.map((value) => found(...value));
}, [`/assets/${module}.js`, name, inputs]);

const uid = (value) => [`order_uid ${value}`];
const order = (value) => [...uid(value), `track_number ${value}`];
const any = (value) => [...order(value), `customer_id ${value}`];

const TEXTS = [
  ["b563feb7b2b84b6test", any("b563feb7b2b84b6test")],
  ["  \u200b\"hC-rub\",\n", any("hC-rub")],
  ["«hC_rub»", any("hC_rub")],
  ["Order hC-rub", order("hC-rub")],
  ["order #hC-rub.", order("hC-rub")],
  ["Order no. 4711", order("4711")],
  ["uid: hC-rub", uid("hC-rub")],
  ["order_uid=hC-rub", uid("hC-rub")],
  ["{\"order_uid\":\"hC-rub\",\"track_number\":\"WB1\"}", uid("hC-rub")],
  ["https://shop.example/order/hC-rub?nocache=1", uid("hC-rub")],
  ["see <https://shop.example/x/#/order/hC-rub>, please", uid("hC-rub")],
  ["https://shop.example/order/b563feb7\n b2b84b6test", uid("b563feb7b2b84b6test")],
  ["https://shop.example/?q=uid%3A+hC-rub", uid("hC-rub")],
  ["https://shop.example/#/?customer_id=test", ["customer_id test"]],
  ["https://shop.example/orders?phone=%2B9720000000", ["phone +9720000000"]],
  ["https://shop.example/orders?email=a%2Bb%40example.com", ["email a+b@example.com"]],
  ["b563feb7 b2b84b6test", [...uid("b563feb7b2b84b6test"), ...order("b563feb7"), ...order("b2b84b6test"), "customer_id b563feb7 b2b84b6test"]],
  ["Hello, my parcel WB12345 is late", [...order("WB12345"), "customer_id Hello, my parcel WB12345 is late"]],
  ["track number: WBILMTESTTRACK", ["track_number WBILMTESTTRACK"]],
  ["Tracking no. WB-1", ["track_number WB-1"]],
  ["Track WB-1", ["track_number WB-1"]],
  ["customer Acme Ltd", ["customer_id Acme Ltd"]],
  ["customer_id: test", ["customer_id test"]],
  ["Acme Ltd", ["customer_id Acme Ltd"]],
  ["tracker-7", any("tracker-7")],
  ["+972 (000) 00-00", ["customer_id +972 (000) 00-00", "phone +9720000000"]],
  ["tel:+9720000000", ["phone +9720000000"]],
  ["Phone: 00972 000 0000", ["phone +9720000000"]],
  ["8 (495) 521-44-95", ["customer_id 8 (495) 521-44-95", "phone +74955214495", "phone +84955214495"]],
  ["9720000000", [...any("9720000000"), "phone +9720000000"]],
  ["test@gmail.com", ["email test@gmail.com"]],
  ["\"Test Testov\" <test@gmail.com>.", ["email test@gmail.com"]],
  ["mailto:test@gmail.com", ["email test@gmail.com"]],
  ["Test@Gmail.com", ["email Test@Gmail.com", "email test@gmail.com"]],
  ["E-mail: a+b@example.com, thanks", ["email a+b@example.com"]],
  ["x".repeat(64), any("x".repeat(64))],
  ["x".repeat(65), [`customer_id ${"x".repeat(65)}`]],
  ["x".repeat(300), []],
  ["!?", []],
];

export const tests = {
  async "a text is recognised by its shape"(api) {
    const page = await visit(api);
    const found = await call(page, "query", "recognise", TEXTS.map(([text]) => [text]));
    TEXTS.forEach(([text, expected], i) => {
      assert.deepEqual(found[i].map(({ kind, value }) => `${kind} ${value}`), expected, JSON.stringify(text));
    });
  },

  async "integers above 2^53 stay exact"(api) {
    const page = await visit(api);
    const text = '{"a":9223372036854775807,"b":[-9007199254740993,1],"c":"12345678901234567890","d":{}}';
    const [again, pretty] = await page.evaluate(async (json) => {
      const { parse, stringify, indent } = await import("/assets/json.js");
      return [stringify(parse(json)), indent(json)];
    }, text);
    assert.equal(again, text);
    assert.match(pretty, /"a": 9223372036854775807,\n {2}"b": \[\n {4}-9007199254740993,/);
    assert.match(pretty, /"d": \{\}\n\}$/);
  },

  async "money has the minor units of its currency"(api) {
    const page = await visit(api);
    const cases = [["USD", 181700], ["JPY", 1817], ["KWD", 1817], ["CLF", 18170], ["USD", 5], ["RUB", -5], ["XYZ", 100]];
    const found = await call(page, "format", "money", cases.map(([currency, minor]) => [minor, currency]));
    assert.deepEqual(found.map((one) => one.replace(/\u00a0/g, " ")),
      ["USD 1,817.00", "JPY 1,817", "KWD 1.817", "CLF 1.8170", "USD 0.05", "RUB -0.05", "XYZ 1.00"]);
  },

  async "a status has its name where it is known"(api) {
    const page = await visit(api);
    const found = await page.evaluate(async () => {
      const { status } = await import("/assets/statuses.js");
      return [status(202, new Map([[202, "Delivered"]])), status(-1, new Map([[202, "Delivered"]])), status(202)];
    });
    assert.deepEqual(found, ["202 Delivered", "-1", "202"]);
  },

  async "events are split as the standard defines, wherever the network cuts them"(api) {
    const page = await visit(api);
    const stream = "\r\n: comment\r\nretry: 250\r\nid: 7\r\nevent: order\r\ndata: {\r\ndata:  }\r\n\r\nevent: reset\ndata:\n\nid: 8\rdata:x\r\rdata: lost";
    const found = await page.evaluate(async (whole) => {
      const { EventParser } = await import("/assets/events.js");
      return [1, 2, 3, 5, 1000].map((size) => {
        const events = [];
        const parser = new EventParser((event) => events.push(event));
        for (let i = 0; i < whole.length; i += size) parser.push(whole.slice(i, i + size));
        return { events, retry: parser.retry };
      });
    }, stream);
    for (const one of found) {
      assert.deepEqual(one, {
        events: [{ type: "order", data: "{\n }", id: "7" }, { type: "reset", data: "", id: "7" }, { type: "message", data: "x", id: "8" }],
        retry: 250,
      });
    }
  },

  async "CSV quotes cells, and no cell is a formula"(api) {
    const page = await visit(api);
    const [found] = await call(page, "csv", "csv", [[[{
      order_uid: "a", track_number: "-1", customer_id: '=HYPERLINK("x"), \n', currency: "＝USD", amount: 5, item_count: 2,
    }]]]);
    const lines = found.split("\r\n");
    assert.equal(lines[0], "order_uid,track_number,customer_id,date_created,created_at,currency,amount,item_count");
    assert.equal(lines.slice(1).join("\r\n"), 'a,\'-1,"\'=HYPERLINK(""x""), \n",,,\'＝USD,5,2\r\n');
  },
};

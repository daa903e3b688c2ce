// The running system: api replicas that a test can stop, and the producer. The caller of run.mjs has started the services
// and a worker, and set their addresses as environment variables.

import assert from "node:assert/strict";
import { execFile, spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createServer as createHttpServer } from "node:http";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";

const bin = process.env.ORDER_SERVICE_BIN_DIR;
assert(bin, "ORDER_SERVICE_BIN_DIR is not set; run scripts/page-test");
export const folder = mkdtempSync(join(tmpdir(), "page-test-"));
process.once("exit", () => rmSync(folder, { recursive: true, force: true }));
const DEADLINE_MS = 20_000;

/** Calls `check` until it does not throw. Fails with its last error. */
export async function eventually(check) {
  const deadline = Date.now() + DEADLINE_MS;
  for (;;) {
    try {
      return await check();
    } catch (error) {
      if (Date.now() > deadline) throw error;
      await new Promise((resolve) => { setTimeout(resolve, 50); });
    }
  }
}

async function freePort() {
  const server = createServer().listen(0, "127.0.0.1");
  await new Promise((resolve) => { server.once("listening", resolve); });
  const { port } = server.address();
  await new Promise((resolve) => { server.close(resolve); });
  return port;
}

const apis = new Set();

/** An api replica. It keeps its port when it is stopped and started again. */
export class Api {
  static async start(variables = {}) {
    const api = new Api();
    Object.assign(api, { port: await freePort(), admin: await freePort(), variables });
    await api.start();
    return api;
  }

  get url() { return `http://127.0.0.1:${this.port}`; }

  async start() {
    const env = {
      ...process.env, DATABASE_TIMEOUT: "5s", API_REQUEST_TIMEOUT: "15s", ...this.variables,
      API_ADDR: `127.0.0.1:${this.port}`, ADMIN_ADDR: `127.0.0.1:${this.admin}`,
    };
    this.process = spawn(join(bin, "api"), ["serve"], { env, stdio: ["ignore", "ignore", "pipe"] });
    this.log = "";
    this.process.stderr.on("data", (data) => { this.log += data; });
    apis.add(this);
    await eventually(async () => {
      assert.equal(this.process.exitCode, null, `the api ended: ${this.log}`);
      assert.equal((await fetch(`http://127.0.0.1:${this.admin}/readyz`)).status, 200);
    });
  }

  async stop() {
    apis.delete(this);
    const ended = new Promise((resolve) => { this.process.once("exit", resolve); });
    if (this.process.exitCode === null && this.process.kill()) await ended;
  }
}

/** A proxy of `api` that sends only the head of a response to `slow` until `release` is called. */
export async function slowProxy(api, slow) {
  const proxy = { requests: 0 };
  const released = new Promise((resolve) => { proxy.release = resolve; });
  const server = createHttpServer(async (request, response) => {
    const answer = await fetch(api.url + request.url, { headers: { accept: request.headers.accept } });
    response.writeHead(answer.status, { "Content-Type": answer.headers.get("content-type"), ETag: answer.headers.get("etag") ?? "" });
    response.flushHeaders();
    if (request.url === slow) {
      proxy.requests += 1;
      await released;
    }
    for await (const chunk of answer.body ?? []) response.write(chunk);
    response.end();
  }).listen(0, "127.0.0.1");
  await new Promise((resolve) => { server.once("listening", resolve); });
  proxy.url = `http://127.0.0.1:${server.address().port}`;
  proxy.close = () => server.closeAllConnections() ?? server.close();
  return proxy;
}

export const stopApis = () => Promise.all([...apis].map((api) => api.stop()));

/** Writes a key file with one key. Returns its path. */
export function keyFile(name, token, scopes = "orders:read,orders:list,orders:pii") {
  const path = join(folder, `keys-${name}-${token}`);
  writeFileSync(path, `${name} sha256:${createHash("sha256").update(token).digest("hex")} ${scopes}\n`);
  return path;
}

/** Runs the producer. */
async function producer(...args) {
  await promisify(execFile)(join(bin, "producer"), args, { env: process.env, timeout: DEADLINE_MS });
}

let files = 0;

/** Sends orders (objects or JSON text) and waits until `api` returns them as sent. */
export async function send(api, ...orders) {
  const texts = orders.map((one) => (typeof one === "string" ? one : JSON.stringify(one)));
  files += 1;
  const file = join(folder, `orders-${files}.ndjson`);
  writeFileSync(file, texts.map((text) => `${text}\n`).join(""));
  await producer("send", "--file", file);
  for (const text of texts) {
    const uid = /"order_uid":"([^"]+)"/.exec(text)[1];
    await eventually(async () => {
      const response = await fetch(`${api.url}/order/${uid}`, { headers: { Authorization: "Bearer letmein" } });
      assert.equal(response.status, 200, `order ${uid}`);
      assert.equal(await response.text(), text);
    });
  }
}

/** Erases an order, and waits until `api` answers 410. */
export async function erase(api, uid) {
  await producer("erase", uid, "--yes");
  await eventually(async () => assert.equal((await fetch(`${api.url}/order/${uid}`)).status, 410));
}

// Requests to the api. Paths are relative, so that the page also works below a prefix.

import { parse } from "./json.js";
import { authorization, token } from "./token.js";

/** Longer than any deadline of the api: a later response means that the network is slow. */
const TIMEOUT_MS = 10_000;
/** Time for the rest of a response: an order may have 1 MiB, and a mobile network may be slow. */
const BODY_TIMEOUT_MS = 60_000;

/** A failed request. `status` is 0 if there was no response. */
export class Problem extends Error {
  constructor(status, body, retryAfter) {
    super(`status ${status}`);
    const { title, detail, code } = body ?? {};
    Object.assign(this, { status, said: [title, detail].filter(Boolean).join(": "), code, retryAfter });
    /** Whether an automatic retry may succeed. */
    this.passing = [0, 429, 502, 503, 504].includes(status);
  }

  /** Builds the problem of a response that is no success. */
  static async of(response) {
    let body;
    try { body = parse(await response.text()); } catch { /* a proxy answered with a page */ }
    const wait = response.headers.get("Retry-After"); // seconds or an HTTP date
    const seconds = wait && (Number(wait) || Math.ceil((Date.parse(wait) - Date.now()) / 1000));
    return new Problem(response.status, body, seconds > 0 ? seconds : 0);
  }
}

/** Sends a GET with the key of this tab. Orders are personal data, so the browser must not cache them. */
export async function request(path, { signal, headers, key = token() } = {}) {
  try {
    return await fetch(path, { cache: "no-store", signal, headers: { ...authorization(key), ...headers } });
  } catch {
    throw new Problem(0);
  }
}

/** Reads a JSON document. Throws a `Problem`. */
export async function get(path, { signal, key } = {}) {
  const controller = new AbortController();
  const abort = () => controller.abort();
  let timer = setTimeout(abort, TIMEOUT_MS);
  signal?.addEventListener("abort", abort);
  try {
    if (signal?.aborted) throw new Problem(0);
    const started = performance.now();
    const response = await request(path, { signal: controller.signal, key });
    clearTimeout(timer);
    timer = setTimeout(abort, BODY_TIMEOUT_MS);
    if (!response.ok) throw await Problem.of(response);
    const text = await response.text().catch(() => { throw new Problem(0); });
    const roundTrip = performance.now() - started;
    let data;
    try { data = parse(text); } catch { /* below */ }
    if (data === null || typeof data !== "object") throw new Problem(502, { title: "The response is not JSON" });
    return { text, data, headers: response.headers, roundTrip };
  } finally {
    clearTimeout(timer);
    signal?.removeEventListener("abort", abort);
  }
}

/** The path of an order. */
export const orderPath = (uid) => `order/${encodeURIComponent(uid)}`;

/** The path of a list or an export under a filter. `parameters` without a value are left out. */
export function listPath(parameters, route = "orders") {
  const query = String(new URLSearchParams(Object.entries(parameters).filter(([, value]) => value)));
  return query ? `${route}?${query}` : route;
}

/** A command that repeats a GET of `path`. The key stays out of it: the reader sets `TOKEN`. */
export function curl(path, accept) {
  const url = new URL(path, document.baseURI).href.replace(/'/g, "%27");
  const headers = [accept && `-H 'Accept: ${accept}'`, token() && '-H "Authorization: Bearer $TOKEN"'];
  return ["curl -sS", ...headers.filter(Boolean), `'${url}'`].join(" ");
}

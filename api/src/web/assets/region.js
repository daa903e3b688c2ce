// A part of the page that loads data, shows it, and retries after a failure.

import { Problem } from "./api.js";
import { announce, button, code, h } from "./dom.js";
import { onSignIn, rejected } from "./session.js";

/** Longest pause between automatic attempts, in seconds, unless the server asks for more. */
const RETRY_MAX_S = 30;

/** Words for a failed request: {tone, title, text}. */
export function explain(problem) {
  switch (problem.status) {
    case 0: return { tone: "warn", title: "The service cannot be reached", text: "The network or the service is down." };
    case 403: return problem.code === "personal_data" ? {
      tone: "warn", title: "Your token may not search by phone number or e-mail address", final: true,
      text: ["Search by order uid, track number or customer id, or ask the operator for the scope ", code("orders:pii"), "."],
    } : { tone: "bad", title: "Your token does not allow this", text: "Ask the operator for another one, sign out, and sign in with it." };
    case 429: return { tone: "warn", title: "Too many requests", text: "The service limits the requests of each client." };
    case 502: case 503: case 504:
      return { tone: "warn", title: "The service is unavailable", text: "The order may exist. The page retries." };
    default: return {
      tone: "bad", title: `Unexpected response (${problem.status})`, text: "If it persists, report it to the operator of the service.",
    };
  }
}

/** Failures after which the old content is no longer true, or no longer for this reader. */
const GONE = [400, 403, 404, 410];

/**
 * A task is {request(signal), show(answer), explain(problem), keep, forget, slot, quiet}. `keep` keeps the old content until
 * the answer is there; `forget` is called when the content is removed. `slot` is the place of the problem, if it is not the
 * one above the content, which then stays. `quiet` keeps a problem from scrolling the page. A newer task cancels an older one.
 */
export class Region {
  constructor(element, heading) {
    [this.element, this.heading] = [element, heading];
    [this.slot, this.body] = [element.querySelector(".slot"), element.querySelector(".body")];
    this.slots = [...element.querySelectorAll(".slot")];
    addEventListener("online", () => this.retry?.());
    onSignIn(() => this.retry?.());
  }

  stop() {
    this.controller?.abort();
    clearInterval(this.timer);
    this.controller = this.retry = undefined;
    this.element.removeAttribute("aria-busy");
  }

  clear() {
    this.stop();
    [...this.slots, this.body].forEach((part) => part.replaceChildren());
  }

  async load(task, attempt = 0) {
    this.stop();
    const mine = this.controller = new AbortController();
    this.element.setAttribute("aria-busy", "true");
    if (!task.keep && attempt === 0) {
      this.slots.forEach((slot) => slot.replaceChildren());
      this.body.replaceChildren(h("p", { class: "card loading" }, "Loading…"));
      task.forget?.();
    }
    const outcome = await task.request(mine.signal).catch((problem) => problem);
    if (this.controller !== mine) return;
    this.stop();
    if (outcome instanceof Problem) return this.fail(outcome, task, attempt);
    if (outcome instanceof Error) throw outcome;
    this.slots.forEach((slot) => slot.replaceChildren());
    task.show(outcome);
  }

  fail(problem, task, attempt = 0) {
    const slot = task.slot ?? this.slot;
    const retry = () => this.load(task, attempt + 1);
    const focused = slot.contains(document.activeElement);
    // Most failures say nothing about the content that was read before, so it stays readable.
    if (!task.keep || (GONE.includes(problem.status) && !task.slot)) {
      this.body.replaceChildren();
      task.forget?.();
    }
    if (problem.status === 401) {
      this.slots.forEach((one) => one.replaceChildren());
      this.retry = retry;
      return rejected();
    }
    const { tone, title, text, action, final } = task.explain(problem);
    const countdown = h("span", { class: "muted" });
    const heading = this.body.querySelector("h1") ? "h2" : this.heading;
    slot.replaceChildren(h("div", { class: `card notice ${tone ?? ""}` },
      h(heading, {}, title),
      text && h("p", {}, text),
      problem.said && h("p", { class: "said" }, `${problem.status} `, problem.code && code(problem.code), ` ${problem.said}`),
      !final && h("div", { class: "line" }, button(problem.passing ? "Try now" : "Try again", retry), action, countdown)));
    if (focused) slot.querySelector("button")?.focus();
    if (attempt === 0) {
      announce(title);
      if (!task.quiet) slot.scrollIntoView({ block: "nearest" });
    }
    if (problem.passing) this.countDown(problem, retry, countdown, attempt);
  }

  countDown(problem, retry, countdown, attempt) {
    const asked = problem.retryAfter > 0 ? problem.retryAfter : 0;
    const pause = Math.max(asked, Math.min(RETRY_MAX_S, 2 ** attempt));
    // With jitter, so that open pages do not retry at the same moment.
    const due = Date.now() + pause * 1000 + Math.random() * 500;
    const tick = () => {
      const left = Math.ceil((due - Date.now()) / 1000);
      if (left <= 0) retry();
      else countdown.textContent = `Retrying in ${Math.min(left, pause)} s${asked ? ` (Retry-After: ${asked} s)` : ""}`;
    };
    tick();
    this.timer = setInterval(tick, 250);
    this.retry = retry;
  }
}

// Who is signed in. Where keys are configured, the page asks for a token and keeps it in this tab.

import { Problem, get } from "./api.js";
import { $, announce, button, h, touch } from "./dom.js";
import { setToken, token } from "./token.js";

/** Pause before the next attempt to learn who is signed in. */
const RETRY_MS = 2000;

const listeners = [];

/** Calls `listener` after each sign-in. */
export const onSignIn = (listener) => listeners.push(listener);

/** Asks for a token, because the api answered 401. What is on the page stays there. */
export function rejected() {
  ask(token() ? "The service no longer accepts your token. It may have expired. Enter another one."
    : "This service requires a token. Ask its operator for one.");
}

export function ask(why) {
  if (!$("auth").hidden) return;
  // Each page has one main heading: that of the order, if one is shown.
  const heading = document.querySelector("#result h1") ? "h2" : "h1";
  const input = h("input", { id: "token", type: "password", autocomplete: "off", spellcheck: "false", required: "true" });
  const reason = h("p", { id: "auth-why" }, why);
  $("auth").replaceChildren(
    h(heading, { id: "auth-title" }, "Sign in"), reason,
    h("form", { class: "line", autocomplete: "off", onsubmit: (event) => submit(event, input, reason) },
      h("label", { for: "token" }, "Token"), input, h("button", { class: "primary" }, "Sign in")),
    h("p", { class: "muted" }, "The token stays in this tab. On a shared computer, sign out before you leave."));
  $("auth").hidden = false;
  show();
  announce(`Sign in. ${why}`);
  // A key that expires must not catch what the reader is typing.
  if (!edited || edited !== document.activeElement) input.focus();
}

/** The field that the reader is typing in. */
let edited;
addEventListener("input", ({ target }) => { edited = target; });
addEventListener("change", () => { edited = undefined; });

async function submit(event, input, reason) {
  event.preventDefault();
  const key = input.value.trim();
  const fail = (text) => {
    reason.textContent = text;
    reason.className = "wrong";
    announce(text);
    input.select();
  };
  if (!/^[\x21-\x7e]+$/.test(key)) return fail("A token consists of ASCII characters without blanks. Copy it again.");
  try {
    const caller = await callerOf(key);
    setToken(key);
    $("auth").replaceChildren();
    $("auth").hidden = true;
    show(caller);
    announce(caller.name ? `Signed in as ${caller.name}` : "Signed in");
    if (!touch()) $("q").focus();
    listeners.forEach((listener) => listener());
  } catch (problem) {
    fail(words(problem));
  }
}

function words(problem) {
  switch (problem.status) {
    case 0: return "The service cannot be reached. Try again.";
    case 401: return "The service does not accept this token. Check it, or ask the operator for a new one.";
    default: return `The service cannot check the token now (status ${problem.status}). Try again.`;
  }
}

/** The caller with that key: {name, scopes, customer}. The name is null where callers need no credentials. */
const callerOf = async (key) => (await get("caller", { key })).data;

/** What each scope allows, in a word. */
const ALLOWED = { "orders:read": "read", "orders:list": "list", "orders:pii": "personal data" };

function show({ name, scopes = [], customer } = {}) {
  const allowed = scopes.map((scope) => ALLOWED[scope] ?? scope).join(", ") || "nothing";
  const limits = customer ? [`${allowed}; only customer `, h("b", { dir: "auto" }, customer)] : [allowed];
  $("session").hidden = !name;
  $("session").replaceChildren(...(name ? [
    h("span", {}, "Signed in as ", h("b", { dir: "auto" }, name), " ", h("span", { class: "muted" }, "(", ...limits, ")")),
    button("Sign out", signOut, { class: "quiet" })] : []));
}

/** Deletes the token and everything that the page has read with it. */
function signOut() {
  sessionStorage.clear();
  location.hash = "#/";
  location.reload();
}

/** Shows who is signed in, or asks for a token. */
export async function start() {
  const key = token();
  try {
    const caller = await callerOf(key);
    // The reader may have signed in meanwhile.
    if (key === token()) show(caller);
  } catch (problem) {
    if (!(problem instanceof Problem)) throw problem;
    if (problem.status === 401 && key === token()) rejected();
    // Any other failure also hits the data of the page, which says so.
    if (problem.passing) setTimeout(start, Math.max(RETRY_MS, problem.retryAfter * 1000 || 0));
  }
}

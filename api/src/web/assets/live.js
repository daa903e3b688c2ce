// Live updates: the streams of the page, which run only while the tab is visible, and the switch that pauses them.

import { $, announce } from "./dom.js";
import { Stream } from "./events.js";
import { onSignIn, rejected } from "./session.js";

const STORED = "paused";

/** What the page follows, by name: {path, lastId, onEvent, onOpen, onProblem, stream, state, problem}. */
const followed = new Map();
let paused = sessionStorage.getItem(STORED) === "true";

const running = () => !paused && document.visibilityState === "visible";

function connect(entry) {
  if (!running() || entry.stream) return;
  entry.stream = new Stream(entry.path, {
    lastId: entry.lastId,
    onEvent: (event) => {
      entry.lastId = event.id ?? entry.lastId;
      entry.onEvent(event);
    },
    onState: (state, problem) => {
      Object.assign(entry, { state, problem });
      if (problem?.status === 401) rejected();
      if (state === "open") entry.onOpen?.();
      if (problem && !problem.passing) entry.onProblem?.(problem);
      show();
    },
  });
}

function disconnect(entry) {
  entry.stream?.close();
  Object.assign(entry, { stream: undefined, state: undefined, problem: undefined });
}

/** Follows the events of `path`, instead of what has been followed under `name`. */
export function follow(name, entry) {
  unfollow(name);
  followed.set(name, entry);
  connect(entry);
  show();
}

export function unfollow(name) {
  const entry = followed.get(name);
  if (entry) disconnect(entry);
  followed.delete(name);
  show();
}

function restart() {
  followed.forEach(disconnect);
  followed.forEach(connect);
  show();
}

function show() {
  const entries = [...followed.values()];
  const states = entries.map(({ state }) => state);
  let [kind, text] = ["open", "Live"];
  if (paused) [kind, text] = ["off", "Paused"];
  else if (states.includes("waiting")) [kind, text] = ["waiting", "Reconnecting…"];
  else if (states.includes("closed")) [kind, text] = ["off", "Not live"];
  else if (states.includes("connecting")) [kind, text] = ["waiting", "Connecting…"];
  $("live").hidden = entries.length === 0;
  $("live-state").className = `state ${kind}`;
  $("live-state").textContent = text;
  const said = entries.map(({ problem }) => problem?.said).find(Boolean) ?? "";
  $("live-state").title = said || "Changes appear at once";
  $("pause").textContent = paused ? "Resume" : "Pause";
  $("pause").setAttribute("aria-label", paused ? "Resume live updates" : "Pause live updates");
}

$("pause").addEventListener("click", () => {
  paused = !paused;
  sessionStorage.setItem(STORED, String(paused));
  announce(paused ? "Live updates are paused" : "Live updates are on");
  restart();
});
document.addEventListener("visibilitychange", restart);
addEventListener("online", restart);
onSignIn(restart);

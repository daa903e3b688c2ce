// Elements, clipboard and announcements. Data is inserted as text, never as markup.

export const $ = (id) => document.getElementById(id);

/** An element with attributes (`on…`: listener) and children. Strings become text nodes; empty ones are skipped. */
export function h(tag, attributes, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value || value === "") node.setAttribute(name, value);
  }
  node.append(...children.flat(Infinity).filter((child) => child || child === 0));
  return node;
}

export const button = (label, onclick, attributes) => h("button", { type: "button", onclick, ...attributes }, label);
export const code = (text) => h("code", { dir: "auto" }, text);
export const plural = (n, noun) => `${n} ${noun}${n === 1 ? "" : "s"}`;

/** Text that a customer or a producer wrote: its direction is its own, and does not reorder what is beside it. */
export const own = (text) => (text === undefined || text === "" ? "" : h("bdi", { dir: "auto" }, String(text)));

/** A finger, which has no keyboard until an input has the focus. */
export const touch = () => matchMedia("(pointer: coarse)").matches;

/** Has a screen reader read `text`. */
export function announce(text) {
  $("status").textContent = "";
  // A screen reader announces changes only, so the same text twice must differ.
  setTimeout(() => { $("status").textContent = text; }, 50);
}

/** A button that copies the result of `text()`. */
export function copyButton(label, text, attributes) {
  return button(label, async ({ currentTarget: pressed }) => {
    const copied = await copy(text(), pressed);
    pressed.textContent = copied ? "Copied" : "Failed";
    announce(copied ? "Copied" : "Copying failed");
    setTimeout(() => { pressed.textContent = label; }, 1500);
  }, { class: "small", ...attributes });
}

async function copy(text, pressed) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    // Plain http inside a company network has no clipboard API.
    const area = h("textarea", { class: "hidden" });
    area.value = text;
    document.body.append(area);
    area.select();
    const copied = document.execCommand("copy");
    area.remove();
    pressed.focus();
    return copied;
  }
}

/** Saves `blob` as a file. */
export function download(name, blob) {
  const url = URL.createObjectURL(blob);
  h("a", { href: url, download: name }).click();
  // The browser has taken the data over by then.
  setTimeout(() => URL.revokeObjectURL(url), 60_000);
}

/** Scrolls to `target` and gives it the focus. */
export function jump(target) {
  if (!target.matches("a, button, input, summary, [tabindex]")) target.tabIndex = -1;
  target.focus({ preventScroll: true });
  target.scrollIntoView({ block: "start" });
}

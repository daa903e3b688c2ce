// The orders that this tab has shown.

import { orderAddress } from "./address.js";
import { $, h } from "./dom.js";

/** Shows the recent lookups, after adding or removing `uid`. `current` is the order on the screen. */
export function recent({ uid, add, current } = {}) {
  let uids = JSON.parse(sessionStorage.getItem("recent") ?? "[]");
  if (uid) uids = [...(add ? [uid] : []), ...uids.filter((other) => other !== uid)].slice(0, 8);
  if (uid) sessionStorage.setItem("recent", JSON.stringify(uids));
  $("recent").hidden = uids.every((other) => other === current);
  $("recent").replaceChildren(h("span", { class: "muted" }, "Recent"), ...uids.map((other) =>
    h("a", { class: "mono", href: orderAddress(other), "aria-current": other === current && "page" }, other)));
}

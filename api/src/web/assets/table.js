// Tables. They carry roles, because CSS makes stacks of them on a phone.

import { h } from "./dom.js";

/** A row of [content, class, label on a phone, key]. */
export const row = (cells, attributes, tag = "td") =>
  h("tr", { role: "row", ...attributes }, cells.map(([content, name, label, key]) =>
    h(tag, { role: tag === "th" ? "columnheader" : "cell", class: name, "data-label": label, "data-key": key }, content)));

export const table = (name, label, head, body, foot = []) => h("table", { role: "table", class: name, "aria-label": label },
  h("thead", { role: "rowgroup" }, row(head, {}, "th")),
  h("tbody", { role: "rowgroup" }, body),
  h("tfoot", { role: "rowgroup" }, foot));

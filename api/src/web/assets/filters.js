// The form that filters the list.

import { FILTERS, LOCAL_FILTERS } from "./address.js";
import { $ } from "./dom.js";
import { phones } from "./query.js";

const TIMES = ["created_from", "created_to"];

/** The local time of `iso` as an input shows it, in whole seconds. */
function local(iso) {
  const date = new Date(iso);
  if (Number.isNaN(date.getTime())) return "";
  return new Date(date.getTime() - date.getTimezoneOffset() * 60_000).toISOString().slice(0, 19);
}

/** Shows `filter` in the form. */
export function fillFilters(filter) {
  for (const name of [...FILTERS, ...LOCAL_FILTERS]) {
    const input = $(name);
    input.value = TIMES.includes(name) && filter[name] ? local(filter[name]) : filter[name] ?? "";
    // A time of an address may be finer than the input shows.
    input.dataset.exact = filter[name] ?? "";
    input.dataset.shown = input.value;
  }
  const active = Object.keys(filter).length;
  $("clear").hidden = active === 0;
  $("filter-title").textContent = active ? `Filter (${active} set)` : "Filter";
  if (active) $("filters").open = true;
}

function valueOf(name) {
  const input = $(name);
  const value = input.value.trim();
  if (value === input.dataset.shown) return input.dataset.exact;
  if (TIMES.includes(name)) return value && new Date(value).toISOString().replace(".000Z", "Z");
  if (name === "phone") return phones(value)[0] ?? value;
  return name === "currency" ? value.toUpperCase() : value;
}

/** The filter in the form. */
export const readFilters = () =>
  Object.fromEntries([...FILTERS, ...LOCAL_FILTERS].map((name) => [name, valueOf(name)]).filter(([, value]) => value));

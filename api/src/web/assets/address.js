// Addresses of the page: #/order/UID, #/?q=TEXT, and #/?customer_id=…&created_from=… for a filtered list.
//
// The page keeps what the reader searches behind the `#`, which no browser sends: e-mail addresses and phone numbers stay
// out of access logs. A link with `/?q=…` works too, and is moved behind the `#`.

/** Parameters of `GET /orders`. */
export const FILTERS = ["customer_id", "track_number", "phone", "email", "created_from", "created_to"];
/** Filters of this page only: they choose among the rows that are loaded. */
export const LOCAL_FILTERS = ["currency"];
const ALL = [...FILTERS, ...LOCAL_FILTERS];

const pick = (names, from) => Object.fromEntries(names.filter((name) => from[name]).map((name) => [name, from[name]]));

/** The part of `filter` that the api understands. */
export const apiFilter = (filter) => pick(FILTERS, filter);

const withQuery = (values) => {
  const query = String(new URLSearchParams(values));
  return query ? `#/?${query}` : "#/";
};

export const listAddress = (filter) => withQuery(pick(ALL, filter));
export const searchAddress = (q) => withQuery({ q });
export const orderAddress = (uid) => `#/order/${encodeURIComponent(uid)}`;

/** What an address shows: `{uid}`, `{q}` or `{filter}`. */
export function parseAddress(hash) {
  const [path, query] = hash.slice(1).split("?");
  const uid = /^\/order\/(.+)$/.exec(path)?.[1];
  if (uid) {
    try { return { uid: decodeURIComponent(uid) }; } catch { return { uid }; }
  }
  const parameters = Object.fromEntries(new URLSearchParams(query));
  return parameters.q?.trim() ? { q: parameters.q.trim() } : { filter: pick(ALL, parameters) };
}

/** Moves the query of a link such as `/?q=…` behind the `#`. */
export function adoptQuery() {
  if (!location.search) return;
  const parameters = Object.fromEntries(new URLSearchParams(location.search));
  const hash = parameters.q ? searchAddress(parameters.q) : listAddress(parameters);
  history.replaceState(null, "", location.pathname + (location.hash.length > 2 ? location.hash : hash));
}

/** Goes to `hash`. Returns whether it is another address; the caller reloads the same one. */
export function go(hash) {
  if (location.hash === hash) return false;
  location.hash = hash;
  return true;
}

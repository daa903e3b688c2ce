// What a text in the search box may mean. Pure: no requests, no elements.

/** Names of what can be searched, in the order of the attempts. */
export const KINDS = {
  order_uid: "order uid", track_number: "track number", customer_id: "customer id", phone: "phone", email: "e-mail",
};

const INVISIBLE = /[\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff]/g;
const CODE = /^[A-Za-z0-9_-]{1,64}$/;
const EMAIL = /[^\s<>"'«»„“”(),:;@]+@[^\s<>"'«»„“”(),:;@]*[^\s<>"'«»„“”(),:;@.?!]/;
/** Longest customer id of an order. */
const CUSTOMER_MAX = 256;

/** What stands in front of a value. A label that `kinds` does not list may name any code. */
const LABELS = [
  [/order[\s_-]?uid|uid/, ["order_uid"]],
  [/track(?:ing)?(?:[\s_-]?(?:number|no|num|id|code))?/, ["track_number"]],
  [/(?:customer|client)(?:[\s_-]?(?:id|no|number))?/, ["customer_id"]],
  [/(?:tele)?phone(?:[\s_-]?(?:number|no))?|tel|mobile/, ["phone"]],
  [/e-?mail(?:[\s_-]?address)?|mail(?:to)?/, ["email"]],
  [/order(?:[\s_-]?(?:number|no|num|id))?/, ["order_uid", "track_number"]],
];

/** A name of the document or of a query, with its value: `"order_uid": "b563…"`, `track_number=WB…`. */
const FIELD = /(?:^|[^\w])(order_uid|track_number|customer_id|phone|email)["']?\s*[:=]\s*["']?([^"'&#,;{}<>\s]+)/i;

const trim = (text) => text.replace(/^[\s"'`«»„“”‘’()[\]{}<>,.;:!?#№*|/\\]+|[\s"'`«»„“”‘’()[\]{}<>,.;:!?#*|/\\]+$/g, "");

function decode(text) {
  try { return decodeURIComponent(text.replace(/\+/g, " ")); } catch { return text; }
}

/** The numbers in E.164 form that `text` may be; empty if it is no phone number. */
export function phones(text) {
  if (!/^\+?[\d\s().\u2010-\u2015/-]+$/.test(text)) return [];
  const digits = text.replace(/\D/g, "");
  if (digits.length < 7 || digits.length > 17) return [];
  const international = text.trim().startsWith("+") ? digits : digits.replace(/^00/, "");
  const found = [international];
  // Inside Russia and Kazakhstan, 8 is dialled instead of the country code 7.
  if (!text.trim().startsWith("+") && /^8\d{10}$/.test(digits)) found.unshift(`7${digits.slice(1)}`);
  return found.filter((number) => /^[1-9]\d{1,14}$/.test(number)).map((number) => `+${number}`);
}

/** The searches for `text`, which has no label. `kinds` limits what it may be. */
function byShape(text, kinds = Object.keys(KINDS)) {
  const value = trim(text);
  const searches = [];
  const add = (kind, one) => { if (one && kinds.includes(kind)) searches.push({ kind, value: one }); };
  const email = EMAIL.exec(value)?.[0].replace(/^\.+/, "");
  // Orders hold an address as it was entered; phones begin each text with a capital letter.
  if (email && kinds.includes("email")) return [email, email.toLowerCase()].map((one) => ({ kind: "email", value: one }));

  const codes = ["order_uid", "track_number"];
  if (CODE.test(value)) codes.forEach((kind) => add(kind, value));
  else {
    const words = value.split(" ").map(trim).filter((word) => CODE.test(word));
    const joined = value.replace(/ /g, "");
    // A line break inside of a uid, as mail programs make it. A phone number is no uid.
    const broken = CODE.test(joined) && /\d/.test(joined) && /[a-z]/i.test(joined);
    if (broken) add("order_uid", joined);
    // In a sentence, codes are the words with digits.
    for (const word of words.filter((one) => /\d/.test(one) && one.length >= 4).slice(0, 3)) {
      if (phones(value).length === 0) codes.forEach((kind) => add(kind, word));
    }
    // The value of "Order hC-rub, please".
    if (searches.length === 0 && kinds.length < 3 && words.length > 0) codes.forEach((kind) => add(kind, words[0]));
  }
  if (value.length <= CUSTOMER_MAX) add("customer_id", value);
  phones(value).forEach((number) => add("phone", number));
  return searches;
}

/** The searches for a link, or undefined. */
function byLink(text) {
  const joined = text.replace(/ /g, "");
  // A bare link may have been broken anywhere; in a sentence, a blank ends it.
  const link = /^\W*(https?:|order\/)/i.test(joined) ? joined : text;
  const uid = /(?:^|\/)order\/([^\s"'?#&<>,/]+)/i.exec(link)?.[1];
  if (uid) return [{ kind: "order_uid", value: trim(decode(uid)) }].filter(({ value }) => CODE.test(value));
  const query = /[?&]q=([^&#\s]+)/.exec(link)?.[1];
  return query && byText(decode(query));
}

function byText(text) {
  const field = FIELD.exec(text);
  // A whole document names its uid; other fields count only in front of the text.
  const uid = /(?:^|[^\w])order_uid["']?\s*[:=]\s*["']?([\w-]{1,64})/i.exec(text);
  if (uid) return [{ kind: "order_uid", value: uid[1] }];
  if (field) {
    const found = byShape(decode(field[2].replace(/\+/g, "%2B")), [field[1].toLowerCase()]);
    if (found.length > 0) return found;
  }
  for (const [label, kinds] of LABELS) {
    const rest = new RegExp(`^\\W*(?:${label.source})(?![\\w-])["']?[\\s.:=#№]*(.+)$`, "i").exec(text)?.[1];
    const found = rest ? byShape(rest, kinds) : [];
    if (found.length > 0) return found;
  }
  return byShape(text);
}

/** The searches that `input` may mean: `[{kind, value}]`, the likeliest first. Empty if it can mean nothing. */
export function recognise(input) {
  const text = input.replace(INVISIBLE, "").replace(/\s+/g, " ").trim();
  const searches = byLink(text) ?? byText(text);
  const seen = new Set();
  return searches.filter(({ kind, value }) => {
    const key = `${kind} ${value}`;
    return !seen.has(key) && seen.add(key);
  });
}

// Money, time, language and versions in words.

import { code, h } from "./dom.js";
import { integer } from "./json.js";

// ISO 4217 decimals where they are not 2. Intl knows CLDR's cash habits instead: 0 for HUF, IQD or PKR.
const DECIMALS = {
  0: "BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX UYI VND VUV XAF XOF XPF",
  3: "BHD IQD JOD KWD LYD OMR TND",
  4: "CLF UYW",
};

const decimals = (currency) =>
  Number(Object.keys(DECIMALS).find((n) => DECIMALS[n].split(" ").includes(currency)) ?? 2);

/** Minor units in the reader's notation, after the currency if `named`. */
export function money(minor, currency, named = true) {
  const units = integer(minor);
  if (units === undefined) return String(minor ?? "—");
  const digits = decimals(currency);
  const scale = 10n ** BigInt(digits);
  const rest = units % scale;
  const fraction = String(rest < 0n ? -rest : rest).padStart(digits, "0");
  const format = new Intl.NumberFormat(undefined, { numberingSystem: "latn", minimumFractionDigits: digits });
  const parts = format.formatToParts(units / scale).map(({ type, value }) => (type === "fraction" ? fraction : value));
  // The quotient of a small negative amount has no sign.
  const sign = units < 0n && units / scale === 0n ? "-" : "";
  return (named && currency ? `${currency}\u00a0` : "") + sign + parts.join("");
}

/** Like `money`, as nodes. A long amount may wrap after a separator, so that no column is cut. */
export function amount(minor, currency, named = true) {
  const text = money(minor, currency, named);
  if (text.length < 18) return [text];
  return text.split(/(?<=[^\d-])(?=\d{3})/).flatMap((part, i) => (i ? [h("wbr"), part] : [part]));
}

const DAY = { year: "numeric", month: "short", day: "numeric", hour: "2-digit", minute: "2-digit", second: "2-digit" };
const LOCAL = new Intl.DateTimeFormat(undefined, DAY);
const ZONED = new Intl.DateTimeFormat(undefined, { ...DAY, timeZoneName: "short" });

/** A time (RFC 3339, or ms since 1970): local, with UTC on hover. Any other text stays as it is. */
export function time(value, zoned) {
  const date = new Date(value ?? NaN);
  if (Number.isNaN(date.getTime())) return String(value ?? "—");
  const utc = typeof value === "string" ? value : date.toISOString();
  const text = (zoned ? ZONED : LOCAL).format(date);
  return h("time", { datetime: utc, title: utc.replace("T", " ").replace("Z", " UTC") }, text);
}

/** The time of `seconds` since 1970, or the number itself outside of the calendar. */
export const unixTime = (seconds) =>
  (Math.abs(Number(seconds)) < 8.64e12 ? time(Number(seconds) * 1000) : String(seconds ?? "—"));

const SPANS = [["second", 60], ["minute", 60], ["hour", 24], ["day", 30.4], ["month", 12], ["year", Infinity]];

/** "4 years ago". */
export function ago(value) {
  let span = (new Date(value) - Date.now()) / 1000;
  for (const [unit, size] of SPANS) {
    if (Math.abs(span) < size) return `, ${new Intl.RelativeTimeFormat().format(Math.trunc(span), unit)}`;
    span /= size;
  }
  return "";
}

/** The time of day now. */
export const clock = () => new Date().toLocaleTimeString();

export function language(tag) {
  try { return `${new Intl.DisplayNames("en", { type: "language" }).of(tag)} (${tag})`; } catch { return tag; }
}

/** Whether personal data is masked in the document with that version. */
export const isMasked = (etag) => etag?.endsWith("-masked") ?? false;

/**
 * The rows of a version (record time in ms, offset, partition, each of fixed width; then perhaps the number of the
 * document's shape, and whether personal data is masked): [name, value].
 */
export function versionFacts(etag) {
  const [, ms, offset, partition] = /^(\d{19})-(\d{19})-(\d{10})(?:-\d+)?(?:-masked)?$/.exec(etag ?? "") ?? [];
  if (!ms) return [["Version", etag && code(etag)]];
  return [["Version of", time(Number(ms))], ["Partition", String(Number(partition))], ["Offset", String(BigInt(offset))]];
}

// JSON whose integers stay exact. A double loses digits above 2^53, so a long integer becomes a BigInt.

const TOKEN = /"(?:[^"\\]|\\.)*"|[{}[\],:]|[^\s{}[\],:"]+/g;
/** Marks a string that holds an integer. The service rejects U+0000 in the text of an order. */
const MARK = "\u0000";

/** Parses JSON; an integer that a double might round becomes a BigInt. */
export function parse(text) {
  const marked = text.replace(TOKEN, (token) => (/^-?\d{16,}$/.test(token) ? `"\\u0000${token}"` : token));
  return JSON.parse(marked, (_, value) =>
    (typeof value === "string" && value[0] === MARK ? BigInt(value.slice(1)) : value));
}

/** The reverse of `parse`. */
export function stringify(value, indent) {
  const text = JSON.stringify(value, (_, one) => (typeof one === "bigint" ? MARK + one : one), indent);
  return text.replace(/"\\u0000(-?\d+)"/g, "$1");
}

/** Indents JSON token by token, so that every digit stays as it came. */
export function indent(text) {
  let depth = 0;
  const line = () => `\n${"  ".repeat(depth)}`;
  return text.match(TOKEN).map((token, i, all) => {
    const empty = /^[[{][\]}]$/.test(token + all[i + 1]) || /^[[{][\]}]$/.test(all[i - 1] + token);
    switch (token) {
      case "{": case "[": depth += 1; return empty ? token : token + line();
      case "}": case "]": depth -= 1; return empty ? token : line() + token;
      case ",": return token + line();
      case ":": return ": ";
      default: return token;
    }
  }).join("");
}

/** The value of an integer as BigInt, or undefined. */
export function integer(value) {
  if (typeof value === "bigint") return value;
  return Number.isSafeInteger(value) ? BigInt(value) : undefined;
}

/** The sum of integers; other values count as 0. */
export const sum = (values) => values.reduce((total, value) => total + (integer(value) ?? 0n), 0n);

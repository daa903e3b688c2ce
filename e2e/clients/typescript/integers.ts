// Parses JSON without rounding: an integer above 2^53 becomes a bigint.
import { parse } from "lossless-json";

const integer = (digits: string): number | bigint => {
  const number = Number(digits);
  return Number.isSafeInteger(number) ? number : BigInt(digits);
};

export const parseExact = <T>(text: string): T => parse(text, undefined, integer) as T;

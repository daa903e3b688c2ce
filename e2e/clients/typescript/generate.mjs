// Generates types from the OpenAPI document. Usage: node generate.mjs openapi.json orders.d.ts
// JavaScript's numbers hold integers up to 2^53, so an int64 is a number or a bigint.
import { writeFile } from "node:fs/promises";
import { resolve } from "node:path";
import { pathToFileURL } from "node:url";
import openapiTS, { astToString } from "openapi-typescript";
import ts from "typescript";

const [document, output] = process.argv.slice(2);
const { NumberKeyword, BigIntKeyword } = ts.SyntaxKind;
const int64 = ts.factory.createUnionTypeNode(
  [NumberKeyword, BigIntKeyword].map((kind) => ts.factory.createKeywordTypeNode(kind)),
);

const types = await openapiTS(pathToFileURL(resolve(document)), {
  transform: (schema) => (schema.format === "int64" ? int64 : undefined),
});
await writeFile(output, astToString(types));

/** What tests/benchmark/test_web_lib.py has made for these tests. */

import { readFileSync } from "node:fs";
import { join } from "node:path";

const folder = process.env.LAVIT_CASES;
if (!folder) throw new Error("these tests are run by pytest tests/benchmark/test_web_lib.py, which makes their cases");

export const bytesOf = (name) => new Uint8Array(readFileSync(join(folder, name)));
export const casesOf = (name) => JSON.parse(readFileSync(join(folder, `${name}.json`), "utf8"));

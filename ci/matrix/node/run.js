// Runs the cases that the program is asked for one after the other, each with a limit, and prints a line of JSON for each.

import assert from "node:assert/strict";
import { setTimeout as sleep } from "node:timers/promises";

const CASE_MS = 45_000;
const PATIENCE_MS = 30_000;

export class Refused extends Error {}

export const expect = (found, expected, what) => assert.deepEqual(found, expected, what);

export async function until(condition, what) {
  const limit = Date.now() + PATIENCE_MS;
  for (;;) {
    const found = await condition();
    if (found) return found;
    if (Date.now() > limit) throw new Error(`after ${PATIENCE_MS} ms: ${what}`);
    await sleep(50);
  }
}

async function verdict(body) {
  const late = sleep(CASE_MS, undefined, { ref: false }).then(() => {
    throw new Error(`not over after ${CASE_MS} ms`);
  });
  try {
    await Promise.race([body(), late]);
    return ["pass", ""];
  } catch (error) {
    return [error instanceof Refused ? "refused" : "fail", error.message.split("\n").join(" ").slice(0, 300)];
  }
}

export async function main(client, version, cases, lacks, names) {
  for (const name of names) {
    const started = Date.now();
    const body = cases[name];
    const [result, detail] = lacks[name]
      ? ["unsupported", lacks[name]]
      : body
        ? await verdict(body)
        : ["fail", "the program does not know the case"];
    console.log(JSON.stringify({ client, version, case: name, result, detail, seconds: (Date.now() - started) / 1000 }));
  }
  process.exit(0);
}

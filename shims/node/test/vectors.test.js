// Runs the vectors of the protocol against the package, each with a worker process of its own.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import fs from "node:fs";
import readline from "node:readline";
import test from "node:test";

const TIME_LIMIT = 30_000;
const read = (file) =>
  fs
    .readFileSync(new URL(`../../vectors/${file}`, import.meta.url), "utf8")
    .trimEnd()
    .split("\n")
    .map((line) => JSON.parse(line));

/** `{"contains": TEXT}` as an error is any text that contains TEXT. A key with null is the same as no key. */
function check(expected, found) {
  const plain = (line) => Object.fromEntries(Object.entries(line).filter(([, value]) => value !== null));
  expected = plain(expected);
  found = plain(found);
  if (expected.error?.contains !== undefined && found.error?.includes(expected.error.contains)) {
    expected.error = found.error;
  }
  assert.deepEqual(found, expected);
}

/** Lines of one job have an order. Jobs have none among each other. */
const byJob = (lines) => [...lines].sort(order);
const order = (a, b) => (a.slot ?? 0) - (b.slot ?? 0) || String(a.id).localeCompare(String(b.id));

/** Node connects children by sockets, but tidegate by pipes, as `cat` does here. The last line is the exit code. */
const BY_PIPES = `{ { "$0" "$@"; echo "exit code $?"; } 2>&1 >&3 | cat >&2; } 3>&1 | cat`;

async function run(vector, args) {
  const worker = spawn("sh", ["-c", BY_PIPES, process.execPath, ...args], {
    detached: true, // A process group, to be killed as one.
    cwd: new URL("..", import.meta.url),
    env: { ...process.env, TIDEGATE_PROTOCOL: vector.protocol, TIDEGATE_CONCURRENCY: vector.concurrency },
  });
  const timer = setTimeout(() => process.kill(-worker.pid, "SIGKILL"), TIME_LIMIT);
  const closed = new Promise((resolve) => worker.on("close", resolve));
  let log = "";
  worker.stderr.on("data", (data) => (log += data));
  worker.stdin.on("error", () => {});
  const lines = readline.createInterface({ input: worker.stdout, crlfDelay: Infinity })[Symbol.asyncIterator]();
  const next = async () => JSON.parse((await lines.next()).value ?? "null") ?? assert.fail(`no answer. The log: ${log}`);
  try {
    for (const { send, fill, end, expect } of vector.steps) {
      if (send !== undefined) {
        worker.stdin.write((fill ? send.replace("{fill}", fill[0].repeat(fill[1])) : send) + "\n");
      } else if (end) {
        worker.stdin.end();
      } else {
        const found = [];
        while (found.length < expect.length) found.push(await next());
        const sorted = byJob(found);
        byJob(expect).forEach((line, at) => check(line, sorted[at]));
      }
    }
    worker.stdin.end();
    assert.equal((await lines.next()).value, "exit code 0", log);
    await closed;
    return log;
  } finally {
    clearTimeout(timer);
    if (worker.exitCode === null) process.kill(-worker.pid, "SIGKILL");
  }
}

for (const file of ["version-1.jsonl", "version-2.jsonl"]) {
  for (const vector of read(file)) {
    test(`version ${vector.protocol}: ${vector.case}`, () => run(vector, ["test/worker.js"]));
  }
}

const ready = (line) => ({ expect: [{ ready: true, ...line }] });

test("output is in the log", async () => {
  const vector = read("version-1.jsonl").find((vector) => vector.case.includes("child processes"));
  const log = await run(vector, ["test/worker.js"]);
  assert.ok(log.includes("stray\nstray\nstray, of a child\n"), log);
});

const program = (text) => ["--input-type=module", "-e", `import * as tidegate from "./index.js"; ${text}`];

test("a worker may take fewer jobs than the pool allows", async () => {
  const vector = { protocol: 2, concurrency: 4, steps: [ready({ protocol: 2, concurrency: 3 })] };
  await run(vector, program("await tidegate.serve(() => {}, { concurrency: 3 })"));
});

test("a body that is not JSON is rejected", async () => {
  const expect = [{ id: "1", outcome: "reject", error: { contains: "the body is not JSON" } }];
  const steps = [ready({ protocol: 1 }), { send: '{"id":"1","body":"{"}' }, { expect }];
  await run({ protocol: 1, concurrency: 1, steps }, program("await tidegate.serve((job) => job.json())"));
});

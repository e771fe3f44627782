// Serves the jobs of a tidegate pool of kind "warm", up to `concurrency` at a time. Copy it to the folder of your
// worker.
"use strict";
const fs = require("node:fs");
const readline = require("node:readline");

/** Try again later. Throw it with a delay in seconds, or without one for the pool's backoff. */
class Retry extends Error {
  constructor(delay) {
    super("asked for later");
    this.delay = delay;
  }
}

/** The job can never succeed: the message is dead-lettered with this reason. */
class Reject extends Error {}

/** Calls `handle(job)` for each job. Its return value is the reply. An exception is a failure. `job.stopped` is an AbortSignal. */
async function serve(handle) {
  const answers = fs.openSync("/dev/stdout", "a");
  fs.closeSync(1);
  fs.openSync("/dev/stderr", "a"); // Takes the free descriptor 1: all output goes to the log.
  const running = new Map(); // The AbortController of each slot's job.
  const run = async (job) => {
    const say = (line) => fs.writeSync(answers, JSON.stringify({ id: job.id, slot: job.slot, ...line }) + "\n");
    running.set(job.slot, new AbortController());
    job.stopped = running.get(job.slot).signal;
    job.bytes = job.body_base64 === undefined ? Buffer.from(job.body) : Buffer.from(job.body_base64, "base64");
    job.progress = (note = true) => say({ progress: note });
    try {
      say({ outcome: "done", reply: (await handle(job)) ?? null });
    } catch (error) {
      if (error instanceof Retry) say({ outcome: "retry", delay: error.delay });
      else if (error instanceof Reject) say({ outcome: "reject", error: error.message });
      else console.error(error), say({ outcome: "failed", error: String(error) });
    }
  };
  const concurrency = Number(process.env.TIDEGATE_CONCURRENCY ?? 1);
  const ready = concurrency > 1 ? { protocol: 2, concurrency } : { protocol: 1 };
  fs.writeSync(answers, JSON.stringify({ ready: true, ...ready }) + "\n");
  for await (const line of readline.createInterface({ input: process.stdin })) {
    const job = JSON.parse(line);
    if (job.stop) running.get(job.slot)?.abort();
    else run(job);
  }
}

module.exports = { serve, Retry, Reject };

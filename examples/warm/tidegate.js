// Serves the jobs of a tidegate pool of kind "warm". Copy it to the folder of your worker.
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

/** Calls `handle(job)` for each job. Its return value is the reply. An exception is a failure. */
async function serve(handle) {
  const answers = fs.openSync("/dev/stdout", "a");
  fs.closeSync(1);
  fs.openSync("/dev/stderr", "a"); // Takes the free descriptor 1: all output goes to the log.
  const say = (line) => fs.writeSync(answers, JSON.stringify(line) + "\n");
  say({ ready: true, protocol: 1 });
  for await (const line of readline.createInterface({ input: process.stdin })) {
    const job = JSON.parse(line);
    job.bytes = job.body_base64 === undefined ? Buffer.from(job.body) : Buffer.from(job.body_base64, "base64");
    job.progress = (note = true) => say({ id: job.id, progress: note });
    try {
      say({ id: job.id, outcome: "done", reply: (await handle(job)) ?? null });
    } catch (error) {
      if (error instanceof Retry) say({ id: job.id, outcome: "retry", delay: error.delay });
      else if (error instanceof Reject) say({ id: job.id, outcome: "reject", error: error.message });
      else console.error(error), say({ id: job.id, outcome: "failed", error: String(error) });
    }
  }
}

module.exports = { serve, Retry, Reject };

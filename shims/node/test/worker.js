// The handlers of the protocol's vectors. A job's header `do` selects what it does.
import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import { Reject, Retry, serve } from "../index.js";

const KEYS = `id attempt pool queue redelivered exchange routing_key type app_id message_id correlation_id reply_to priority
timestamp content_type content_encoding traceparent tracestate headers truncated`.split(/\s+/);

const meeting = [];

const handlers = {
  describe: (job) => ({ ...Object.fromEntries(KEYS.map((key) => [key, job[key]])), body: job.body.toString("base64") }),
  digest: (job) => ({ length: job.body.length, sha256: createHash("sha256").update(job.body).digest("hex") }),
  attempt: (job) => job.attempt,
  text: (job) => job.text,
  bytes: (job) => job.body,
  json: () => ({ n: [1, null, "café", true, 0.5], empty: {} }),
  "not json": () => ({ n: [1n] }),
  "retry in 2.5": () => {
    throw new Retry(2.5);
  },
  retry: () => {
    throw new Retry();
  },
  reject: () => {
    throw new Reject("no such image");
  },
  fail: () => {
    console.log("stray");
    throw new Error("why");
  },
  "fail with bytes": () => {
    throw new Error("why \ud800");
  },
  progress: (job) => {
    job.progress("40 %");
    job.progress();
    job.progress({ left: [1] });
  },
  print: () => {
    console.log("stray");
    process.stdout.write("stray\n");
    execFileSync("echo", ["stray, of a child"], { stdio: "inherit" });
  },
  retire: (job) => job.retire(),
  // Two jobs wait for each other.
  meet: () =>
    new Promise((resolve) => {
      meeting.push(resolve);
      if (meeting.length === 2) meeting.forEach((met) => met("met"));
    }),
  wait: (job) => stop(job, (resolve, reject) => reject(job.stopped.reason)),
  finish: (job) => stop(job, (resolve) => resolve("finished")),
  sleep: () => sleep(100, "slept"),
};

function stop(job, then) {
  return new Promise((resolve, reject) => {
    // A promise alone does not keep Node running, but standard input does.
    job.stopped.addEventListener("abort", () => then(resolve, reject));
  });
}

await serve(async (job) => handlers[job.headers.do]?.(job));

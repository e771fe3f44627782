// Serves the jobs of a tidegate pool of kind "warm", up to `concurrency` at a time. The types are in index.d.ts.
import fs from "node:fs";
import readline from "node:readline";

export class Retry extends Error {
  name = "Retry";
  constructor(delay) {
    super("asked for a later attempt");
    this.delay = delay;
  }
}

export class Reject extends Error {
  name = "Reject";
}

export class Stopped extends Error {
  name = "Stopped";
  constructor() {
    super("stopped");
  }
}

class Job {
  #say;
  #stop = new AbortController();
  #last;

  constructor(line, say) {
    const { id, slot, body, body_base64: base64, ...rest } = line;
    // Keys of a later version must not replace what is here.
    for (const key of Object.keys(rest)) if (!(key in this)) this[key] = rest[key];
    this.id = id;
    this.body = base64 === undefined ? Buffer.from(body ?? "") : Buffer.from(base64, "base64");
    this.#say = (told) => say({ id, slot, ...told });
  }

  get stopped() {
    return this.#stop.signal;
  }

  get text() {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(this.body);
  }

  json() {
    try {
      return JSON.parse(this.text);
    } catch (error) {
      throw new Reject(`the body is not JSON: ${error.message}`);
    }
  }

  progress(note = true) {
    this.#say({ progress: note });
  }

  retire() {
    this.#last = true;
  }

  /** Runs the handler and answers. Never throws. */
  async _run(handle) {
    try {
      const reply = await handle(this);
      if (typeof reply === "function" || typeof reply === "symbol") throw new TypeError(`JSON has no ${typeof reply}`);
      const told = reply instanceof Uint8Array ? { reply_base64: Buffer.from(reply).toString("base64") } : { reply };
      this.#say({ outcome: "done", ...told, last: this.#last });
    } catch (error) {
      if (error instanceof Retry) this.#say({ outcome: "retry", delay: error.delay, last: this.#last });
      else if (error instanceof Reject) this.#say({ outcome: "reject", error: error.message, last: this.#last });
      else {
        console.error(error);
        this.#say({ outcome: "failed", error: String(error), last: this.#last });
      }
    }
  }

  _stop() {
    this.#stop.abort(new Stopped());
  }
}

export async function serve(handle, options = {}) {
  const answers = fs.openSync("/dev/stdout", "a");
  fs.closeSync(1);
  fs.openSync("/dev/stderr", "a"); // Takes the free descriptor 1: all output goes to the log.
  const say = (line) => fs.writeSync(answers, JSON.stringify(line) + "\n");
  const most = Number(process.env.TIDEGATE_CONCURRENCY ?? 1);
  const concurrency = Math.max(1, Math.min(most, options.concurrency ?? most));
  say({ ready: true, ...(concurrency > 1 ? { protocol: 2, concurrency } : { protocol: 1 }) });
  const jobs = new Map(); // The last job of each slot. In version 1 there is no slot.
  const ends = new Map();
  // `crlfDelay`: a body may end in a carriage return, which JSON escapes, so a line never does.
  for await (const line of readline.createInterface({ input: process.stdin, crlfDelay: Infinity })) {
    const said = JSON.parse(line);
    if (said.stop) {
      jobs.get(said.slot)?._stop();
    } else {
      const job = new Job(said, say);
      jobs.set(said.slot, job);
      ends.set(said.slot, job._run(handle));
    }
  }
  await Promise.all(ends.values()); // Finish what has begun.
}

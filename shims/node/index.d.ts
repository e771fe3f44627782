/** Try again later, after `delay` seconds. Without a delay, after the pool's backoff. */
export class Retry extends Error {
  constructor(delay?: number);
  readonly delay?: number;
}

/** The job can never succeed: its message is dead-lettered with this reason. */
export class Reject extends Error {}

/** The reason of `Job.stopped`. */
export class Stopped extends Error {}

/** A value of JSON. */
export type Json = null | boolean | number | string | Json[] | { [key: string]: Json | undefined };

/** Keys of a later version of tidegate are properties too. */
export interface Job {
  /** The message's id, or an id that tidegate made. */
  readonly id: string;
  /** 1 for the first attempt. */
  readonly attempt: number;
  /** The body, unchanged. */
  readonly body: Buffer;
  /** The body as text. Throws if it is not UTF-8. */
  readonly text: string;
  /** The headers. Bytes are `{ base64: "..." }`. */
  readonly headers: Readonly<Record<string, Json>>;
  /** Whether `headers` is not complete. */
  readonly truncated: boolean;
  readonly pool: string;
  readonly queue: string;
  readonly redelivered: boolean;
  /** The exchange of the first publish. `""` is the default exchange. */
  readonly exchange: string;
  readonly routing_key: string;
  readonly type: string | null;
  readonly app_id: string | null;
  readonly message_id: string | null;
  readonly correlation_id: string | null;
  readonly reply_to: string | null;
  readonly priority: number | null;
  /** In seconds since 1970. */
  readonly timestamp: number | null;
  readonly content_type: string | null;
  readonly content_encoding: string | null;
  readonly traceparent: string | null;
  readonly tracestate: string | null;
  /** Aborts when the job must stop. Its reason is a `Stopped`. Only where a process has several jobs at a time. */
  readonly stopped: AbortSignal;
  /** The body as JSON. A body that is not JSON rejects the job: another attempt would fail too. */
  json(): any;
  /** The job's `timeout` starts again. `note` is any JSON value but `null`. */
  progress(note?: Json): void;
  /** Asks for a new process in the place of this one after the job. */
  retire(): void;
}

/** `undefined` and `null` are no reply. Text and bytes are sent unchanged, any other value as JSON. */
export type Reply = Json | Uint8Array | undefined | void;

/**
 * Calls `handle(job)` for each job, and resolves when there are no more. `Retry` and `Reject` are outcomes, any other
 * error fails the job. `concurrency` is for fewer jobs at a time than the pool allows. From the call on, all output goes
 * to the log.
 */
export function serve(
  handle: (job: Job) => Reply | Promise<Reply>,
  options?: { concurrency?: number },
): Promise<void>;

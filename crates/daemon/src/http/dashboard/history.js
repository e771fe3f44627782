// The last hour of every pool: read from the server once, then kept up with each event.

import { path, read } from "./api.js";

export const HOUR = 3600;
export const LEVELS = ["ready", "demand", "expected", "live", "idle", "busy"];
export const OUTCOMES = ["done", "retried", "dead", "requeued"];
const COLUMNS = [...LEVELS, ...OUTCOMES];

// Time between two samples of the server.
const STEP = 5;

// For each pool: a list for each column, and `at`. All lists have the same length.
export const histories = new Map();

// The totals of each pool at the last event.
const counted = new Map();

const empty = () => Object.fromEntries(["at", ...COLUMNS].map((column) => [column, []]));

// Reads what the page missed before it opened or while it was disconnected: one point per minute for every pool, and
// all samples of the selected pool.
export async function catchUp(selected) {
  const { pools } = await read("/api/v1/history");
  for (const { name, ...columns } of pools) merge(name, columns);
  await catchUpOne(selected);
  counted.clear();
}

export async function catchUpOne(pool) {
  if (!pool) return;
  try {
    merge(pool, await read(path(pool, "/history")));
  } catch (error) {
    if (error.status !== 404) throw error;
  }
}

// A restarted daemon has no older samples. The samples that the page already has stay.
function merge(name, columns) {
  const seen = histories.get(name);
  const start = columns.at[0] ?? Infinity;
  const keep = seen ? seen.at.findIndex((at) => at >= start) : 0;
  const older = keep === -1 ? seen.at.length : keep;
  const merged = empty();
  for (const column of Object.keys(merged)) {
    const fresh = columns[column] ?? columns.at.map(() => 0);
    merged[column] = older ? [...seen[column].slice(0, older), ...fresh] : [...fresh];
  }
  histories.set(name, merged);
}

export function remember(pools, at) {
  for (const pool of pools) add(pool, at);
  for (const name of histories.keys()) {
    if (!pools.some((pool) => pool.name === name)) histories.delete(name);
  }
}

function add(pool, at) {
  let history = histories.get(pool.name);
  if (!history) histories.set(pool.name, (history = empty()));
  const last = history.at.length - 1;
  const replaces = last > 0 && at - history.at[last - 1] < STEP;
  const index = replaces ? last : last + 1;
  history.at[index] = at;
  const levels = [pool.depth.ready, pool.demand, pool.expected, pool.workers.live, pool.runners.idle, pool.runners.busy];
  LEVELS.forEach((column, place) => (history[column][index] = levels[place]));
  const now = totals(pool);
  const before = counted.get(pool.name) ?? now;
  counted.set(pool.name, now);
  OUTCOMES.forEach((outcome, place) => {
    const more = now[place] - before[place];
    history[outcome][index] = (replaces ? history[outcome][index] : 0) + (more < 0 ? now[place] : more);
  });
  let old = 0;
  while (history.at[old] < at - HOUR) old += 1;
  if (old) for (const column of Object.keys(history)) history[column].splice(0, old);
}

export const totals = ({ jobs }) => [jobs.done, jobs.retried, jobs.dead, jobs.requeued + jobs.lost];

// The number of jobs with an outcome within the last `within` seconds.
export function ended(history, outcome, within) {
  const end = history.at.at(-1);
  let sum = 0;
  history.at.forEach((at, index) => (sum += at > end - within ? history[outcome][index] : 0));
  return sum;
}

// A short history fills the plot. The plot shows at most an hour.
export const spanOf = (history) => Math.min(HOUR, Math.max(300, Math.ceil((history.at.at(-1) - history.at[0]) / 300) * 300));

// Nothing is known between two samples that are further apart than this. The overview has one sample per minute.
export const isGap = (history, index) => index > 0 && history.at[index] - history.at[index - 1] > 90;

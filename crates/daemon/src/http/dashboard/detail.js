// The selected pool: its numbers, its plot, why it has this size, what runs, what failed, what was done by hand.

import { Refused, ask, change, dialog, path, read } from "./api.js";
import { $, badge, count, element, note, number, put, seconds, shape, time } from "./dom.js";
import { HOUR, LEVELS, OUTCOMES, ended, histories, totals } from "./history.js";
import { plot } from "./plot.js";

const present = (value) => value !== undefined && value !== null;

export function drawDetail(pool, again) {
  $("detail").hidden = !pool;
  if (!pool) return;
  const history = histories.get(pool.name);
  put($("detail-title"), pool.name);
  put($("detail-queue"), `queue ${pool.queue}`);
  badge($("detail-state"), pool.state);
  note($("cause"), pool.cause);
  note($("refused"), pool.reload_refused ? `The newest configuration was refused, so an older one runs: ${pool.reload_refused.why.join("; ")}` : "");
  note($("orders"), byHand(pool));
  const paused = pool.intake ? pool.intake !== "open" : pool.state === "paused";
  enable("pause", !paused);
  enable("resume", paused);
  enable("auto", present(pool.pinned));
  tiles(pool, history);
  plot(pool.name, history, again);
  if (history) outcomes(pool, history);
  runners(pool);
}

// A button that has the focus keeps it: it says so instead that it does nothing.
function enable(act, is) {
  document.querySelector(`[data-act=${act}]`).setAttribute("aria-disabled", String(!is));
}

const ORDERS = {
  intake: ({ what }) => what,
  pin: ({ what }) => `pinned to ${count(what, "worker")}`,
  no_shrink: () => "kept from shrinking",
  policy: () => "a policy of its own",
};

function byHand(pool) {
  const orders = Object.entries(pool.orders ?? {}).filter(([, order]) => order?.by);
  const said = orders.map(([what, order]) => {
    const until = order.until ? `, until ${time(new Date(order.until))}` : "";
    return `${ORDERS[what]?.(order) ?? what} by ${order.by} since ${time(new Date(order.since))}${until}`;
  });
  return said.length ? `Set by hand: ${said.join("; ")}.` : "";
}

function tiles(pool, history) {
  const { depth, workers } = pool;
  const rate = history ? ended(history, "done", 60) / Math.max(1, Math.min(60, history.at.at(-1) - history.at[0])) : 0;
  const shown = [
    ["Ready", number(depth.ready), depth.stale ? "not up to date" : ""],
    ["Demand", number(pool.demand), "ready and held"],
    ["Workers", `${number(workers.live)} / ${number(pool.expected)}`, workers.draining ? `${number(workers.draining)} draining` : "live / expected"],
    ["Finished", `${(pool.rates?.done ?? rate).toFixed(1)} / s`, pool.rates ? `${pool.rates.arrivals.toFixed(1)} / s arrive` : "the last minute"],
  ];
  if (pool.wait_s) shown.push(["Wait", seconds(pool.wait_s.p50), `95 %: ${seconds(pool.wait_s.p95)}`]);
  if (pool.service_s) shown.push(["Run time", seconds(pool.service_s.p50), `95 %: ${seconds(pool.service_s.p95)}`]);
  if (present(pool.oldest_s)) shown.push(["Oldest", seconds(pool.oldest_s), "in the queue"]);
  if (pool.taken_ahead) shown.push(["By key", number(pool.taken_ahead.blocked), `wait, ${number(pool.taken_ahead.ready)} can start`]);
  shown.push(["To retry", number(pool.delayed), "waiting"], ["Dead letters", number(pool.dead_waiting), "waiting"]);
  const list = $("tiles");
  while (list.children.length > shown.length) list.lastChild.remove();
  shown.forEach(([name, value, more], index) => {
    const tile = list.children[index] ?? list.appendChild(element("div", {}, element("dt"), element("dd"), element("dd", { class: "more" })));
    [name, value, more].forEach((text, place) => put(tile.children[place], text));
  });
}

// ---- Tables with bars

const WORDS = { done: "Done", retried: "Retried", dead: "Dead", requeued: "Given back" };

function outcomes(pool, history) {
  const since = totals(pool);
  const hour = OUTCOMES.map((outcome) => ended(history, outcome, HOUR));
  const all = Math.max(1, ...hour);
  bars($("outcomes"), OUTCOMES.map((outcome, place) => [outcome, WORDS[outcome], hour[place] / all, number(hour[place]), number(since[place])]));
}

function runners({ runners: { busy, idle }, workers: { bare, draining } }) {
  const all = Math.max(1, busy, idle, bare, draining);
  bars($("runners"), [
    ["busy", "Runners busy", busy / all, number(busy)],
    ["idle", "Runners idle", idle / all, number(idle)],
    ["live", "Workers without a runner", bare / all, number(bare)],
    ["expected", "Workers draining", draining / all, number(draining)],
  ]);
}

function bars(body, rows) {
  if (!body.children.length) {
    for (const [key, name, , ...numbers] of rows) {
      const bar = shape("svg", { viewBox: "0 0 100 10", preserveAspectRatio: "none", "aria-hidden": "true" }, shape("rect", { class: `key-${key}`, height: 10 }));
      body.append(element("tr", {}, element("th", { scope: "row" }, name), element("td", { class: "bar-cell" }, bar), ...numbers.map(() => element("td", { class: "number" }))));
    }
  }
  rows.forEach(([, , share, ...numbers], index) => {
    const [, bar, ...cells] = body.children[index].children;
    bar.firstChild.firstChild.setAttribute("width", (share * 100).toFixed(1));
    cells.forEach((cell, place) => put(cell, numbers[place]));
  });
}

// The same as the plot, for those who would rather read it.
export function fillSamples(name) {
  const history = histories.get(name);
  if (!$("samples-block").open || !history) return;
  const columns = [...LEVELS, ...OUTCOMES];
  const rows = history.at.map((at, index) => element("tr", {}, element("th", { scope: "row" }, time(new Date(at * 1000))), ...columns.map((column) => element("td", { class: "number" }, number(history[column][index])))));
  $("samples").replaceChildren(...rows.reverse());
}

// ---- What is read now and then: the decision, jobs, failures, actions

const since = (text) => (Date.now() - Date.parse(text)) / 1000;

const TABLES = [
  {
    id: "jobs", from: (pool) => path(pool, "/jobs"), none: "No job runs.", unseen: "The programs of this pool consume the queue themselves, so tidegate does not see their jobs.",
    head: ["Job", "Worker", "Runner", "Running for", "Attempt", "Deadline", "Action"],
    row(job, pool) {
      const left = job.deadline ? -since(job.deadline) : undefined;
      const act = job.stopping ? `stopping, then ${job.stopping.then}` : stopper(pool, job.id);
      return [job.id, `w${job.worker}`, `r${job.runner}`, seconds(Math.max(0, since(job.since))), job.attempt, left === undefined ? "" : left < 0 ? "over" : `in ${seconds(left)}`, act];
    },
  },
  {
    id: "failures", from: (pool) => path(pool, "/failures"), none: "No job has failed since the daemon started.", unseen: "The programs of this pool settle their messages themselves, so tidegate does not see failures.",
    head: ["When", "Job", "Attempt", "Became", "Error"],
    // Read only when there is a new one.
    key: ({ jobs }) => `${jobs.retried} ${jobs.dead}`,
    row: (failure) => [
      time(new Date(failure.at)), failure.job_id, failure.attempt,
      failure.outcome === "dead" ? `dead: ${failure.reason}` : `retried in ${seconds(failure.retry_in_ms / 1000)}`,
      failure.stderr ? element("details", {}, element("summary", {}, failure.error), element("pre", {}, failure.stderr)) : failure.error,
    ],
  },
  {
    id: "actions", from: () => "/api/v1/actions", none: "Nobody has steered this pool since the daemon started.",
    head: ["When", "What", "Who", "Outcome"],
    wanted: (action, pool) => !action.pool || action.pool === pool,
    row: (action) => [time(new Date(action.at)), action.act, action.by, action.outcome],
  },
];

// What a daemon of another version does not have.
const missing = new Set();
const drawn = new Map();

export function forget() {
  drawn.clear();
  for (const { id } of TABLES) $(`${id}-body`).replaceChildren();
  $("terms").replaceChildren();
  put($("decision"), "");
  put($("record"), "");
}

export function startAgain() {
  missing.clear();
  drawn.clear();
}

let refreshing = false;
export async function refresh(pool) {
  if (!pool || refreshing || document.hidden) return;
  refreshing = true;
  try {
    await explain(pool.name);
    for (const table of TABLES) await drawTable(pool, table);
  } catch (error) {
    if (error instanceof Refused && error.status === 404) put($("decision"), "This pool has gone.");
  } finally {
    refreshing = false;
  }
}

const isShown = (name) => $("detail-title").textContent === name;

async function explain(name) {
  const { text, decision } = await read(path(name, "/explain"));
  if (!isShown(name)) return;
  put($("record"), text ?? "");
  put($("decision"), inWords(decision));
  const rows = (decision?.terms ?? []).map((term) => {
    const won = term.name === decision.won;
    return element("tr", won ? { class: "won" } : {}, element("th", { scope: "row" }, won ? `${term.name} (decides)` : term.name), element("td", { class: "number" }, number(term.workers)), element("td", { class: "wrap" }, term.why ?? ""));
  });
  const table = $("terms");
  if (table.textContent !== rows.map((row) => row.textContent).join("")) table.replaceChildren(...rows);
}

function inWords(decision) {
  if (!decision) return "No decision yet.";
  const why = decision.terms.map((term) => term.why).filter(Boolean);
  if (why.length === 1) why.push("nothing capped it");
  return `${count(decision.expected, "worker")}: ${why.join("; ")}.`;
}

async function drawTable(pool, table) {
  const block = $(table.id);
  if (missing.has(table.id)) return;
  const key = table.key?.(pool);
  if (key !== undefined && drawn.get(table.id) === key) return;
  let items;
  try {
    items = await read(table.from(pool.name));
  } catch (error) {
    if (error.status !== 404) throw error;
    missing.add(table.id);
    block.hidden = true;
    return;
  }
  if (!isShown(pool.name)) return;
  if (!Array.isArray(items)) items = Object.values(items).find(Array.isArray) ?? [];
  if (table.wanted) items = items.filter((item) => table.wanted(item, pool.name));
  block.hidden = false;
  if (key !== undefined) drawn.set(table.id, key);
  // Times are computed again for each answer, and differ by a little.
  const text = JSON.stringify(items, (name, value) => (["since", "deadline"].includes(name) ? value.slice(0, 19) : value));
  // What has not changed keeps its focus, its selection and its open parts. Only ages change.
  const body = $(`${table.id}-body`);
  if (key === undefined && drawn.get(table.id) === text) return freshen(body, table, items, pool.name);
  if (key === undefined) drawn.set(table.id, text);
  const focused = body.contains(document.activeElement) && document.activeElement.getAttribute("aria-label");
  body.replaceChildren(items.length ? filled(table, items, pool.name) : element("p", { class: "quiet" }, (pool.consumes && table.unseen) || table.none));
  if (focused) body.querySelector(`[aria-label="${CSS.escape(focused)}"]`)?.focus();
}

function freshen(body, table, items, pool) {
  const rows = body.querySelectorAll("tbody tr");
  items.slice(0, rows.length).forEach((item, place) => {
    table.row(item, pool).forEach((value, column) => typeof value === "string" && put(rows[place].children[column], value));
  });
}

function filled(table, items, pool) {
  const head = element("tr", {}, ...table.head.map((name) => element("th", { scope: "col" }, name)));
  const cell = (value) => {
    const text = typeof value === "object" && value ? value : String(value ?? "");
    return element("td", typeof text !== "string" || text.length > 24 ? { class: "wrap" } : {}, text);
  };
  const rows = items.slice(0, 100).map((item) => element("tr", {}, ...table.row(item, pool).map(cell)));
  const more = items.length > rows.length ? [element("caption", {}, `The first ${rows.length} of ${items.length}`)] : [];
  return element("div", { class: "scroll", tabindex: "0", role: "region", "aria-labelledby": `${table.id}-title` }, element("table", {}, ...more, element("thead", {}, head), element("tbody", {}, ...rows)));
}

// ---- Steering

function stopper(pool, id) {
  const button = element("button", { type: "button", "aria-label": `Stop the job ${id}` }, "Stop");
  button.addEventListener("click", async () => {
    put($("stop-title"), `Stop the job ${id}?`);
    const then = await dialog("stop-dialog");
    if (!["retry", "reject", "requeue"].includes(then)) return;
    if (await change("POST", path(pool, `/jobs/${encodeURIComponent(id)}/stop`), { then }, `The job ${id} is told to stop.`)) startAgain();
  });
  return button;
}

const ACTS = {
  pause: { said: "is paused" },
  resume: { said: "takes jobs again" },
  drain: { said: "drains", ask: "The pool takes nothing more, and its workers leave after their jobs. It stays empty until you resume it." },
  flush: { said: "ends its idle runners" },
};

export function listenToButtons(selected, done) {
  const steer = async (...order) => (await change(...order)) && done();
  $("steer").addEventListener("click", async ({ target }) => {
    const act = target.dataset?.act;
    const pool = selected();
    if (!act || !pool || target.getAttribute("aria-disabled") === "true") return;
    if (act === "auto") return steer("PUT", path(pool, "/scale"), { workers: "auto" }, `${pool} follows its policy.`);
    const { said, ask: question } = ACTS[act];
    if (question && !(await ask(`Drain ${pool}?`, question))) return;
    steer("POST", path(pool, `/${act}`), undefined, `${pool} ${said}.`);
  });
  $("scale").addEventListener("submit", (event) => {
    event.preventDefault();
    const [pool, workers] = [selected(), Number($("scale-to").value)];
    steer("PUT", path(pool, "/scale"), { workers }, `${pool} is pinned to ${count(workers, "worker")}.`);
  });
}

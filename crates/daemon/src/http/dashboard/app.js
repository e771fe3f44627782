// The dashboard: it reads the event stream, draws, and steers by the API. No library, no third party.
//
// The state is one object. Every event changes it and calls `draw`, which writes only what is different. All text of
// pools, messages and jobs goes in as text, never as markup.

const $ = (id) => document.getElementById(id);

const state = {
  pools: [],
  histories: new Map(), // Of each pool: {at: [], ready: [], demand: [], expected: [], live: [], busy: []}.
  selected: location.hash ? decodeURIComponent(location.hash.slice(1)) : null,
  filter: "",
  connected: false,
  since: null,
  cursor: null,
};

const HOUR = 3600;
const MARKUP = "http://www.w3.org/2000/svg";
const COLUMNS = ["ready", "demand", "expected", "live", "busy"];
const TONES = {
  active: "good", idle: "", paused: "warn", draining: "warn", waiting: "warn",
  faulted: "bad", blocked: "bad", stuck: "bad", disconnected: "bad",
};

// ---- The API --------------------------------------------------------------------------------------------------------

const token = {
  get: () => sessionStorage.getItem("tidegate-token"),
  set: (text) => (text ? sessionStorage.setItem("tidegate-token", text) : sessionStorage.removeItem("tidegate-token")),
};

function headers(more = {}) {
  const shown = token.get();
  return shown ? { ...more, Authorization: `Bearer ${shown}` } : more;
}

const path = (pool, rest = "") => `/api/v1/pools/${encodeURIComponent(pool)}${rest}`;

async function read(url) {
  const response = await fetch(url, { headers: headers() });
  if (!response.ok) throw new Refused(response.status, await reason(response));
  return response.json();
}

class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

async function reason(response) {
  try {
    return (await response.json()).error ?? response.statusText;
  } catch {
    return response.statusText || `status ${response.status}`;
  }
}

async function change(method, url, body, said) {
  if (!token.get() && !(await askToken())) return;
  try {
    const response = await fetch(url, {
      method,
      headers: headers(body === undefined ? {} : { "Content-Type": "application/json" }),
      body: body === undefined ? undefined : JSON.stringify(body),
    });
    if (!response.ok) throw new Refused(response.status, await reason(response));
    tell(said, true);
    refresh();
  } catch (error) {
    if (error.status === 401) token.set(null);
    tell(`Refused: ${error.message}`, false);
  }
}

// ---- The event stream -----------------------------------------------------------------------------------------------

// `EventSource` cannot show a token, so the stream is read by `fetch`.
async function listen() {
  let pause = 500;
  for (;;) {
    try {
      const response = await fetch("/api/v1/events", { headers: headers({ Accept: "text/event-stream" }) });
      if (!response.ok) throw new Refused(response.status, await reason(response));
      await catchUp();
      pause = 500;
      await follow(response.body.pipeThrough(new TextDecoderStream()).getReader());
      link(false, "the stream ended");
    } catch (error) {
      link(false, error.message);
      if (error.status === 401 || error.status === 403) await askToken(error.message);
    }
    await new Promise((go) => setTimeout(go, pause));
    pause = Math.min(pause * 2, 10_000);
  }
}

async function follow(reader) {
  let rest = "";
  for (;;) {
    // The server sends a line at least each 15 s.
    const { value, done } = await within(40_000, reader.read());
    if (done) return;
    rest += value;
    const events = rest.split("\n\n");
    rest = events.pop();
    for (const event of events) take(event);
  }
}

function within(milliseconds, promise) {
  let timer;
  const late = new Promise((_, fail) => {
    timer = setTimeout(() => fail(new Error("no word from the server")), milliseconds);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

function take(event) {
  let kind = "message";
  let data = "";
  for (const line of event.split("\n")) {
    if (line.startsWith("event:")) kind = line.slice(6).trim();
    else if (line.startsWith("data:")) data += line.slice(5).trim();
  }
  if (kind !== "pools" || !data) return;
  const { at, pools } = JSON.parse(data);
  link(true);
  state.pools = pools;
  for (const pool of pools) remember(pool, at);
  for (const name of state.histories.keys()) {
    if (!pools.some((pool) => pool.name === name)) state.histories.delete(name);
  }
  draw();
}

// What the page missed, before it opened or while it was cut off: a point a minute of every pool, all samples of the
// selected one.
async function catchUp() {
  const { pools } = await read("/api/v1/history");
  for (const { name, ...columns } of pools) state.histories.set(name, columns);
  await catchUpSelected();
}

async function catchUpSelected() {
  const pool = state.selected;
  if (!pool) return;
  try {
    state.histories.set(pool, await read(path(pool, "/history")));
  } catch (error) {
    if (error.status !== 404) throw error;
  }
}

const STEP = 5;

function remember(pool, at) {
  let history = state.histories.get(pool.name);
  if (!history) state.histories.set(pool.name, (history = { at: [], ready: [], demand: [], expected: [], live: [], busy: [] }));
  const last = history.at.length - 1;
  const replaces = last > 0 && at - history.at[last - 1] < STEP;
  const index = replaces ? last : history.at.length;
  history.at[index] = at;
  history.ready[index] = pool.depth.ready;
  history.demand[index] = pool.demand;
  history.expected[index] = pool.expected;
  history.live[index] = pool.workers.live;
  history.busy[index] = pool.runners.busy;
  while (history.at[0] < at - HOUR) for (const column of ["at", ...COLUMNS]) history[column].shift();
}

function link(connected, why) {
  if (state.connected !== connected || !state.since) state.since = new Date();
  state.connected = connected;
  const badge = $("link");
  put(badge, connected ? "live" : `cut off since ${time(state.since)}`);
  badge.className = `badge ${connected ? "good" : "bad"}`;
  badge.title = connected ? "" : (why ?? "");
}

// ---- Drawing --------------------------------------------------------------------------------------------------------

let wanted = false;
function draw() {
  if (wanted) return;
  wanted = true;
  requestAnimationFrame(() => {
    wanted = false;
    if (document.hidden) return;
    drawRows();
    drawDetail();
    put($("clock"), time(new Date()));
  });
}

function put(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

function shape(name, attributes = {}, ...children) {
  const made = document.createElementNS(MARKUP, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

const time = (date) => date.toLocaleTimeString([], { hour12: false });
const number = (value) => (value ?? 0).toLocaleString("en");
const seconds = (value) => {
  if (value === null || value === undefined) return "–";
  if (value < 1) return `${Math.round(value * 1000)} ms`;
  if (value < 120) return `${value.toFixed(value < 10 ? 1 : 0)} s`;
  return `${Math.round(value / 60)} min`;
};

function drawRows() {
  const rows = $("rows");
  const shown = state.pools.filter((pool) => pool.name.toLowerCase().includes(state.filter));
  if (!state.selected && state.pools.length) state.selected = state.pools[0].name;
  const known = new Map([...rows.children].map((row) => [row.dataset.pool, row]));
  let place = 0;
  for (const pool of shown) {
    let row = known.get(pool.name);
    known.delete(pool.name);
    if (!row) {
      row = newRow(pool.name);
    }
    if (rows.children[place] !== row) rows.insertBefore(row, rows.children[place] ?? null);
    place += 1;
    fillRow(row, pool);
  }
  for (const row of known.values()) row.remove();
  $("no-pools").hidden = shown.length > 0;
}

function newRow(name) {
  const button = element("button", { type: "button" }, name);
  button.addEventListener("click", () => select(name));
  const head = element("th", { scope: "row" }, button);
  const row = element("tr", {}, head, element("td", {}, element("span", { class: "badge" })));
  for (let cell = 0; cell < 4; cell += 1) row.append(element("td", { class: "number" }));
  row.append(element("td", { class: "trend-cell" }));
  row.dataset.pool = name;
  return row;
}

function fillRow(row, pool) {
  const [, stateCell, ready, demand, workers, busy, trend] = row.children;
  badge(stateCell.firstChild, pool.state);
  put(ready, number(pool.depth.ready));
  put(demand, number(pool.demand));
  put(workers, `${number(pool.workers.live)} / ${number(pool.expected)}`);
  put(busy, number(pool.runners.busy));
  if (pool.name === state.selected) row.setAttribute("aria-current", "true");
  else row.removeAttribute("aria-current");
  const history = state.histories.get(pool.name);
  if (history) trend.replaceChildren(spark(history));
}

function badge(span, word) {
  put(span, word);
  span.className = `badge ${TONES[word] ?? ""}`;
}

function spark(history) {
  const end = history.at.at(-1);
  const top = Math.max(1, ...history.demand);
  const span = spanOf(history);
  const points = history.at.map((at, index) => [112 - ((end - at) / span) * 112, 24 - (history.demand[index] / top) * 22]);
  const line = shape("path", { d: steps(points), class: "line-demand" });
  return shape("svg", { viewBox: "0 0 112 26", preserveAspectRatio: "none", "aria-hidden": "true" }, line);
}

// A young history fills the plot; from an hour on, the plot shows an hour.
const spanOf = (history) => Math.min(HOUR, Math.max(300, Math.ceil((history.at.at(-1) - history.at[0]) / 300) * 300));

function steps(points) {
  let drawn = "";
  points.forEach(([x, y], index) => {
    drawn += index ? `H${x.toFixed(1)}V${y.toFixed(1)}` : `M${x.toFixed(1)} ${y.toFixed(1)}`;
  });
  return drawn;
}

function select(name) {
  state.selected = name;
  state.cursor = null;
  history.replaceState(null, "", `#${encodeURIComponent(name)}`);
  $("terms").textContent = "";
  $("extras").replaceChildren();
  draw();
  refresh();
  catchUpSelected().then(draw, () => {});
  if (matchMedia("(max-width: 60rem)").matches) $("detail").focus();
}

const chosen = () => state.pools.find((pool) => pool.name === state.selected);

function drawDetail() {
  const pool = chosen();
  $("detail").hidden = !pool;
  if (!pool) return;
  put($("detail-title"), pool.name);
  badge($("detail-state"), pool.state);
  note($("cause"), pool.cause);
  note($("orders"), byHand(pool));
  const paused = pool.intake ? pool.intake !== "open" : pool.state === "paused";
  document.querySelector("[data-act=pause]").disabled = paused;
  document.querySelector("[data-act=resume]").disabled = !paused;
  document.querySelector("[data-act=auto]").disabled = pool.pinned === undefined || pool.pinned === null;
  tiles(pool);
  plot(state.histories.get(pool.name));
}

function note(paragraph, text) {
  paragraph.hidden = !text;
  put(paragraph, text ?? "");
}

function byHand(pool) {
  const orders = Object.entries(pool.orders ?? {});
  const said = orders.filter(([, order]) => order?.by).map(([what, order]) => {
    const until = order.until ? `, until ${time(new Date(order.until))}` : "";
    return `${what.replaceAll("_", " ")} by ${order.by} since ${time(new Date(order.since))}${until}`;
  });
  return said.length ? `Set by hand: ${said.join("; ")}.` : "";
}

function tiles(pool) {
  const shown = [
    ["Ready", pool.depth.stale ? `${number(pool.depth.ready)} (old)` : number(pool.depth.ready)],
    ["Demand", number(pool.demand)],
    ["Expected", pool.pinned === undefined || pool.pinned === null ? number(pool.expected) : `${number(pool.expected)} (pinned)`],
    ["Live workers", number(pool.workers.live)],
    ["Runners", `${number(pool.runners.busy)} busy, ${number(pool.runners.idle)} idle`],
    ["Done", number(pool.jobs.done)],
    ["Retried", number(pool.jobs.retried)],
    ["Dead", number(pool.jobs.dead)],
    ["Waiting to retry", number(pool.delayed)],
    ["Dead letters", number(pool.dead_waiting)],
  ];
  if (pool.rates) shown.push(["Arrivals", `${pool.rates.arrivals.toFixed(1)} / s`], ["Finished", `${pool.rates.done.toFixed(1)} / s`]);
  if (pool.oldest_s !== undefined && pool.oldest_s !== null) shown.push(["Oldest", seconds(pool.oldest_s)]);
  if (pool.wait_s) shown.push(["Wait p50, p95", `${seconds(pool.wait_s.p50)}, ${seconds(pool.wait_s.p95)}`]);
  if (pool.service_s) shown.push(["Run p50, p95", `${seconds(pool.service_s.p50)}, ${seconds(pool.service_s.p95)}`]);
  const list = $("tiles");
  while (list.children.length > shown.length) list.lastChild.remove();
  shown.forEach(([name, value], index) => {
    const tile = list.children[index] ?? list.appendChild(element("div", {}, element("dt"), element("dd")));
    put(tile.children[0], name);
    put(tile.children[1], value);
  });
}

// ---- The plot: two panes on one time axis ---------------------------------------------------------------------------

const WIDTH = 720;
const LEFT = 48;
const RIGHT = 712;
const PANES = [
  { top: 18, bottom: 150, title: "messages", fill: "ready", lines: ["demand"] },
  { top: 182, bottom: 300, title: "workers", fill: "live", lines: ["busy", "expected"] },
];

function plot(history) {
  const figure = $("plot");
  if (!history?.at.length) return;
  if (!figure.firstChild) {
    figure.append(shape("svg", { viewBox: `0 0 ${WIDTH} 326`, role: "img", tabindex: "0" }), readingLine(), legend());
    const drawing = figure.firstChild;
    drawing.addEventListener("pointermove", (event) => point(event.offsetX / drawing.clientWidth));
    drawing.addEventListener("pointerleave", () => point(null));
    drawing.addEventListener("keydown", nudge);
    drawing.addEventListener("blur", () => point(null));
  }
  const drawing = figure.firstChild;
  const end = history.at.at(-1);
  const span = spanOf(history);
  const x = (at) => RIGHT - ((end - at) / span) * (RIGHT - LEFT);
  const drawn = [timeAxis(end, span, x)];
  for (const pane of PANES) drawn.push(...drawPane(pane, history, x));
  const index = state.cursor;
  if (index !== null && index < history.at.length) {
    const at = x(history.at[index]);
    drawn.push(shape("line", { class: "cursor", x1: at, x2: at, y1: PANES[0].top, y2: PANES[1].bottom }));
    put($("reading"), reading(history, index));
  } else {
    put($("reading"), "");
  }
  drawing.replaceChildren(...drawn);
  const most = Math.max(...history.demand);
  const workers = Math.max(...history.live);
  drawing.setAttribute("aria-label", `Demand and workers of ${state.selected} over the last hour. Highest demand ${number(most)}, most workers ${number(workers)}. Now ${reading(history, history.at.length - 1)}. Arrow keys read single values.`);
}

const readingLine = () => element("p", { id: "reading", "aria-live": "polite" });

function legend() {
  const caption = element("figcaption");
  for (const [key, name] of [["depth", "ready"], ["demand", "demand"], ["live", "live workers"], ["busy", "busy"], ["expected", "expected"]]) {
    caption.append(element("span", { class: `key-${key}` }, name));
  }
  return caption;
}

function reading(history, index) {
  const at = new Date(history.at[index] * 1000);
  return `${time(at)}: ${number(history.ready[index])} ready, ${number(history.demand[index])} demand, ${number(history.expected[index])} expected, ${number(history.live[index])} live, ${number(history.busy[index])} busy`;
}

function drawPane(pane, history, x) {
  const columns = [pane.fill, ...pane.lines];
  const top = nice(Math.max(1, ...columns.flatMap((column) => history[column])));
  const y = (value) => pane.bottom - (value / top) * (pane.bottom - pane.top);
  const points = (column) => history.at.map((at, index) => [x(at), y(history[column][index])]);
  const axis = shape("g", { class: "axis" });
  axis.append(label(LEFT - 6, pane.top - 6, pane.title, "start", LEFT));
  for (const value of [0, top / 2, top]) {
    if (value !== Math.round(value)) continue;
    axis.append(shape("line", { x1: LEFT, x2: RIGHT, y1: y(value), y2: y(value) }), label(LEFT - 6, y(value) + 4, short(value), "end"));
  }
  const filled = points(pane.fill);
  const area = `${steps(filled)}V${pane.bottom}H${filled[0][0].toFixed(1)}Z`;
  const fill = pane.fill === "ready" ? "depth" : pane.fill;
  const lines = pane.lines.map((column) => shape("path", { class: `line-${column}`, d: steps(points(column)) }));
  return [axis, shape("path", { class: `fill-${fill}`, d: area }), ...lines];
}

function timeAxis(end, span, x) {
  const axis = shape("g", { class: "axis" });
  const TICKS = 5;
  for (let tick = TICKS; tick >= 0; tick -= 1) {
    const at = end - (span * tick) / TICKS;
    axis.append(shape("line", { x1: x(at), x2: x(at), y1: PANES[1].bottom, y2: PANES[1].bottom + 4 }));
    const anchor = tick === 0 ? "end" : tick === TICKS ? "start" : "middle";
    const text = tick === 0 ? "now" : new Date(at * 1000).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", hour12: false });
    axis.append(label(x(at), PANES[1].bottom + 18, text, anchor));
  }
  return axis;
}

function label(x, y, text, anchor, start) {
  return shape("text", { x: start ?? x, y, "text-anchor": anchor }, text);
}

function nice(value) {
  const power = 10 ** Math.floor(Math.log10(value));
  for (const factor of [1, 2, 4, 5, 10]) if (value <= factor * power) return Math.max(2, factor * power);
  return value;
}

const short = (value) => (value >= 10_000 ? `${value / 1000}k` : number(value));

function point(share) {
  const history = state.histories.get(state.selected);
  if (share === null || !history) state.cursor = null;
  else {
    const at = history.at.at(-1) - (1 - (share * WIDTH - LEFT) / (RIGHT - LEFT)) * spanOf(history);
    let best = 0;
    history.at.forEach((seen, index) => {
      if (Math.abs(seen - at) < Math.abs(history.at[best] - at)) best = index;
    });
    state.cursor = best;
  }
  draw();
}

function nudge(event) {
  const step = { ArrowLeft: -1, ArrowRight: 1, PageUp: -12, PageDown: 12 }[event.key];
  const history = state.histories.get(state.selected);
  if (!step || !history) return;
  event.preventDefault();
  const last = history.at.length - 1;
  state.cursor = Math.min(last, Math.max(0, (state.cursor ?? last) + step));
  draw();
}

// ---- What is read now and then: the decision, jobs, failures, dead letters, actions -----------------------------------

const TABLES = [
  {
    title: "Running now", from: (pool) => path(pool, "/jobs"), none: "No job runs.",
    head: ["Job", "Worker", "Runner", "Running for", "Attempt", "Deadline"],
    row: (job) => [job.id, `w${job.worker}`, `r${job.runner}`, seconds((Date.now() - Date.parse(job.since)) / 1000), job.attempt, job.deadline ? `in ${seconds((Date.parse(job.deadline) - Date.now()) / 1000)}` : ""],
    act: (pool, job) => ({ name: "Stop", title: `Stop the job ${job.id}?`, text: "It gets TERM, then KILL after its grace. Its message goes back to the queue.", run: () => change("POST", path(pool, `/jobs/${encodeURIComponent(job.id)}/stop`), {}, `The job ${job.id} is being stopped.`) }),
  },
  {
    title: "Last failures", from: (pool) => path(pool, "/failures"), none: "No job has failed.",
    head: ["When", "Job", "Attempt", "Ended by", "Error"],
    row: (failure) => [failure.at, failure.job_id, failure.attempt, failure.failure, failure.error],
  },
  {
    title: "Dead letters", from: (pool) => path(pool, "/dead"), none: "No dead letter waits.",
    head: ["Job", "Died", "Attempts", "Reason", "Error"],
    row: (letter) => [letter.id, letter.died_at, letter.attempts, letter.reason, letter.error],
  },
  {
    title: "Actions", from: (pool) => path(pool, "/actions"), none: "Nobody has steered this pool.",
    head: ["When", "Who", "What", "Outcome"],
    row: (action) => [action.at, action.by, action.act, action.outcome],
  },
];

let refreshing = false;
async function refresh() {
  const pool = state.selected;
  if (!pool || refreshing || document.hidden || !state.connected) return;
  refreshing = true;
  try {
    const { text, status, decision } = await read(path(pool, "/explain"));
    if (pool !== state.selected) return;
    put($("terms"), text ?? "");
    put($("decision"), inWords(status, decision));
    for (const table of TABLES) await drawTable(pool, table);
  } catch (error) {
    if (!(error instanceof Refused)) return;
    if (error.status === 404) put($("decision"), "This pool has gone.");
  } finally {
    refreshing = false;
  }
}

function inWords(status, decision) {
  if (!decision) return "No decision yet.";
  const workers = decision.expected === 1 ? "1 worker" : `${number(decision.expected)} workers`;
  const why = decision.terms.map((term) => term.why).filter(Boolean);
  return `${workers}: ${why.join("; then ")}.`;
}

const missing = new Set();

async function drawTable(pool, table) {
  // A daemon that does not have it says so once.
  if (missing.has(table.title)) return;
  let items;
  try {
    items = await read(table.from(pool));
  } catch (error) {
    if (error.status === 404 && chosen()) missing.add(table.title);
    return;
  }
  if (pool !== state.selected) return;
  if (!Array.isArray(items)) items = Object.values(items).find(Array.isArray) ?? [];
  const id = `table-${table.title.toLowerCase().replaceAll(" ", "-")}`;
  let block = $(id);
  if (!block) {
    block = element("div", { id }, element("h3", {}, table.title), element("div"));
    $("extras").append(block);
  }
  block.lastChild.replaceWith(items.length ? filled(pool, table, items) : element("p", {}, table.none));
}

function filled(pool, table, items) {
  const head = element("tr", {}, ...table.head.map((name) => element("th", { scope: "col" }, name)));
  if (table.act) head.append(element("th", { scope: "col" }, "Action"));
  const body = element("tbody");
  for (const item of items.slice(0, 100)) {
    const cells = table.row(item).map((text) => element("td", String(text ?? "").length > 40 ? { class: "wrap" } : {}, String(text ?? "")));
    if (table.act) {
      const act = table.act(pool, item);
      const button = element("button", { type: "button" }, act.name);
      button.addEventListener("click", async () => (await ask(act.title, act.text)) && act.run());
      cells.push(element("td", {}, button));
    }
    body.append(element("tr", {}, ...cells));
  }
  return element("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": table.title }, element("table", {}, element("thead", {}, head), body));
}

// ---- Steering -------------------------------------------------------------------------------------------------------

const ACTS = {
  pause: { said: "is paused", ask: null },
  resume: { said: "takes jobs again", ask: null },
  drain: { said: "drains", ask: ["Drain", "The pool takes nothing more, and its workers leave after their jobs. It stays empty until you resume it."] },
  flush: { said: "deletes its idle runners", ask: null },
};

document.querySelector("#detail .actions").addEventListener("click", async (event) => {
  const act = event.target.dataset?.act;
  const pool = state.selected;
  if (!act || !pool) return;
  if (act === "auto") return change("PUT", path(pool, "/scale"), { workers: "auto" }, `${pool} follows its policy.`);
  const { said, ask: question } = ACTS[act];
  if (question && !(await ask(`${question[0]} ${pool}?`, question[1]))) return;
  change("POST", path(pool, `/${act}`), undefined, `${pool} ${said}.`);
});

$("scale").addEventListener("submit", (event) => {
  event.preventDefault();
  const workers = Number($("scale-to").value);
  change("PUT", path(state.selected, "/scale"), { workers }, `${state.selected} is pinned to ${workers}.`);
});

function dialog(id) {
  const box = $(id);
  box.returnValue = "";
  return new Promise((done) => {
    box.addEventListener("close", () => done(box.returnValue), { once: true });
    if (!box.open) box.showModal();
  });
}

async function askToken() {
  const answer = await dialog("token-dialog");
  const typed = $("token").value.trim();
  $("token").value = "";
  if (answer === "forget") token.set(null);
  if (answer === "save" && typed) token.set(typed);
  return answer === "save" && Boolean(typed);
}

async function ask(title, text) {
  put($("confirm-title"), title);
  put($("confirm-text"), text);
  return (await dialog("confirm-dialog")) === "yes";
}

let quiet;
function tell(text, fine) {
  const line = $("alert");
  line.hidden = false;
  line.className = fine ? "alert fine" : "alert";
  put(line, text);
  clearTimeout(quiet);
  if (fine) quiet = setTimeout(() => (line.hidden = true), 6000);
}

$("token-button").addEventListener("click", askToken);
$("filter").addEventListener("input", (event) => {
  state.filter = event.target.value.toLowerCase();
  draw();
});
document.querySelector("details").addEventListener("toggle", fillSamples);
document.addEventListener("visibilitychange", draw);
addEventListener("hashchange", () => select(decodeURIComponent(location.hash.slice(1))));

function fillSamples(event) {
  const history = state.histories.get(state.selected);
  if (!event.target.open || !history) return;
  const rows = history.at.map((at, index) => element("tr", {}, element("th", { scope: "row" }, time(new Date(at * 1000))), ...COLUMNS.map((column) => element("td", { class: "number" }, number(history[column][index])))));
  $("samples").replaceChildren(...rows.reverse());
}

setInterval(refresh, 2000);
listen();

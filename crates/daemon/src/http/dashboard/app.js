// The dashboard: reads the event stream, draws, and steers by the API. No library, no third party, no build step.

import { Refused, request, untilToken } from "./api.js";
import { drawDetail, fillSamples, forget, listenToButtons, refresh, startAgain } from "./detail.js";
import { drawDead, forgetDead, listenToDead } from "./dead.js";
import { $, badge, count, element, number, put, time } from "./dom.js";
import { drawLab, forgetLab, listenToLab } from "./lab.js";
import { catchUp, catchUpOne, ended, histories, remember } from "./history.js";
import { forgetCursor, spark } from "./plot.js";

const state = {
  pools: [],
  at: 0,
  selected: location.hash ? decodeURIComponent(location.hash.slice(1)) : null,
  filter: "",
  connected: null,
  since: new Date(),
};

const chosen = () => state.pools.find((pool) => pool.name === state.selected);

// ---- The event stream

// `EventSource` cannot show a token, so the stream is read by `fetch`.
async function listen() {
  let pause = 500;
  for (;;) {
    try {
      const response = await request("/api/v1/events", { headers: { Accept: "text/event-stream" } });
      await catchUp(state.selected);
      startAgain();
      pause = 500;
      await follow(response.body.pipeThrough(new TextDecoderStream()).getReader());
      link(false);
    } catch (error) {
      link(false, error instanceof Refused ? error.message : undefined);
      if (error.status === 401 || error.status === 403) await untilToken(error.message);
    }
    await new Promise((go) => setTimeout(go, pause));
    pause = Math.min(pause * 2, 5000);
  }
}

async function follow(reader) {
  let rest = "";
  try {
    for (;;) {
      // The server sends a line at least each 15 s.
      const { value, done } = await within(40_000, reader.read());
      if (done) return;
      rest += value;
      const events = rest.split("\n\n");
      rest = events.pop();
      for (const event of events) take(event);
    }
  } finally {
    reader.cancel().catch(() => {});
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
  const isFirst = !state.connected;
  link(true);
  Object.assign(state, { at, pools });
  remember(pools, at);
  if (!state.selected && pools.length) state.selected = pools[0].name;
  draw();
  if (isFirst) requestAnimationFrame(() => refresh(chosen()));
}

function link(connected, why) {
  if (state.connected !== connected) state.since = new Date();
  state.connected = connected;
  const line = $("link");
  put(line, connected ? "live" : "cut off");
  line.className = `badge ${connected ? "good" : "bad"}`;
  $("cut").hidden = connected;
  if (!connected) put($("cut"), `Cut off from the daemon since ${time(state.since)}. What is below is from then. ${why ? `It says: ${why}.` : "The page tries again by itself."}`);
}

// ---- Drawing

let wanted = false;
function draw() {
  if (wanted) return;
  wanted = true;
  requestAnimationFrame(() => {
    wanted = false;
    if (document.hidden) return;
    drawSummary();
    drawRows();
    drawDetail(chosen(), draw);
    drawDead(chosen());
    drawLab(chosen());
  });
}

function drawSummary() {
  const sum = (of) => state.pools.reduce((all, pool) => all + of(pool), 0);
  const finished = [...histories.values()].reduce((all, history) => all + (history.at.length ? ended(history, "done", 60) : 0), 0);
  put($("summary"), `${count(state.pools.length, "pool")} · ${number(sum((pool) => pool.demand))} demand · ${number(sum((pool) => pool.workers.live))} of ${number(sum((pool) => pool.expected))} workers · ${number(sum((pool) => pool.runners.busy))} busy · ${number(finished)} done in the last minute · ${count(sum((pool) => pool.dead_waiting ?? 0), "dead letter")}`);
  put($("clock"), time(new Date(state.at * 1000)));
}

function drawRows() {
  const rows = $("rows");
  const shown = state.pools.filter((pool) => `${pool.name} ${pool.state}`.toLowerCase().includes(state.filter));
  const known = new Map([...rows.children].map((row) => [row.dataset.pool, row]));
  shown.forEach((pool, place) => {
    const row = known.get(pool.name) ?? newRow(pool.name);
    known.delete(pool.name);
    if (rows.children[place] !== row) rows.insertBefore(row, rows.children[place] ?? null);
    fillRow(row, pool);
  });
  for (const row of known.values()) row.remove();
  $("no-pools").hidden = shown.length > 0;
  put($("no-pools"), state.pools.length ? "No pool matches." : "No pool is configured.");
}

function newRow(name) {
  const button = element("button", { type: "button" }, name);
  button.addEventListener("click", () => select(name));
  const row = element("tr", {}, element("th", { scope: "row" }, button), element("td", {}, element("span", { class: "badge" })));
  for (const kind of ["", " wide", "", " wide roomy", " wide"]) row.append(element("td", { class: `number${kind}` }));
  row.append(element("td", { class: "trend wide" }));
  row.dataset.pool = name;
  return row;
}

function fillRow(row, pool) {
  const [, stateCell, ready, demand, workers, busy, dead, trend] = row.children;
  badge(stateCell.firstChild, pool.state);
  put(ready, number(pool.depth.ready));
  put(demand, number(pool.demand));
  put(workers, `${number(pool.workers.live)} / ${number(pool.expected)}`);
  put(busy, number(pool.runners.busy));
  put(dead, number(pool.dead_waiting));
  if (pool.name === state.selected) row.setAttribute("aria-current", "true");
  else row.removeAttribute("aria-current");
  // A line of an hour moves by less than a pixel in this time.
  const [history, turn] = [histories.get(pool.name), String(Math.floor(state.at / 5))];
  if (history?.at.length && row.dataset.turn !== turn) {
    row.dataset.turn = turn;
    trend.replaceChildren(spark(history));
  }
}

function select(name) {
  if (name === state.selected) return;
  state.selected = name;
  history.replaceState(null, "", `#${encodeURIComponent(name)}`);
  forgetCursor();
  forget();
  forgetDead();
  forgetLab();
  drawRows();
  drawDetail(chosen(), draw);
  drawDead(chosen());
  drawLab(chosen());
  refresh(chosen());
  catchUpOne(name).then(draw, () => {});
  if (matchMedia("(max-width: 60rem)").matches) $("detail").scrollIntoView();
}

// ---- Start

$("filter").addEventListener("input", (event) => {
  state.filter = event.target.value.trim().toLowerCase();
  drawRows();
});
$("rows").addEventListener("keydown", (event) => {
  const step = { ArrowDown: "nextElementSibling", ArrowUp: "previousElementSibling" }[event.key];
  const row = step && event.target.closest("tr")[step];
  if (!row) return;
  event.preventDefault();
  row.querySelector("button").focus();
});
// The address names the pool, so the link must not change it.
document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault();
  $("detail").focus();
});
$("samples-block").addEventListener("toggle", () => fillSamples(state.selected));
document.addEventListener("visibilitychange", draw);
addEventListener("hashchange", () => select(decodeURIComponent(location.hash.slice(1))));
const done = () => {
  startAgain();
  refresh(chosen());
};
for (const listenTo of [listenToButtons, listenToDead, listenToLab]) listenTo(() => state.selected, done);
setInterval(() => state.connected && refresh(chosen()), 2000);
listen();

// The plot of the selected pool: panes on one time axis, in SVG of the figure's own width so that its text keeps its size.

import { $, element, hour, number, put, shape, short, time } from "./dom.js";
import { HOUR, OUTCOMES, isGap, spanOf } from "./history.js";

export const LEFT = 44;
export const MARGIN = 8;
const PANES = [
  { top: 20, bottom: 132, title: "Messages", fill: "ready", lines: ["demand"] },
  { top: 164, bottom: 264, title: "Workers", fill: "live", lines: ["busy", "expected"] },
  { top: 296, bottom: 366, title: "Jobs ended", bars: OUTCOMES },
];
const HEIGHT = 392;
const NAMES = { ready: "ready", demand: "demand", live: "live", busy: "busy", expected: "expected", done: "done", retried: "retried", dead: "dead", requeued: "given back", old: "old", new: "new", target: "target" };
const BARS = [5, 10, 15, 30, 60, 120, 300];

let cursor = null;
let shown = null;
let drawn = null;

export function forgetCursor() {
  cursor = null;
}

// Draws the history of a pool into the figure.
export function plot(name, history, again) {
  const figure = $("plot");
  if (!history?.at.length) return figure.replaceChildren();
  if (!drawn) start(figure, again);
  if (drawn.parentElement !== figure) figure.replaceChildren(drawn, reader);
  shown = history;
  const width = Math.max(280, figure.clientWidth);
  drawn.setAttribute("viewBox", `0 0 ${width} ${HEIGHT}`);
  const [end, span] = [history.at.at(-1), spanOf(history)];
  const right = width - MARGIN;
  const x = (at) => right - ((end - at) / span) * (right - LEFT);
  const parts = [timeAxis(end, span, x, width)];
  for (const pane of PANES) parts.push(...(pane.bars ? bars(pane, history, x, right, span) : levels(pane, history, x, right)));
  if (cursor !== null && cursor < history.at.length) {
    const at = x(history.at[cursor]);
    parts.push(shape("line", { class: "cursor", x1: at, x2: at, y1: PANES[0].top, y2: PANES.at(-1).bottom }));
  }
  drawn.replaceChildren(...parts);
  put(reader, reading(history, cursor ?? history.at.length - 1));
  const label = `Messages, workers and ended jobs of ${name} over the last hour. Highest demand ${number(highest(history, ["demand"]))}, most workers ${number(highest(history, ["live"]))}. Arrow keys read single values.`;
  if (drawn.getAttribute("aria-label") !== label) drawn.setAttribute("aria-label", label);
}

let reader;
function start(figure, again) {
  drawn = shape("svg", { role: "img", tabindex: "0" });
  reader = element("figcaption", { id: "reading" });
  const move = (index) => {
    cursor = index;
    // A screen reader reads only the values that the user points at.
    reader.setAttribute("aria-live", index === null ? "off" : "polite");
    again();
  };
  drawn.addEventListener("pointermove", (event) => move(nearest(event.offsetX, drawn.clientWidth)));
  drawn.addEventListener("pointerleave", () => move(null));
  drawn.addEventListener("blur", () => move(null));
  drawn.addEventListener("keydown", (event) => {
    const last = shown.at.length - 1;
    const to = { ArrowLeft: (cursor ?? last) - 1, ArrowRight: (cursor ?? last) + 1, PageUp: (cursor ?? last) - 12, PageDown: (cursor ?? last) + 12, Home: 0, End: last }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    move(Math.min(last, Math.max(0, to)));
  });
  new ResizeObserver(again).observe(figure);
}

function nearest(offset, width) {
  const right = width - MARGIN;
  const at = shown.at.at(-1) - (1 - (offset - LEFT) / (right - LEFT)) * spanOf(shown);
  let best = 0;
  shown.at.forEach((seen, index) => {
    if (Math.abs(seen - at) < Math.abs(shown.at[best] - at)) best = index;
  });
  return best;
}

function reading(history, index) {
  const value = (column) => number(history[column][index]);
  return `${time(new Date(history.at[index] * 1000))}  ${value("ready")} ready, ${value("demand")} demand · ${value("expected")} workers expected, ${value("live")} live · ${value("busy")} runners busy, ${value("idle")} idle`;
}

// Not `Math.max(...)` over an hour of every column: that is too many arguments if columns are joined.
function highest(history, columns) {
  let most = 0;
  for (const column of columns) for (const value of history[column]) if (value > most) most = value;
  return most;
}

function levels(pane, history, x, right) {
  const columns = [pane.fill, ...pane.lines];
  const top = nice(Math.max(1, highest(history, columns)));
  const y = (value) => pane.bottom - (value / top) * (pane.bottom - pane.top);
  const path = (column, close) => steps(history, column, x, y, close);
  const lines = pane.lines.map((column) => shape("path", { class: `line-${column}`, d: path(column) }));
  return [axis(pane, top, y, right, columns), shape("path", { class: `fill-${pane.fill}`, d: path(pane.fill, pane.bottom) }), ...lines];
}

// A line of steps. For an area it is closed at `floor`. It is interrupted where nothing is known.
function steps(history, column, x, y, floor) {
  let line = "";
  history[column].forEach((value, index) => {
    const [across, up] = [x(history.at[index]).toFixed(1), y(value).toFixed(1)];
    const begins = index === 0 || isGap(history, index);
    if (begins && index && floor !== undefined) line += `V${floor}Z`;
    if (begins) line += floor === undefined ? `M${across} ${up}` : `M${across} ${floor}V${up}`;
    else line += `H${across}V${up}`;
  });
  return floor === undefined || !line ? line : `${line}V${floor}Z`;
}

// Bars of jobs that ended. The outcomes of one interval are stacked.
function bars(pane, history, x, right, span) {
  const pixels = (right - LEFT) / span;
  const step = BARS.find((each) => each * pixels >= 6) ?? BARS.at(-1);
  const bins = new Map();
  history.at.forEach((at, index) => {
    const start = Math.floor(at / step) * step;
    const bin = bins.get(start) ?? OUTCOMES.map(() => 0);
    OUTCOMES.forEach((outcome, place) => (bin[place] += history[outcome][index]));
    bins.set(start, bin);
  });
  let most = 1;
  for (const bin of bins.values()) most = Math.max(most, bin.reduce((sum, value) => sum + value, 0));
  const top = nice(most);
  const tall = (value) => (value / top) * (pane.bottom - pane.top);
  const paths = OUTCOMES.map(() => "");
  for (const [start, bin] of bins) {
    const left = Math.max(LEFT, x(start));
    const wide = Math.max(1, Math.min(x(start + step), right) - left - 1);
    let base = pane.bottom;
    bin.forEach((value, place) => {
      if (!value) return;
      // A single dead job among thousands stays visible.
      const height = Math.max(1.5, tall(value));
      paths[place] += `M${left.toFixed(1)} ${base.toFixed(1)}h${wide.toFixed(1)}v${(-height).toFixed(1)}h${(-wide).toFixed(1)}z`;
      base -= height;
    });
  }
  const each = step < 60 ? `each ${step} s` : step === 60 ? "each minute" : `each ${step / 60} min`;
  const y = (value) => pane.bottom - tall(value);
  const title = right < 500 ? "Jobs" : `${pane.title}, ${each}`;
  return [axis({ ...pane, title }, top, y, right, OUTCOMES), ...paths.map((d, place) => shape("path", { class: `fill-${OUTCOMES[place]}`, d }))];
}

export function axis(pane, top, y, right, columns) {
  const group = shape("g", { class: "axis" });
  group.append(shape("text", { x: LEFT, y: pane.top - 8, class: "title" }, pane.title));
  for (const value of [0, top / 2, top]) {
    if (value !== Math.round(value)) continue;
    group.append(shape("line", { x1: LEFT, x2: right, y1: y(value), y2: y(value) }), shape("text", { x: LEFT - 6, y: y(value) + 4, "text-anchor": "end" }, short(value)));
  }
  // The legend, from the right.
  let from = right;
  for (const column of [...columns].reverse()) {
    from -= widthOf(NAMES[column]);
    group.append(shape("text", { x: from, y: pane.top - 8 }, NAMES[column]));
    from -= 14;
    group.append(shape("rect", { class: `key-${column}`, x: from, y: pane.top - 16, width: 10, height: 8, rx: 2 }));
    from -= 10;
  }
  return group;
}

const ruler = document.createElement("canvas").getContext("2d");
ruler.font = "11px system-ui, sans-serif";
const widthOf = (text) => ruler.measureText(text).width;

const TICKS = [60, 120, 300, 600, 900, 1800];

// Ticks at round times, and one for the present time.
function timeAxis(end, span, x, width) {
  const group = shape("g", { class: "axis" });
  const most = width < 500 ? 4 : 7;
  const step = TICKS.find((each) => span / each <= most) ?? HOUR;
  const tick = (at, text, anchor) => group.append(shape("line", { x1: x(at), x2: x(at), y1: HEIGHT - 26, y2: HEIGHT - 22 }), shape("text", { x: x(at), y: HEIGHT - 8, "text-anchor": anchor }, text));
  for (let at = Math.ceil((end - span) / step) * step; at < end; at += step) {
    if (x(at) > LEFT + 12 && x(at) < x(end) - 45) tick(at, hour(new Date(at * 1000)), "middle");
  }
  tick(end, "now", "end");
  return group;
}

export function nice(value) {
  const power = 10 ** Math.floor(Math.log10(value));
  for (const factor of [1, 2, 4, 5, 10]) if (value <= factor * power) return Math.max(2, factor * power);
  return value;
}

// ---- The small plot in the list of pools

export function spark(history) {
  const [end, span] = [history.at.at(-1), spanOf(history)];
  const top = Math.max(1, highest(history, ["demand"]));
  const x = (at) => 112 - ((end - at) / span) * 112;
  const y = (value) => 25 - (value / top) * 23;
  const area = shape("path", { d: steps(history, "demand", x, y, 26), class: "fill-ready" });
  const line = shape("path", { d: steps(history, "demand", x, y), class: "line-demand" });
  return shape("svg", { viewBox: "0 0 112 26", preserveAspectRatio: "none", "aria-hidden": "true" }, area, line);
}

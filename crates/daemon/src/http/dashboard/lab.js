// The policy lab: the keys of the selected pool's policy in a form. "Try" asks the daemon for a dry run and draws both
// policies on the pool's recording, "Apply" sets the keys by hand. Nothing is simulated here.

import { path, read, tell, withToken } from "./api.js";
import { $, count, element, hour, number, put, seconds, shape, time } from "./dom.js";
import { LEFT, MARGIN, axis, nice } from "./plot.js";

const KINDS = { fixed: ["workers"], backlog: ["jobs_per_worker"], steps: ["steps"], target_wait: ["target", "utilisation"] };
const ALWAYS = ["min_active", "max", "up_step", "down_window", "down_step", "churn"];
const SCALING = ["up_step", "down_window", "down_step", "churn"];
const STARTS = { workers: "5", jobs_per_worker: "10", steps: "[[1, 1], [100, 10]]", target: "30s", utilisation: "0.8" };
const HINTS = {
  workers: "for any demand", jobs_per_worker: "of demand", steps: "[demand, workers], ...", target: "longest good wait", utilisation: "0.1 to 1",
  min_active: "while there is work", max: "at any time", up_step: "more per reconcile", down_window: "shrink after", down_step: "fewer per reconcile", churn: "starts and stops a minute",
};

// The pool that is open, its keys as they are now, and the number of the newest question.
let open = null;
let turn = 0;

export function drawLab(pool) {
  if (pool) put($("lab-policy"), pool.policy ?? "");
}

export function forgetLab() {
  open = null;
  turn += 1;
  $("lab-form").hidden = true;
  $("lab-keys").replaceChildren();
  $("lab-open").hidden = false;
  clear("");
}

function clear(said) {
  put($("lab-said"), said);
  $("lab-result").replaceChildren();
}

async function show(pool) {
  const mine = (turn += 1);
  let view;
  try {
    view = await read(path(pool, "/policy"));
  } catch (error) {
    return tell(`Refused: ${error.message}.`, false);
  }
  if (mine !== turn) return;
  const keys = Object.fromEntries(view.keys.map(({ key, value, origin }) => [key.split(".")[1], { text: bare(value), origin }]));
  open = { pool, keys };
  const kind = element("select", { id: "lab-kind", name: "kind" }, ...Object.keys(KINDS).map((name) => element("option", { value: name }, name)));
  kind.value = keys.kind?.text ?? "backlog";
  kind.addEventListener("change", showKind);
  $("lab-keys").replaceChildren(field("kind", kind), ...[...Object.values(KINDS).flat(), ...ALWAYS].map((name) => {
    const input = element("input", { id: `lab-${name}`, name, autocomplete: "off", spellcheck: "false" });
    input.value = keys[name]?.text ?? STARTS[name] ?? "";
    return field(name, input);
  }));
  showKind();
  $("lab-form").hidden = false;
  $("lab-open").hidden = true;
  kind.focus();
}

function field(name, input) {
  const from = open.keys[name]?.origin;
  const hint = element("span", { id: `lab-${name}-hint`, class: "quiet" }, [HINTS[name], from && `(${from.replaceAll("_", " ")})`].filter(Boolean).join(" "));
  input.setAttribute("aria-describedby", hint.id);
  return element("div", {}, element("label", { for: input.id }, name), input, hint);
}

function showKind() {
  const kind = $("lab-kind").value;
  for (const [name, keys] of Object.entries(KINDS)) for (const key of keys) $(`lab-${key}`).parentElement.hidden = name !== kind;
  changed();
}

// Values are TOML: a text has quotes, which nobody should have to type.
const bare = (value) => (value.startsWith('"') ? value.slice(1, -1) : value);
function valueOf(text) {
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}

// The keys that differ from those of now.
function difference() {
  const body = {};
  const kind = $("lab-kind").value;
  const isNew = kind !== open.keys.kind?.text;
  const set = (table, name, text) => ((body[table] ??= {})[name] = valueOf(text));
  if (isNew) set("policy", "kind", kind);
  for (const name of [...KINDS[kind], ...ALWAYS]) {
    const text = $(`lab-${name}`).value.trim();
    const isOther = text !== (open.keys[name]?.text ?? "") || (isNew && KINDS[kind].includes(name));
    if (text && isOther) set(SCALING.includes(name) ? "scaling" : "policy", name, text);
  }
  return body;
}

const isSame = () => !Object.keys(difference()).length;

function changed() {
  turn += 1;
  for (const act of ["try", "apply"]) $(`lab-${act}`).setAttribute("aria-disabled", String(isSame()));
  clear($("lab-result").children.length ? "The values have changed: try them." : "");
}

async function send(act, query, said) {
  if (!open || $(`lab-${act}`).getAttribute("aria-disabled") === "true") return undefined;
  const [{ pool }, mine] = [open, (turn += 1)];
  $(`lab-${act}`).setAttribute("aria-disabled", "true");
  clear(said);
  const answer = await withToken("PATCH", path(pool, `/policy${query}`), difference(), (error) => {
    if (mine === turn) refused(error);
  });
  if (mine !== turn) return undefined;
  $(`lab-${act}`).setAttribute("aria-disabled", "false");
  if (!answer && $("lab-said").textContent === said) clear("");
  return answer;
}

function refused({ message, problems = [] }) {
  clear(`Refused: ${problems.length > 1 ? count(problems.length, "problem") : message}.`);
  if (problems.length > 1) $("lab-result").append(list(problems));
}

const list = (lines) => element("ul", { class: "quiet" }, ...lines.map((line) => element("li", {}, line)));

// ---- The result of a dry run

function draw({ changes, warnings, now, recording, no_recording }) {
  const parts = [];
  if (changes.length) parts.push(list(changes.map(({ key, before, after }) => `${key}: ${before ?? "nothing"} → ${after ?? "nothing"}`)));
  for (const warning of warnings) parts.push(element("p", { class: "cause" }, `Warning: ${warning}`));
  if (now) {
    const why = ({ expected, terms }) => {
      const [workers, why] = [`${count(expected, "worker")}: `, terms.map((term) => term.why).join("; ")];
      // The reason of some policies begins with their number.
      return `${why.startsWith(workers) ? why : workers + why}.`;
    };
    parts.push(list([`Now, old: ${why(now.before)}`, `Now, new: ${why(now.after)}`]));
  }
  put($("lab-said"), sentence(now, recording, no_recording));
  if (recording) parts.push(picture(recording), table(recording), list(recording.assumed.text));
  $("lab-result").replaceChildren(...parts);
}

function sentence(now, tried, why) {
  const said = now && now.before.expected !== now.after.expected ? [`Now the pool would have ${count(now.after.expected, "worker")} instead of ${number(now.before.expected)}.`] : now ? [`Now the pool would have ${count(now.after.expected, "worker")}, as before.`] : [];
  if (!tried) return [...said, `Nothing is simulated: ${why}.`].join(" ");
  const { before, after } = tried;
  const more = before.worker_seconds ? Math.round((after.worker_seconds / before.worker_seconds - 1) * 100) : 0;
  const cost = more ? `${Math.abs(more)} % ${more > 0 ? "more" : "fewer"} worker-seconds` : "as many worker-seconds";
  const span = `In the last ${seconds(tried.seconds)}, ${count(tried.jobs, "message")}`;
  return [`${span}: 95 of 100 would have waited up to ${seconds(after.wait_s.p95)} instead of ${seconds(before.wait_s.p95)}, with ${cost}.`, ...said].join(" ");
}

function table({ before, after, assumed }) {
  const share = (part, all) => `${((100 * part) / (all || 1)).toFixed(1)} %`;
  const rows = [
    ["Jobs", ({ jobs }) => number(jobs)],
    ["Wait, median", ({ wait_s }) => seconds(wait_s.p50)],
    ["Wait, 95 %", ({ wait_s }) => seconds(wait_s.p95)],
    ["Wait, longest", ({ wait_s }) => seconds(wait_s.max)],
    ["Worker-seconds", ({ worker_seconds }) => number(Math.round(worker_seconds))],
    ["Busy", ({ busy_seconds, worker_seconds }) => share(busy_seconds, worker_seconds)],
    ["Starts", ({ starts }) => number(starts)],
    ["Stops", ({ stops }) => number(stops)],
    ["Most workers", ({ peak }) => number(peak)],
  ];
  if (assumed.target_s !== undefined) rows.splice(4, 0, [`Over ${seconds(assumed.target_s)}`, ({ over_target, jobs }) => share(over_target, jobs)]);
  for (const [name, key] of [["Dead", "dead"], ["Never done", "left"]]) if (before[key] + after[key]) rows.push([name, (run) => number(run[key])]);
  const head = ["", "Old", "New"].map((name) => element("th", name ? { scope: "col", class: "number" } : {}, name));
  const body = rows.map(([name, of]) => element("tr", {}, element("th", { scope: "row" }, name), ...[before, after].map((run) => element("td", { class: "number" }, of(run)))));
  return element("table", { class: "narrow", "aria-label": "Both policies on the recording" }, element("thead", {}, element("tr", {}, ...head)), element("tbody", {}, ...body));
}

// ---- Both curves

const PANES = [
  { top: 20, bottom: 108, title: "Messages ready", of: "ready" },
  { top: 140, bottom: 228, title: "Workers", of: "workers" },
  { top: 260, bottom: 330, title: "Wait, s", of: "wait" },
];
const HEIGHT = 356;
const TICKS = [60, 120, 300, 600, 900, 1800, 3600, 7200, 14_400, 21_600];

function picture(tried) {
  const svg = shape("svg", { role: "img", tabindex: "0", class: "lab" });
  const caption = element("figcaption", { "aria-live": "off" });
  const figure = element("figure", {}, svg, caption);
  svg.setAttribute("aria-label", "Messages ready, workers and waits over the recording, with the old and the new policy. Arrow keys read single times.");
  const end = Math.max(60, tried.before.curve.at.at(-1) ?? 0, tried.after.curve.at.at(-1) ?? 0);
  const begin = Date.parse(tried.from) / 1000;
  let cursor = null;
  const paint = () => {
    const width = Math.max(280, figure.clientWidth);
    const right = width - MARGIN;
    const x = (at) => LEFT + (at / end) * (right - LEFT);
    svg.setAttribute("viewBox", `0 0 ${width} ${HEIGHT}`);
    const parts = [times(begin, end, x, width), ...PANES.flatMap((pane) => curves(pane, tried, x, right))];
    if (cursor !== null) parts.push(shape("line", { class: "cursor", x1: x(cursor), x2: x(cursor), y1: PANES[0].top, y2: PANES.at(-1).bottom }));
    svg.replaceChildren(...parts);
  };
  const move = (at) => {
    cursor = at === null ? null : Math.min(end, Math.max(0, at));
    caption.setAttribute("aria-live", cursor === null ? "off" : "polite");
    put(caption, cursor === null ? "" : reading(tried, begin, cursor));
    paint();
  };
  svg.addEventListener("pointermove", ({ offsetX }) => move(((offsetX - LEFT) / (svg.clientWidth - MARGIN - LEFT)) * end));
  svg.addEventListener("pointerleave", () => move(null));
  svg.addEventListener("blur", () => move(null));
  svg.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1, PageUp: -10, PageDown: 10 }[event.key];
    if (!step) return;
    event.preventDefault();
    move((cursor ?? (step > 0 ? 0 : end)) + (step * end) / 100);
  });
  new ResizeObserver(paint).observe(figure);
  return figure;
}

function reading({ before, after }, begin, at) {
  const said = [["old", before], ["new", after]].map(([name, { curve }]) => {
    const place = curve.at.findIndex((end) => end >= at);
    const wait = curve.wait[place] ?? null;
    return `${name}: ${number(curve.ready[place])} ready, ${count(curve.workers[place] ?? 0, "worker")}${wait === null ? "" : `, waits ${seconds(wait)}`}`;
  });
  return `${time(new Date((begin + at) * 1000))}  ${said.join(" · ")}`;
}

function curves(pane, { before, after, assumed }, x, right) {
  const target = pane.of === "wait" ? assumed.target_s : undefined;
  const all = [before, after].flatMap(({ curve }) => curve[pane.of]);
  const top = nice(all.reduce((most, value) => Math.max(most, value ?? 0), Math.max(1, target ?? 0)));
  const y = (value) => pane.bottom - (value / top) * (pane.bottom - pane.top);
  const parts = [
    axis(pane, top, y, right, target === undefined ? ["old", "new"] : ["old", "new", "target"]),
    shape("path", { class: "fill-old", d: line(before.curve, pane, x, y, pane.bottom) }),
    shape("path", { class: "line-old", d: line(before.curve, pane, x, y) }),
    shape("path", { class: "line-new", d: line(after.curve, pane, x, y) }),
  ];
  if (target !== undefined) parts.push(shape("line", { class: "line-target", x1: LEFT, x2: right, y1: y(target), y2: y(target) }));
  return parts;
}

// A value holds over its span. A span without a value is a gap.
function line(curve, pane, x, y, floor) {
  const [ends, values] = [curve.at, curve[pane.of]];
  let text = "";
  let isOpen = false;
  ends.forEach((end, place) => {
    const value = values[place];
    const [from, to] = [x(place ? ends[place - 1] : 0).toFixed(1), x(end).toFixed(1)];
    if (value === null) {
      if (isOpen && floor !== undefined) text += `V${floor}Z`;
      isOpen = false;
      return;
    }
    const up = y(value).toFixed(1);
    if (isOpen) text += `V${up}H${to}`;
    else text += floor === undefined ? `M${from} ${up}H${to}` : `M${from} ${floor}V${up}H${to}`;
    isOpen = true;
  });
  return isOpen && floor !== undefined ? `${text}V${floor}Z` : text;
}

function times(begin, end, x, width) {
  const group = shape("g", { class: "axis" });
  const step = TICKS.find((each) => end / each <= (width < 500 ? 4 : 8)) ?? 43_200;
  // Round times of this place's clock.
  const shift = new Date(begin * 1000).getTimezoneOffset() * 60;
  for (let at = Math.ceil((begin - shift) / step) * step + shift - begin; at <= end; at += step) {
    if (x(at) < LEFT + 12 || x(at) > width - 24) continue;
    group.append(shape("line", { x1: x(at), x2: x(at), y1: HEIGHT - 24, y2: HEIGHT - 20 }), shape("text", { x: x(at), y: HEIGHT - 6, "text-anchor": "middle" }, hour(new Date((begin + at) * 1000))));
  }
  return group;
}

// ---- Buttons

export function listenToLab(selected, done) {
  $("lab-open").addEventListener("click", () => selected() && show(selected()));
  $("lab-form").addEventListener("input", (event) => event.target.id !== "lab-kind" && changed());
  $("lab-form").addEventListener("submit", async (event) => {
    event.preventDefault();
    const answer = await send("try", "?dry_run=true", "Simulating ...");
    if (answer) draw(answer);
  });
  $("lab-apply").addEventListener("click", async () => {
    const answer = await send("apply", "", "Applying ...");
    if (!answer) return;
    const pool = answer.policy.name;
    const changes = answer.changes.map(({ key, after }) => `${key} = ${after ?? "nothing"}`);
    forgetLab();
    $("lab-open").focus();
    tell(`${pool}: ${changes.join(", ") || "nothing changed"}.`, true);
    done();
  });
  $("lab-back").addEventListener("click", () => {
    forgetLab();
    $("lab-open").focus();
  });
}

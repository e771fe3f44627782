// The dead letters of the selected pool. They are read only when the user asks, because each reading takes them from their
// queue and gives them back. The page asks for a confirmation before it retries or purges them.

import { ask, path, tell, withToken } from "./api.js";
import { $, count, element, number, put, time } from "./dom.js";

// The letters that are shown, and their pool.
let shown = null;
let busy = false;

// Bytes of a body that the daemon sends.
const START = 256;

export function forgetDead() {
  shown = null;
  put($("dead-said"), "");
  $("dead-body").replaceChildren();
}

export function drawDead(pool) {
  if (!pool) return;
  const there = pool.dead_waiting ?? 0;
  put($("dead-text"), there ? `${count(there, "dead letter")} wait${there === 1 ? "s" : ""} for a decision.` : pool.consumes ? "The programs of this pool settle their messages themselves, so tidegate dead-letters none." : "No dead letter waits.");
  $("dead-acts").hidden = !there && !shown;
}

const letters = (n) => count(n, "dead letter");
const day = (at) => (at ? `${at.slice(0, 10)} ${time(new Date(at))}` : "–");

function draw(pool, { queue, count: all, letters: list }) {
  shown = { pool, list };
  put($("dead-said"), list.length < all ? `The oldest ${list.length} of ${letters(all)} in ${queue}.` : `${letters(all)} in ${queue}.`);
  if (!list.length) return $("dead-body").replaceChildren();
  const everything = element("input", { type: "checkbox", "aria-label": "Choose all that are shown", "data-every": "" });
  const head = ["Died", "Id", "Reason", "Attempts"].map((name) => element("th", name === "Attempts" ? { scope: "col", class: "number" } : { scope: "col" }, name));
  const table = element("table", {}, element("thead", {}, element("tr", {}, element("th", { scope: "col" }, everything), ...head)), element("tbody", {}, ...list.flatMap(rows)));
  const chosen = element("div", { class: "actions", role: "group", "aria-label": "Chosen dead letters" });
  for (const [act, name] of [["retry", "Retry"], ["purge", "Purge"]]) chosen.append(element("button", { type: "button", "data-chosen": act, "aria-disabled": "true" }, `${name} chosen`));
  $("dead-body").replaceChildren(element("div", { class: "scroll", tabindex: "0", role: "region", "aria-labelledby": "dead-title" }, table), chosen);
}

// A letter, and below it the start of its body.
function rows(letter, place) {
  const box = element("input", { type: "checkbox", value: String(place), "aria-label": `Choose ${letter.id ?? "a letter without an id"}` });
  if (!letter.id) box.disabled = true;
  const who = letter.by === "broker" ? " (broker)" : "";
  const why = element("td", { class: "wrap" }, `${letter.reason ?? "–"}${who}`);
  if (letter.error) why.append(element("div", { class: "quiet" }, letter.error));
  const size = element("span", { class: "quiet" }, letter.size > START ? ` … the start of ${count(letter.size, "byte")}` : ` ${count(letter.size, "byte")}`);
  return [
    element("tr", { class: "letter" }, element("td", {}, box), element("td", {}, day(letter.at)), element("td", { class: "wrap" }, letter.id ?? "–"), why, element("td", { class: "number" }, letter.attempts ?? "–")),
    element("tr", {}, element("td"), element("td", { class: "wrap", colspan: "4" }, element("code", {}, letter.body), size)),
  ];
}

const boxes = () => [...$("dead-body").querySelectorAll("tbody input:not(:disabled)")];
const chosenIds = () => [...new Set(boxes().filter((box) => box.checked).map((box) => shown.list[box.value].id))];

function chooseChanged() {
  const some = boxes().some((box) => box.checked);
  for (const button of $("dead-body").querySelectorAll("[data-chosen]")) button.setAttribute("aria-disabled", String(!some));
}

async function look(pool, selected) {
  const found = await withToken("GET", path(pool, "/dead"));
  if (found && selected() === pool) draw(pool, found);
}

const ACTS = {
  retry: { title: "Retry", verb: "put back", more: "They are put back into the pool's queue, with all attempts available again. Fix the job first." },
  purge: { title: "Purge", verb: "deleted", more: "Deleted letters cannot be restored." },
};

async function act(kind, pool, ids, selected) {
  const { title, verb, more } = ACTS[kind];
  const which = ids ? letters(ids.length) : "all dead letters";
  if (!(await ask(`${title} ${which} of ${pool}?`, more, ids && `${ids.slice(0, 10).join(", ")}${ids.length > 10 ? ", …" : ""}`))) return false;
  put($("dead-said"), "Working…");
  const done = await withToken("POST", path(pool, `/dead/${kind}`), ids ? { ids } : { all: true });
  if (selected() === pool) put($("dead-said"), "");
  if (!done) return false;
  const left = done.left ? ` Not all: ${done.left}.` : "";
  const missing = done.missing.length ? ` ${letters(done.missing.length)} not there any more.` : "";
  const twice = done.twice ? ` ${number(done.twice)} may be in both queues.` : "";
  tell(`${pool}: ${done.done} of ${letters(done.letters)} ${verb}.${missing}${twice}${left}`, !done.left);
  if (selected() === pool) await look(pool, selected);
  return true;
}

export function listenToDead(selected, done) {
  // One request at a time: two walks through one queue would hide letters from each other.
  const once = async (work) => {
    if (busy) return;
    busy = true;
    try {
      if (await work()) done();
    } finally {
      busy = false;
    }
  };
  $("dead").addEventListener("click", ({ target }) => {
    const pool = selected();
    const { dead, chosen } = target.dataset ?? {};
    if (!pool || target.getAttribute("aria-disabled") === "true") return;
    if (dead === "look") once(() => look(pool, selected));
    else if (dead) once(() => act(dead, pool, null, selected));
    else if (chosen) once(() => act(chosen, pool, chosenIds(), selected));
  });
  $("dead-body").addEventListener("change", ({ target }) => {
    if ("every" in target.dataset) for (const box of boxes()) box.checked = target.checked;
    chooseChanged();
  });
}

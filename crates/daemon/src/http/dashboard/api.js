// The API, and the token that changes need. The token stays in the tab: it is in no cookie and no address.

import { $, note, put } from "./dom.js";

const KEY = "tidegate-token";
let waiting = [];

const token = {
  get: () => sessionStorage.getItem(KEY),
  set(text) {
    if (text) sessionStorage.setItem(KEY, text);
    else sessionStorage.removeItem(KEY);
    const go = waiting;
    waiting = [];
    for (const each of go) each();
  },
};

export class Refused extends Error {
  constructor(status, message, problems) {
    super(message);
    Object.assign(this, { status, problems });
  }
}

// If the page has a token, the browser sends no password of its own and asks for none.
export async function request(url, { headers = {}, ...options } = {}) {
  const shown = token.get();
  if (shown) options = { ...options, credentials: "omit" };
  const response = await fetch(url, { ...options, headers: shown ? { ...headers, Authorization: `Bearer ${shown}` } : headers });
  if (!response.ok) throw await refusal(response);
  return response;
}

async function refusal(response) {
  const { error, problems } = await response.json().catch(() => ({}));
  return new Refused(response.status, error ?? (response.statusText || `status ${response.status}`), problems);
}

export const path = (pool, rest = "") => `/api/v1/pools/${encodeURIComponent(pool)}${rest}`;
export const read = async (url) => (await request(url)).json();

// A request that needs the token. Returns the answer, or nothing where it was refused; then the reason is told, or
// handed to `refused`.
export async function withToken(method, url, body, refused) {
  if (!token.get() && !(await askToken())) return undefined;
  try {
    const headers = body === undefined ? {} : { "Content-Type": "application/json" };
    const response = await request(url, { method, headers, body: body === undefined ? undefined : JSON.stringify(body) });
    return await response.json();
  } catch (error) {
    if (error.status === 401) token.set(null);
    else if (refused) return void refused(error);
    const why = error.status === 401 ? "the token is wrong" : error.message;
    tell(`Refused: ${why}.`, false);
    return undefined;
  }
}

// A change. Returns whether it was made.
export async function change(method, url, body, said) {
  const is = (await withToken(method, url, body)) !== undefined;
  if (is) tell(said, true);
  return is;
}

// ---- Dialogs and messages

export function dialog(id) {
  const box = $(id);
  box.returnValue = "";
  return new Promise((done) => {
    box.addEventListener("close", () => done(box.returnValue), { once: true });
    if (!box.open) box.showModal();
  });
}

// Asks for the token. Returns whether one was given.
export async function askToken(why) {
  put($("token-why"), why ?? "");
  $("token-why").hidden = !why;
  const answer = await dialog("token-dialog");
  const typed = $("token").value.trim();
  $("token").value = "";
  if (answer === "forget") token.set(null);
  if (answer === "save" && typed) token.set(typed);
  return answer === "save" && Boolean(typed);
}

// After the person has closed the dialog without a token, only the button asks again.
export async function untilToken(why) {
  if (await askToken(why)) return;
  await new Promise((go) => waiting.push(go));
}

// Asks whether to do it. `list` are the things that it is about.
export async function ask(title, text, list) {
  put($("confirm-title"), title);
  put($("confirm-text"), text);
  note($("confirm-list"), list);
  return (await dialog("confirm-dialog")) === "yes";
}

let quiet;
export function tell(text, fine) {
  const line = $("alert");
  line.className = fine ? "alert fine" : "alert";
  put($("alert-text"), text);
  line.hidden = false;
  clearTimeout(quiet);
  if (fine) quiet = setTimeout(() => (line.hidden = true), 6000);
}

$("alert-close").addEventListener("click", () => ($("alert").hidden = true));
$("token-button").addEventListener("click", () => askToken());

// Elements, and the formats of numbers and times. All text of pools, messages and jobs goes in as text, never as
// markup.

const MARKUP = "http://www.w3.org/2000/svg";

export const $ = (id) => document.getElementById(id);

// Writes only what is different, so that a selection and a screen reader are not disturbed.
export function put(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

export function element(name, attributes = {}, ...children) {
  return fill(document.createElement(name), attributes, children);
}

export function shape(name, attributes = {}, ...children) {
  return fill(document.createElementNS(MARKUP, name), attributes, children);
}

function fill(made, attributes, children) {
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

export function note(paragraph, text) {
  paragraph.hidden = !text;
  put(paragraph, text ?? "");
}

const TONES = {
  active: "good", idle: "", paused: "warn", draining: "warn", waiting: "warn",
  faulted: "bad", blocked: "bad", stuck: "bad", disconnected: "bad",
};

export function badge(span, word) {
  put(span, word);
  const tone = `badge ${TONES[word] ?? ""}`;
  if (span.className !== tone) span.className = tone;
}

export const time = (date) => date.toLocaleTimeString([], { hour12: false });
export const hour = (date) => date.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", hour12: false });
export const number = (value) => (value ?? 0).toLocaleString("en");
export const count = (value, one) => `${number(value)} ${one}${value === 1 ? "" : "s"}`;
export const short = (value) => (value >= 10_000 ? `${value / 1000}k` : number(value));

export function seconds(value) {
  if (value === null || value === undefined) return "–";
  if (value < 1) return `${Math.round(value * 1000)} ms`;
  if (value < 120) return `${value.toFixed(value < 10 ? 1 : 0)} s`;
  if (value < 7200) return `${Math.round(value / 60)} min`;
  return `${Math.round(value / 3600)} h`;
}

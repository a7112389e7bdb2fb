// Words, numbers and times as the page writes them, and the elements that hold them.

export function make(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

export const at = (id) => document.getElementById(id);

const shown = new Map();

// Replaces the content of an element only if it changed, so that focus and selection survive.
export function show(id, facts, ...children) {
  const key = JSON.stringify(facts);
  if (shown.get(id) === key) return;
  shown.set(id, key);
  at(id).replaceChildren(...children.flatMap((child) => (typeof child === "function" ? child() : child)));
}

export const text = (id, words) => show(id, words, words);
export const number = (count) => count.toLocaleString("en-US");
export const counted = (count, noun) => `${number(count)} ${noun}${count === 1 ? "" : "s"}`;
export const capital = (word) => word[0].toUpperCase() + word.slice(1);
export const sum = (values) => values.reduce((a, b) => a + b, 0);

export function span(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  if (seconds < 0.0995) return `${Math.max(1, Math.round(seconds * 1000))} ms`;
  if (seconds < 9.95) return `${seconds.toFixed(1)} s`;
  for (const [unit, size] of [["d", 86_400], ["h", 3600], ["min", 60]]) {
    if (seconds >= 2 * size) return `${Math.round(seconds / size)} ${unit}`;
  }
  return `${Math.round(seconds)} s`;
}

// 100 % means all and 0 % means none, whatever the rounding.
export function percent(part, whole) {
  if (!whole || !part) return "0\u00a0%";
  if (part === whole) return "100\u00a0%";
  const share = (100 * part) / whole;
  return share < 0.1 ? "< 0.1\u00a0%" : `${Math.floor(share * 10) / 10}\u00a0%`;
}

export const seconds = (iso) => Date.parse(iso) / 1000;

// All times are UTC, as in the log and in `listener status`.
export function clock(moment, parts = 2) {
  const iso = new Date(moment * 1000).toISOString();
  return iso.slice(11, parts === 3 ? 19 : 16);
}

export function date(moment, now, parts = 2) {
  const iso = new Date(moment * 1000).toISOString();
  return Math.abs(now - moment) < 43_200 ? clock(moment, parts) : `${iso.slice(0, 10)} ${iso.slice(11, 16)}`;
}

export function ago(moment, now) {
  const passed = Math.floor(now - moment);
  if (passed < 1) return "now";
  return `${passed < 10 ? `${passed} s` : span(passed)} ago`;
}

// The absolute and the relative time.
export function when(iso, now) {
  const moment = seconds(iso);
  const relative = moment > now ? `in ${span(moment - now)}` : ago(moment, now);
  return make("time", { datetime: iso }, date(moment, now), " ", make("small", {}, relative));
}

// Roles stand in full: a phone shows cells as blocks, and then they would be no table to be heard.
// Heads: a name, with ">" in front of what is a number; cells: content, or [content, class].
export function table(caption, heads, rows, kind = "") {
  const names = heads.map((head) => head.replace(/^>/, ""));
  const cell = (content, i) => {
    const [inside, name] = Array.isArray(content) ? content : [content, ""];
    const kinds = [heads[i].startsWith(">") && "n", ["0", "–"].includes(inside) && "nil", name];
    return make("td", { role: "cell", "data-label": names[i], class: kinds.filter(Boolean).join(" ") }, inside);
  };
  const head = (name, i) => make("th", { scope: "col", role: "columnheader", class: heads[i].startsWith(">") ? "n" : "" }, name);
  const line = (cells) => make("tr", { role: "row" }, ...cells);
  return make("table", { role: "table", class: kind },
    make("caption", { class: "hidden" }, caption),
    make("thead", { role: "rowgroup" }, line(names.map(head))),
    make("tbody", { role: "rowgroup" }, ...rows.map((row) => line(row.map(cell)))));
}

export const pill = ([words, kind]) => make("span", { class: `pill ${kind}` }, words);

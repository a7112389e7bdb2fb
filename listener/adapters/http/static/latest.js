// The latest answers: a list that grows at its top, and stands still while somebody reads it.

import { ago, at, counted, date, make, pill, seconds, span, text } from "/words.js";

const OUTCOMES = {
  single_artist: ["resolved", "good"], compilation: ["compilation", "working"], unresolved: ["unresolved", "warn"],
  warmed: ["refreshed", "good"], not_found: ["unknown to LML", "warn"], not_implemented: ["not refreshed", "warn"],
  error: ["not refreshed", "bad"], failed: ["failed", "bad"],
};
const SAID_EVERY = 15_000;

const state = { seen: null, holder: null, shown: 0, paused: false, hovered: false, saidAt: 0, saidUpTo: null };

const outcomeOf = (answer) => OUTCOMES[answer.outcome] ?? [answer.outcome, "quiet"];
const nameOf = (answer) => [answer.artist ?? "no artist name", answer.title ?? "no title"].join(" – ");

function entry(answer) {
  const name = nameOf(answer);
  const sources = answer.sources.length ? answer.sources.join(", ") : answer.detail;
  return make("li", { "data-number": answer.number },
    make("p", { class: "what" }, make("span", { class: "origin" }, answer.origin), " ",
      answer.library_id === null ? name : make("a", { href: `/library/${answer.library_id}` }, name)),
    make("p", { class: "verdict-line" }, pill(outcomeOf(answer)), " ", make("span", { class: "sources" }, sources)),
    make("p", { class: "times" }, make("time", { datetime: answer.at }), ", ", make("span", {}),
      `, took ${span(answer.took)}`));
}

const newest = () => state.seen?.answers[0]?.number ?? 0;
const waiting = () => state.seen.answers.filter((answer) => answer.number > state.shown).length;

// Nothing moves under a pointer, a focus, or an eye that has scrolled down.
function held() {
  const list = at("latest");
  return state.paused || state.hovered || list.contains(document.activeElement) || list.scrollTop > 0;
}

function fill() {
  const list = at("latest-list");
  // A daemon that was restarted begins its numbers anew.
  if (newest() < state.shown) list.replaceChildren();
  const known = new Set([...list.children].map((item) => Number(item.dataset.number)));
  list.prepend(...state.seen.answers.filter((answer) => !known.has(answer.number)).map(entry));
  while (list.children.length > state.seen.answers.length) list.lastElementChild.remove();
  state.shown = newest();
}

function note() {
  if (state.shown && held() && waiting()) return `${counted(waiting(), "new answer")} since you ${state.paused ? "paused" : "read here"}`;
  if (state.seen.answers.length) return "";
  if (state.seen.follows.includes("library")) return "No change was handled since this daemon began to follow the library.";
  return state.holder ? `This daemon stands by. ${state.holder} follows the library; its page shows the latest answers.` : "No daemon follows the library.";
}

function age() {
  const now = seconds(state.seen.at);
  for (const time of at("latest-list").querySelectorAll("time")) {
    const moment = seconds(time.dateTime), words = date(moment, now, 3);
    // Written anew only if it changed, so that a selection survives.
    if (time.textContent !== words) time.textContent = words;
    time.nextElementSibling.textContent = ago(moment, now);
  }
}

// Heard at most four times a minute, however many answers come.
function say() {
  const first = state.saidUpTo === null;
  if (!first && (state.paused || newest() === state.saidUpTo || Date.now() - state.saidAt < SAID_EVERY)) return;
  const [last] = state.seen.answers;
  // A daemon that was restarted has none yet.
  if (!first && last) text("latest-said", `Latest answer: ${nameOf(last)}, ${outcomeOf(last)[0]}`);
  state.saidUpTo = newest();
  state.saidAt = Date.now();
}

// The holder is who follows the library, null if nobody does.
export function showLatest(seen, holder) {
  Object.assign(state, { seen, holder });
  showAgain();
}

function showAgain() {
  if (!state.seen) return;
  if (!held() || !state.shown) fill();
  text("latest-note", note());
  at("latest").hidden = at("latest-pause").hidden = !state.shown;
  age();
  say();
}

export function watchReading() {
  const list = at("latest"), button = at("latest-pause");
  list.addEventListener("pointerenter", () => { state.hovered = true; });
  list.addEventListener("pointerleave", () => { state.hovered = false; });
  button.addEventListener("click", () => {
    state.paused = !state.paused;
    button.setAttribute("aria-pressed", state.paused);
    if (!state.paused) list.scrollTop = 0;
    showAgain();
  });
}

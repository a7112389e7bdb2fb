// Polls the daemon every second while the page is visible, and updates what changed.

import { showHistory } from "/history.js";
import { showLatest, watchReading } from "/latest.js";
import { showCoverage, showParked, showRotation, showRuns, showStaleness, showStreams, showTiles } from "/sections.js";
import { showSituation } from "/situation.js";
import { at, capital, clock, make, seconds, show, text } from "/words.js";

const POLL = 1000, HISTORY_EVERY = 10_000, SILENT_AFTER = 3;

// `last` is the last status that could be read.
const state = { last: null, history: null, historyAt: 0, failures: 0 };

function showWellness({ word, why }) {
  document.documentElement.dataset.word = word;
  document.title = `${capital(word)} · listener`;
  text("word", capital(word));
  show("why", why, () => why.map((each) => make("li", {}, each.words)));
}

function showStatus({ status, parked }) {
  const now = seconds(status.at);
  text("database", status.database);
  showTiles(status, state.history, now);
  showCoverage(status.coverage);
  showStaleness(status.staleness_days);
  showRotation(status.rotation);
  showStreams(status);
  showParked(parked, status.coverage.parked, now);
  showRuns(status, now);
}

function showCharts() {
  if (state.history && state.last) showHistory(state.history, state.last.coverage, seconds(state.last.at));
}

function showLive(on, words) {
  at("live").classList.toggle("on", on);
  text("as-of", words);
}

async function fetched(path) {
  const reply = await fetch(path, { cache: "no-store", signal: AbortSignal.timeout(10_000) });
  if (!reply.ok) throw new Error(`${path}: ${reply.status}`);
  return reply.json();
}

async function look() {
  if (Date.now() - state.historyAt > HISTORY_EVERY) {
    state.historyAt = Date.now();
    // The rest is useful even without a history.
    fetched("/history.json").then((history) => { state.history = history; showCharts(); }, () => {});
  }
  try {
    const seen = await fetched("/page.json");
    const first = !state.last && seen.status;
    Object.assign(state, { last: seen.status ?? state.last, failures: 0 });
    showSituation(seen, state.last);
    showWellness(seen.wellness);
    text("version", seen.version);
    if (seen.status) showStatus(seen);
    if (first) showCharts();
    showLive(Boolean(seen.status), seen.status ? `${clock(seconds(seen.status.at), 3)} UTC` : "no database");
  } catch {
    state.failures += 1;
    if (state.failures < SILENT_AFTER) return;
    const since = state.last ? `; showing the state of ${clock(seconds(state.last.at), 3)} UTC` : "";
    showWellness({ word: "unknown", why: [{ words: `this daemon does not answer${since}` }] });
    showSituation(null, state.last);
    showLive(false, "no answer");
  }
}

async function lookAtLatest() {
  const seen = await fetched("/latest.json").catch(() => null);
  const library = state.last?.streams.find((each) => each.stream === "library");
  if (seen) showLatest(seen, library?.holder ?? null);
}

// Each on its own: what takes long or fails does not hold up the other, nor the next step.
async function follow(step) {
  for (;;) {
    if (!document.hidden) await step().catch(console.error);
    await new Promise((wake) => {
      document.addEventListener("visibilitychange", wake, { once: true });
      setTimeout(wake, POLL);
    });
  }
}

new ResizeObserver(() => {
  showCharts();
  if (state.last) showStaleness(state.last.staleness_days);
}).observe(document.querySelector("main"));

watchReading();
follow(look);
follow(lookAtLatest);

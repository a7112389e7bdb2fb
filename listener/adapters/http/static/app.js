// Polls the daemon every second while the page is visible, and updates what changed.

import { bars, lag, rate, short, stack, sum } from "/chart.js";

const POLL = 1000, HISTORY_EVERY = 10_000, SILENT_AFTER = 3;
const LAYERS = ["resolved", "unresolved", "compilation", "failed", "parked", "never", "nameless"];
const NAMES = {
  resolved: "resolved", unresolved: "unresolved",
  compilation: "compilations", failed: "failing",
  parked: "parked", never: "never asked", nameless: "no artist name",
};
const OUTCOMES = { done: "good", running: "working", stopped: "warn", failed: "bad", lost: "bad" };
const BREAKERS = { closed: ["answers", "good"], open: ["down", "bad"], "half-open": ["testing", "warn"] };
const WOKEN = { true: ["woken", "good"], false: ["polling", "warn"] };

const at = (id) => document.getElementById(id);
const state = { seen: null, history: null, historyAt: 0, failures: 0, shown: new Map(), wake: () => {} };

function make(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

// Replaces the content of an element only if it changed, so that focus and selection survive.
function show(id, facts, ...children) {
  const key = JSON.stringify(facts);
  if (state.shown.get(id) === key) return;
  state.shown.set(id, key);
  at(id).replaceChildren(...children.flatMap((child) => (typeof child === "function" ? child() : child)));
}

const text = (id, words) => show(id, words, words);
const number = (count) => count.toLocaleString("en-US");
const counted = (count, noun) => `${number(count)} ${noun}${count === 1 ? "" : "s"}`;

function span(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  if (seconds < 0.0995) return `${Math.max(1, Math.round(seconds * 1000))} ms`;
  if (seconds < 9.95) return `${seconds.toFixed(1)} s`;
  for (const [unit, size] of [["d", 86_400], ["h", 3600], ["min", 60]]) {
    if (seconds >= 2 * size) return `${Math.floor(seconds / size)} ${unit}`;
  }
  return `${Math.floor(seconds)} s`;
}

// 100 % means all and 0 % means none, whatever the rounding.
function percent(part, whole) {
  if (!whole || !part) return "0 %";
  if (part === whole) return "100 %";
  const share = (100 * part) / whole;
  return share < 0.1 ? "< 0.1 %" : `${Math.floor(share * 10) / 10} %`;
}

const time = (iso) => Date.parse(iso) / 1000;
const ago = (iso, now) => `${span(Math.max(0, now - time(iso)))} ago`;
const capital = (word) => word[0].toUpperCase() + word.slice(1);

function table(caption, heads, rows) {
  const cells = (row, i) => {
    const [content, kind] = Array.isArray(row[i]) ? row[i] : [row[i], ""];
    return make("td", kind ? { class: kind } : {}, content);
  };
  return make("table", {},
    make("caption", { class: "hidden" }, caption),
    make("thead", {}, make("tr", {}, ...heads.map((head) => make("th", { scope: "col", class: head.startsWith(">") ? "n" : "" }, head.replace(/^>/, ""))))),
    make("tbody", {}, ...rows.map((row) => make("tr", {}, ...row.map((_, i) => cells(row, i))))));
}

const pill = ([words, kind]) => make("span", { class: `pill ${kind}` }, words);

function showWellness({ word, why }) {
  document.documentElement.dataset.word = word;
  document.title = `${capital(word)} · listener`;
  text("word", capital(word));
  show("why", why, () => why.map((each) => make("li", {}, each.words)));
}

function showTiles(status) {
  const known = status.coverage, named = known.rows - known.nameless;
  const backlog = sum(status.streams.map((each) => each.backlog));
  const oldest = Math.max(-1, ...status.streams.map((each) => each.oldest_seconds ?? -1));
  const library = state.history?.hour.streams.library;
  const typical = library?.typical.findLast((each) => each !== null);
  const day = state.history ? Object.values(state.history.day.streams) : [];
  const settled = sum(day.flatMap((each) => each.settled));
  const streams = status.streams.map((each) => `${each.stream} ${number(each.backlog)}`).join(", ");
  const tiles = [
    ["waiting", number(backlog), streams, "backlog"],
    ["oldest waiting", oldest < 0 ? "none" : span(oldest), "", "oldest"],
    ["typical time to answer", span(typical), "", "typical"],
    ["changes settled in 24 hours", number(settled), "", "settled"],
    ["of rows with an artist resolved", percent(known.resolved, named), counted(status.due_by_time, "row") + " due now", "share"],
  ];
  show("tiles", tiles, () => tiles.map(([name, value, note, key]) =>
    make("div", { class: "tile" }, note ? make("dd", { class: "note" }, note) : null, make("dd", { "data-value": key }, value), make("dt", {}, name))));
}

function showCoverage(known) {
  text("coverage-sub", `${number(known.rows)} rows, ${percent(known.asked, known.rows - known.nameless)} of those with an artist asked`);
  const bar = at("coverage-bar");
  const told = LAYERS.map((name) => `${NAMES[name]} ${number(known[name])}`).join(", ");
  bar.classList.toggle("empty", !known.rows);
  bar.setAttribute("aria-label", `Coverage of ${number(known.rows)} rows: ${told}`);
  if (!bar.childElementCount) bar.append(...LAYERS.map((name) => make("span", { class: name })));
  LAYERS.forEach((name, i) => {
    bar.children[i].style.flexGrow = known[name];
    bar.children[i].hidden = !known[name];
  });
  show("coverage-legend", known, () => LAYERS.map((name) =>
    make("div", {}, make("span", { class: `swatch ${name}`, "aria-hidden": "true" }), make("dt", {}, NAMES[name]),
      make("dd", {}, make("span", { "data-value": `coverage.${name}` }, number(known[name])), " ", make("small", {}, percent(known[name], known.rows)),
        name === "compilation" && known.visited ? make("small", { class: "line" }, `${number(known.visited)} by track`) : null))));
}

function showStaleness(days) {
  const entries = Object.entries(days).map(([name, count]) => [name, count, name === "7+" ? "old" : "age"]);
  show("staleness-table", days, () => table("Rows by the age of their answer in days", ["days", ">rows"],
    entries.map(([name, count]) => [name, [make("span", { "data-value": `staleness.${name}` }, number(count)), "n"]])));
  const key = JSON.stringify(days) + at("staleness").clientWidth;
  if (state.shown.get("staleness") === key) return;
  state.shown.set("staleness", key);
  bars(at("staleness"), entries, "Rows by the age of their answer in days: " + entries.map(([name, count]) => `${name}: ${number(count)}`).join(", "));
}

function meter(label, part, whole) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("viewBox", "0 0 100 1");
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("aria-hidden", "true");
  const rect = document.createElementNS("http://www.w3.org/2000/svg", "rect");
  rect.setAttribute("width", whole ? (100 * part) / whole : 0);
  rect.setAttribute("height", 1);
  svg.append(rect);
  return make("div", { class: "meter" },
    make("p", {}, make("span", {}, label), make("span", {}, `${number(part)} of ${number(whole)}, ${percent(part, whole)}`)),
    make("span", { class: "track" }, svg));
}

function showRotation(rotation) {
  at("rotation-card").hidden = !rotation;
  if (!rotation) return;
  text("rotation-sub", `${counted(rotation.active ?? 0, "release")} playing now`);
  show("rotation", rotation, () => [
    meter("known to Discogs", rotation.with_discogs_id ?? 0, rotation.active ?? 0),
    meter("and to LML", rotation.resolved ?? rotation.with_identity ?? 0, rotation.with_discogs_id ?? 0),
    meter("warmed in the last day", rotation.warmed_24h ?? 0, rotation.with_identity ?? 0),
  ]);
}

function showStreams(status) {
  const follower = (each) => {
    if (!each.holder) return make("span", { class: "bad" }, "no daemon");
    return each.holder_alive ? each.holder : make("span", { class: "bad" }, `${each.holder}, disconnected`);
  };
  const facts = status.streams.map((each) => [each.stream, each.backlog, span(each.oldest_seconds), each.holder, each.holder_alive, each.breaker, each.woken]);
  show("streams", facts, () => table("Streams", ["stream", ">waiting", ">oldest", "woken", "LML", "followed by"],
    status.streams.map((each) => [
      each.stream,
      [make("span", { "data-value": `backlog.${each.stream}` }, number(each.backlog)), "n"],
      [span(each.oldest_seconds), "n nowrap"],
      WOKEN[each.woken] ? pill(WOKEN[each.woken]) : "–",
      BREAKERS[each.breaker] ? pill(BREAKERS[each.breaker]) : "–",
      [follower(each), "nowrap"],
    ])));
  show("replicas", status.replicas, () => status.replicas.length
    ? status.replicas.map((name) => make("li", {}, name))
    : [make("li", { class: "bad" }, "no daemon is running")]);
}

function command(words) {
  const copy = navigator.clipboard ? make("button", { type: "button", "aria-label": `copy: ${words}` }, "copy") : null;
  copy?.addEventListener("click", async () => {
    await navigator.clipboard.writeText(words).catch(() => {});
    copy.textContent = "copied";
  });
  return make("span", { class: "command" }, make("code", {}, words), copy);
}

function showParked(rows, total) {
  show("parked-sub", total, () => total
    ? [`${counted(total, "row")}${total > rows.length ? `, the first ${rows.length} here` : ""} `, command("listener requeue --all")]
    : []);
  show("parked", rows, () => rows.length
    ? [table("Parked rows", ["row", "reason", "to requeue", "detail", ">failures", "since"], rows.map((row) => [
      [make("span", { "data-value": "parked" }, String(row.library_id)), "nowrap"], [row.reason ?? "–", "nowrap"], command(`listener requeue ${row.library_id}`), [row.detail ?? "", "wrap"],
      [number(row.attempts), "n"], [row.last_failed_at ? row.last_failed_at.slice(0, 16).replace("T", " ") + " UTC" : "–", "nowrap"],
    ]))]
    : [make("p", { class: "quiet" }, "No rows are parked.")]);
}

// Compilations whose tracks are known count as resolved.
function resolved(tally) {
  return (tally.rows_resolved ?? tally.identities_resolved ?? 0) + (tally.rows_resolved_compilation ?? 0);
}

function showRuns(status, now) {
  const failed = (tally) => (tally.lml_error ?? 0) + sum(Object.entries(tally.rows_skipped ?? {})
    .filter(([reason]) => reason.startsWith("lml_") || reason === "writer_error").map(([, count]) => count));
  const took = (run) => (run.ended_at ? span(time(run.ended_at) - time(run.started_at)) : run.outcome === "running" ? span(now - time(run.started_at)) : "–");
  const rows = status.runs.map((run) => [
    run.kind, run.cause, [ago(run.started_at, now), "n nowrap"], [took(run), "n nowrap"],
    [pill([run.outcome, OUTCOMES[run.outcome] ?? "quiet"]), ""],
    ...[run.tally.scanned ?? run.tally.identities_scanned, resolved(run.tally), run.tally.rows_unresolved, failed(run.tally), run.tally.capture_missed]
      .map((count) => [number(count ?? 0), "n"]),
    [run.reason ?? "", "wrap"],
  ]);
  const facts = status.runs.map((run, i) => [run.run_id, run.outcome, rows[i][2][0], rows[i][3][0], run.tally]);
  show("runs", facts, () => rows.length
    ? [table("Last runs", ["run", "cause", ">started", ">took", "outcome", ">asked", ">resolved", ">unresolved", ">failed", ">capture missed", "reason"], rows)]
    : [make("p", { class: "quiet" }, "No runs yet.")]);
  text("schedule", status.slots.map((slot) => {
    const left = time(slot.next_at) - now;
    return `${slot.job} ${left > 0 ? `in ${span(left)}` : "is due"}`;
  }).join(", "));
}

function points(name, stream) {
  const columns = state.history[name].streams[stream];
  if (!columns) return [];
  return columns.at.map((when, i) => ({
    at: when, settled: columns.settled[i], typical: columns.typical[i], silent: columns.silent[i],
    slowest: Math.max(columns.worst[i] ?? 0, columns.oldest[i] ?? 0), coverage: columns.coverage[i],
  }));
}

function showHistory() {
  if (!state.history || !state.seen?.status) return;
  const now = time(state.seen.status.at);
  for (const name of ["hour", "day"]) {
    const { seconds, step } = state.history[name];
    const frame = { now, seconds, step };
    const library = points(name, "library"), rotation = points(name, "rotation");
    const slowest = Math.max(0, ...library.map((p) => p.slowest));
    lag(at(`lag-${name}`), library, frame, `Lag of the library in the last ${name}, at most ${span(slowest)}`);
    const minutes = step / 60;
    const byTime = new Map(library.map((p) => [p.at, { at: p.at, library: p.settled / minutes, rotation: 0 }]));
    for (const p of rotation) {
      const known = byTime.get(p.at) ?? { at: p.at, library: 0, rotation: 0 };
      byTime.set(p.at, { ...known, rotation: p.settled / minutes });
    }
    const rates = [...byTime.values()].sort((a, b) => a.at - b.at);
    const settled = sum([...library, ...rotation].map((p) => p.settled));
    rate(at(`rate-${name}`), rates, frame, `Changes settled in the last ${name}: ${number(settled)}`);
    showNumbers(name, library, rotation, frame);
  }
  const { seconds, step } = state.history.day;
  const counts = points("day", "library").filter((p) => p.coverage).map((p) => ({ at: p.at + step, values: p.coverage }));
  const known = state.seen.status.coverage;
  counts.push({ at: now, values: LAYERS.map((layer) => known[layer]) });
  stack(at("growth"), counts, LAYERS, { now, seconds, step }, "Rows of the library by what is known of them, over the last day");
  const few = counts.filter((_, i) => (counts.length - 1 - i) % 6 === 0);
  show("growth-table", few.map((p) => p.values), () => table("Rows of the library over the last day", ["", ...LAYERS.map((layer) => `>${NAMES[layer]}`)],
    few.map((p) => [`${span(Math.max(0, now - p.at))} ago`, ...p.values.map((count) => [number(count), "n"])])));
}

// A dozen rows are as many as a person reads.
function showNumbers(name, library, rotation, { now, seconds }) {
  const part = seconds / 12;
  const within = (list, i) => list.filter((p) => p.at > now - seconds + i * part && p.at <= now - seconds + (i + 1) * part);
  const rows = Array.from({ length: 12 }, (_, i) => {
    const lib = within(library, i), rot = within(rotation, i);
    const typical = lib.map((p) => p.typical).filter((each) => each !== null).sort((a, b) => a - b);
    return {
      when: `${span(seconds - i * part)} ago`, typical: typical[Math.floor(typical.length / 2)],
      slowest: lib.length ? Math.max(...lib.map((p) => p.slowest)) : null,
      library: sum(lib.map((p) => p.settled)), rotation: sum(rot.map((p) => p.settled)),
    };
  });
  show(`lag-${name}-table`, rows, () => table(`Lag of the library in the last ${name}`, ["from", ">typical", ">slowest"],
    rows.map((row) => [row.when, [span(row.typical), "n"], [row.slowest ? span(row.slowest) : "–", "n"]])));
  show(`rate-${name}-table`, rows, () => table(`Changes settled in the last ${name}`, ["from", ">library", ">rotation"],
    rows.map((row) => [row.when, [number(row.library), "n"], [number(row.rotation), "n"]])));
}

function showAll(seen) {
  showWellness(seen.wellness);
  text("version", seen.version);
  if (!seen.status) return;
  const now = time(seen.status.at);
  text("database", seen.status.database);
  showTiles(seen.status);
  showCoverage(seen.status.coverage);
  showStaleness(seen.status.staleness_days);
  showRotation(seen.status.rotation);
  showStreams(seen.status);
  showParked(seen.parked, seen.status.coverage.parked);
  showRuns(seen.status, now);
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
    fetched("/history.json").then((history) => { state.history = history; showHistory(); }, () => {});
  }
  try {
    state.seen = await fetched("/page.json");
    state.failures = 0;
    showAll(state.seen);
    showLive(Boolean(state.seen.status), state.seen.status ? state.seen.status.at.slice(11, 19) + " UTC" : "no database");
  } catch {
    state.failures += 1;
    if (state.failures >= SILENT_AFTER) {
      const since = state.seen?.status ? `; showing the state of ${state.seen.status.at.slice(11, 19)} UTC` : "";
      showWellness({ word: "unknown", why: [{ words: `this daemon does not answer${since}` }] });
      showLive(false, "no answer");
    }
  }
}

async function follow() {
  for (;;) {
    if (!document.hidden) await look();
    await new Promise((wake) => {
      state.wake = wake;
      setTimeout(wake, POLL);
    });
  }
}

document.addEventListener("visibilitychange", () => state.wake());

new ResizeObserver(() => {
  state.shown.delete("staleness");
  showHistory();
  if (state.seen?.status) showStaleness(state.seen.status.staleness_days);
}).observe(document.querySelector("main"));

follow();

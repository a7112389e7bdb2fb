// The sections that show the current state: tiles, coverage, rotation, streams, parked rows, runs.

import { bars } from "/chart.js";
import { LAYERS, points } from "/history.js";
import { ago, at, clock, counted, date, make, number, percent, pill, seconds, show, span, sum, table, text, when } from "/words.js";

const OUTCOMES = { done: "good", running: "working", stopped: "warn", failed: "bad", lost: "bad" };
const BREAKERS = { closed: ["answers", "good"], open: ["down", "bad"], "half-open": ["testing", "warn"] };
const WOKEN = { true: ["woken", "good"], false: ["polling", "warn"] };
// What is older says nothing about now.
const CURRENT = 600;

// The last typical time to answer, and when that was.
function typical(history, now) {
  const known = history ? points(history, "hour", "library").filter((p) => p.typical !== null) : [];
  const last = known.at(-1);
  if (!last) return ["–", history ? "no change in this hour" : ""];
  const words = `${clock(last.at)} UTC, ${ago(last.at, now)}`;
  return now - last.at < CURRENT ? [span(last.typical), `at ${words}`] : ["–", `last ${span(last.typical)}, at ${words}`];
}

export function showTiles(status, history, now) {
  const known = status.coverage, named = known.rows - known.nameless;
  const backlog = sum(status.streams.map((each) => each.backlog));
  const oldest = Math.max(-1, ...status.streams.map((each) => each.oldest_seconds ?? -1));
  const day = history && Object.values(history.day.streams);
  const settled = day && sum(day.flatMap((each) => each.settled));
  const streams = status.streams.map((each) => `${each.stream} ${number(each.backlog)}`).join(", ");
  const [answer, since] = typical(history, now);
  const tiles = [
    ["waiting", number(backlog), streams, "backlog"],
    ["oldest waiting", oldest < 0 ? "none" : span(oldest), oldest < 0 ? "" : `since ${date(now - oldest, now)} UTC`, "oldest"],
    ["typical time to answer", answer, since, "typical"],
    ["changes settled in 24 hours", settled === null ? "–" : number(settled), "", "settled"],
    ["of rows with an artist resolved", percent(known.resolved, named), `${counted(status.due_by_time, "row")} due now`, "share"],
  ];
  show("tiles", tiles, () => tiles.map(([name, value, note, key]) =>
    make("div", { class: "tile" }, make("dt", {}, name), make("dd", { "data-value": key }, value), note ? make("dd", { class: "note" }, note) : null)));
}

export function showCoverage(known) {
  text("coverage-sub", `${number(known.rows)} rows, ${percent(known.asked, known.rows - known.nameless)} of those with an artist asked`);
  const bar = at("coverage-bar"), layers = Object.entries(LAYERS);
  const words = layers.map(([layer, name]) => `${name} ${number(known[layer])}`).join(", ");
  bar.classList.toggle("empty", !known.rows);
  bar.setAttribute("aria-label", `Coverage of ${number(known.rows)} rows: ${words}`);
  if (!bar.childElementCount) bar.append(...layers.map(([layer]) => make("span", { class: layer })));
  layers.forEach(([layer], i) => {
    bar.children[i].style.flexGrow = known[layer];
    bar.children[i].hidden = !known[layer];
  });
  show("coverage-legend", known, () => layers.map(([layer, name]) =>
    make("div", {}, make("dt", { class: layer }, name),
      make("dd", {}, make("span", { "data-value": `coverage.${layer}` }, number(known[layer])), " ", make("small", {}, percent(known[layer], known.rows)),
        layer === "compilation" && known.visited ? make("small", { class: "line" }, `${number(known.visited)} by track`) : null))));
}

export function showStaleness(days) {
  const entries = Object.entries(days).map(([name, count]) => [name, count, name === "7+" ? "old" : "age"]);
  show("staleness-table", days, () => table("Rows by the age of their answer in days", ["days", ">rows"],
    entries.map(([name, count]) => [name, make("span", { "data-value": `staleness.${name}` }, number(count))])));
  const place = at("staleness"), key = JSON.stringify(days) + place.clientWidth;
  if (place.dataset.drawn === key) return;
  place.dataset.drawn = key;
  const label = "Rows by the age of their answer in days: " + entries.map(([name, count]) => `${name}: ${number(count)}`).join(", ");
  bars(place, entries, label, { x: "days since LML answered", y: "rows", unit: "days" });
}

function meter(label, part, whole) {
  const value = whole ? part / whole : 0;
  return make("div", { class: "meter" },
    make("p", {}, make("span", {}, label), make("span", {}, `${number(part)} of ${number(whole)}, ${percent(part, whole)}`)),
    make("progress", { max: 1, value, "aria-label": label }));
}

export function showRotation(rotation) {
  at("rotation-card").hidden = !rotation;
  if (!rotation) return;
  text("rotation-sub", `${counted(rotation.active, "release")} playing now`);
  show("rotation", rotation, () => [
    meter("known to Discogs", rotation.with_discogs_id, rotation.active),
    meter("and to LML", rotation.resolved, rotation.with_discogs_id),
    meter("warmed in the last day", rotation.warmed_24h, rotation.with_identity),
  ]);
}

export function showStreams(status) {
  const follower = (each) => {
    if (!each.holder) return make("span", { class: "bad" }, "no daemon");
    return each.holder_alive ? each.holder : make("span", { class: "bad" }, `${each.holder}, disconnected`);
  };
  const facts = status.streams.map((each) => [each.stream, each.backlog, span(each.oldest_seconds), each.holder, each.holder_alive, each.breaker, each.woken]);
  show("streams", facts, () => table("Streams", ["stream", ">waiting", ">oldest", "woken", "LML", "followed by"],
    status.streams.map((each) => [
      each.stream,
      make("span", { "data-value": `backlog.${each.stream}` }, number(each.backlog)),
      [span(each.oldest_seconds), "nowrap"],
      WOKEN[each.woken] ? pill(WOKEN[each.woken]) : "–",
      BREAKERS[each.breaker] ? pill(BREAKERS[each.breaker]) : "–",
      [follower(each), "wrap"],
    ]), "entries"));
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

export function showParked(rows, total, now) {
  show("parked-sub", total, () => total
    ? [`${counted(total, "row")}${total > rows.length ? `, the first ${rows.length} here` : ""} `, command("listener requeue --all")]
    : []);
  const facts = rows.map((row) => [row, row.last_failed_at && ago(seconds(row.last_failed_at), now)]);
  show("parked", facts, () => rows.length
    ? [table("Parked rows", ["row", "reason", "to requeue", "detail", ">failures", "last failure, UTC"], rows.map((row) => [
      [make("a", { "data-value": "parked", href: `/library/${row.library_id}` }, String(row.library_id)), "nowrap"], [row.reason ?? "–", "nowrap"], command(`listener requeue ${row.library_id}`),
      [row.detail ?? "–", "wrap"], number(row.attempts), row.last_failed_at ? when(row.last_failed_at, now) : "–",
    ]), "entries")]
    : [make("p", { class: "quiet" }, "No rows are parked.")]);
}

// Compilations whose tracks are known count as resolved.
function resolved(tally) {
  return (tally.rows_resolved ?? tally.identities_resolved ?? 0) + (tally.rows_resolved_compilation ?? 0);
}

function failed(tally) {
  return (tally.lml_error ?? 0) + sum(Object.entries(tally.rows_skipped ?? {})
    .filter(([reason]) => reason.startsWith("lml_") || reason === "writer_error").map(([, count]) => count));
}

function counts(tally) {
  const all = {
    asked: tally.scanned ?? tally.identities_scanned, resolved: resolved(tally), unresolved: tally.rows_unresolved,
    failed: failed(tally), "missed by capture": tally.capture_missed,
  };
  const some = Object.entries(all).filter(([, count]) => count).map(([name, count]) => `${number(count)} ${name}`);
  return some.join(", ") || "–";
}

export function showRuns(status, now) {
  const took = (run) => (run.ended_at ? span(seconds(run.ended_at) - seconds(run.started_at)) : run.outcome === "running" ? span(now - seconds(run.started_at)) : "–");
  const heads = ["run", "outcome", "cause", "started, UTC", ">took", "counts", "reason"];
  const facts = status.runs.map((run) => [run.run_id, run.outcome, ago(seconds(run.started_at), now), took(run), run.tally]);
  show("runs", facts, () => status.runs.length
    ? [table("Last runs", heads, status.runs.map((run) => [
      [run.kind, "nowrap"], pill([run.outcome, OUTCOMES[run.outcome] ?? "quiet"]), run.cause, when(run.started_at, now), [took(run), "nowrap"],
      [counts(run.tally), "wrap"], [run.reason ?? "–", "wrap"],
    ]), "entries")]
    : [make("p", { class: "quiet" }, "No runs yet.")]);
  const next = status.slots.map((slot) => {
    const left = seconds(slot.next_at) - now;
    return `${slot.job} ${left > 0 ? `at ${date(seconds(slot.next_at), now)} UTC, in ${span(left)}` : "is due"}`;
  });
  text("schedule", next.length ? `next: ${next.join("; ")}` : "");
}

// The charts of what happened in the last hour and day, and the same as tables.

import { lag, rate, stack } from "/chart.js";
import { at, clock, number, show, span, sum, table } from "/words.js";

export const LAYERS = {
  resolved: "resolved", unresolved: "unresolved",
  compilation: "compilations", failed: "failing",
  parked: "parked", never: "never asked", nameless: "no artist name",
};

export function points(history, name, stream) {
  const columns = history[name].streams[stream];
  if (!columns) return [];
  return columns.at.map((when, i) => ({
    at: when, settled: columns.settled[i], typical: columns.typical[i], silent: columns.silent[i],
    slowest: Math.max(columns.worst[i] ?? 0, columns.oldest[i] ?? 0), coverage: columns.coverage[i],
  }));
}

const frameOf = (history, name, now) => ({ now, name, seconds: history[name].seconds, step: history[name].step });

export function showHistory(history, coverage, now) {
  for (const name of ["hour", "day"]) {
    const frame = frameOf(history, name, now);
    const library = points(history, name, "library"), rotation = points(history, name, "rotation");
    const slowest = Math.max(0, ...library.map((p) => p.slowest));
    lag(at(`lag-${name}`), library, frame, `Lag of the library in the last ${name}, at most ${span(slowest)}`);
    const settled = sum([...library, ...rotation].map((p) => p.settled));
    rate(at(`rate-${name}`), together(library, rotation), frame, `Changes settled in the last ${name}: ${number(settled)}`);
    showNumbers(name, library, rotation, frame);
  }
  showGrowth(points(history, "day", "library"), coverage, frameOf(history, "day", now));
}

function together(library, rotation) {
  const byTime = new Map(library.map((p) => [p.at, { at: p.at, library: p.settled, rotation: 0 }]));
  for (const p of rotation) byTime.set(p.at, { at: p.at, library: 0, ...byTime.get(p.at), rotation: p.settled });
  return [...byTime.values()].sort((a, b) => a.at - b.at);
}

function showGrowth(library, coverage, frame) {
  const counts = library.filter((p) => p.coverage).map((p) => ({ at: Math.min(p.at + frame.step, frame.now), values: p.coverage }));
  counts.push({ at: frame.now, values: Object.keys(LAYERS).map((layer) => coverage[layer]) });
  stack(at("growth"), counts, LAYERS, frame, "Rows of the library by what is known of them, over the last day");
  const few = counts.filter((_, i) => (counts.length - 1 - i) % 6 === 0);
  const heads = ["time, UTC", ...Object.values(LAYERS).map((name) => `>${name}`)];
  show("growth-table", few.map((p) => p.values), () => table("Rows of the library over the last day", heads,
    few.map((p) => [clock(p.at), ...p.values.map(number)]), "entries"));
}

// A dozen rows are as many as a person reads.
function showNumbers(name, library, rotation, { now, seconds }) {
  const part = seconds / 12;
  const within = (list, i) => list.filter((p) => p.at > now - seconds + i * part && p.at <= now - seconds + (i + 1) * part);
  const rows = Array.from({ length: 12 }, (_, i) => {
    const lib = within(library, i), rot = within(rotation, i);
    const typical = lib.map((p) => p.typical).filter((each) => each !== null).sort((a, b) => a - b);
    return {
      from: `${clock(now - seconds + i * part)}, ${span(seconds - i * part)} ago`,
      typical: typical[Math.floor(typical.length / 2)],
      slowest: lib.length ? Math.max(...lib.map((p) => p.slowest)) : null,
      library: sum(lib.map((p) => p.settled)), rotation: sum(rot.map((p) => p.settled)),
    };
  });
  show(`lag-${name}-table`, rows, () => table(`Lag of the library in the last ${name}`, ["from, UTC", ">typical", ">slowest"],
    rows.map((row) => [row.from, span(row.typical), row.slowest ? span(row.slowest) : "–"])));
  show(`rate-${name}-table`, rows, () => table(`Changes settled in the last ${name}`, ["from, UTC", ">library", ">rotation"],
    rows.map((row) => [row.from, number(row.library), number(row.rotation)])));
}

// What a person needs to know first where the page has little or nothing to show.

import { ago, at, clock, counted, make, number, percent, seconds, show, span } from "/words.js";

const backfill = (status) => status.runs.find((run) => run.kind === "backfill" && run.outcome === "running");

// The situation decides which sections have anything to say: see [data-situation] in style.css.
function situation(seen) {
  if (!seen) return "silent";
  if (!seen.status) return "blind";
  const known = seen.status.coverage;
  if (!known.rows) return "empty";
  if (backfill(seen.status)) return "filling";
  return known.asked ? "usual" : "young";
}

const stale = (last) => (last ? ` Below is the state of ${clock(seconds(last.at), 3)} UTC, ${ago(seconds(last.at), Date.now() / 1000)}.` : "");

const WORDS = {
  silent: (_, last) => ["This daemon does not answer", `It has stopped, or the network does not reach it. This page tries again every second.${stale(last)}`],
  blind: (_, last) => ["The database cannot be read", `The daemon tries again by itself, and no change is lost meanwhile: changes wait in the database.${stale(last)}`, "listener doctor"],
  empty: () => ["The library is empty", "The first release that the backend adds will be asked about within seconds."],
  young: (status) => ["LML was not asked yet", `${counted(status.coverage.rows, "row")} wait for their first answer. A daemon begins with a backfill as soon as LML answers.`, "listener backfill --plan"],
  filling: (status) => {
    const run = backfill(status), known = status.coverage, took = seconds(status.at) - seconds(run.started_at), pace = (run.tally.scanned ?? 0) / took;
    const left = pace && took > 10 ? `, about ${span(known.never / pace)} left at ${number(Math.round(pace * 60))} rows a minute` : "";
    return ["The backfill is running", `Since ${clock(seconds(run.started_at))} UTC (${span(took)}): ${number(known.asked)} of ${counted(known.rows - known.nameless, "row")} asked, ${percent(known.asked, known.rows - known.nameless)}${left}. Changes go first meanwhile.`];
  },
};

// `seen` is null if the daemon does not answer, `last` if no status could be read so far.
export function showSituation(seen, last) {
  const name = situation(seen);
  document.documentElement.dataset.situation = name;
  document.documentElement.dataset.known = last ? "yes" : "no";
  const facts = WORDS[name]?.(seen?.status, last);
  at("notice").hidden = !facts;
  if (!facts) return;
  const [title, words, advice] = facts;
  show("notice-title", title, title);
  show("notice-words", words, words);
  show("notice-advice", advice ?? "", () => (advice ? [make("code", {}, advice)] : []));
}

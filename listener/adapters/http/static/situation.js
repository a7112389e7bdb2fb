// What a person needs to know first where the page has little or nothing to show.

import { ago, clock, counted, make, number, percent, seconds, show, span } from "/words.js";

// The situation decides which sections have anything to say: see [data-situation] in style.css.
function situation(seen, silent) {
  if (silent) return "silent";
  if (!seen.status) return "blind";
  const known = seen.status.coverage;
  if (!known.rows) return "empty";
  if (seen.status.runs.some((run) => run.kind === "backfill" && run.outcome === "running")) return "filling";
  return known.asked ? "usual" : "young";
}

const stale = (last, now) => last && ` Below is the state of ${clock(seconds(last.at), 3)} UTC, ${ago(seconds(last.at), now)}.`;

const WORDS = {
  silent: (_, last, now) => ["This daemon does not answer", `It has stopped, or the network does not reach it. This page tries again every second.${stale(last, now) ?? ""}`],
  blind: (_, last, now) => ["The database cannot be read", `The daemon tries again by itself, and no change is lost meanwhile: changes wait in the database.${stale(last, now) ?? ""}`, "listener doctor"],
  empty: () => ["The library is empty", "The first release that the backend adds will be asked about within seconds."],
  young: ({ status }) => ["LML was not asked yet", `${counted(status.coverage.rows, "row")} wait for their first answer. A daemon begins with a backfill as soon as LML answers.`, "listener backfill --plan"],
  filling: ({ status }, _, now) => {
    const run = status.runs.find((each) => each.kind === "backfill" && each.outcome === "running");
    const known = status.coverage, took = now - seconds(run.started_at), pace = (run.tally.scanned ?? 0) / took;
    const left = pace && took > 10 ? `, about ${span(known.never / pace)} left at ${number(Math.round(pace * 60))} rows a minute` : "";
    return ["The backfill is running", `Since ${clock(seconds(run.started_at))} UTC (${span(took)}): ${number(known.asked)} of ${counted(known.rows - known.nameless, "row")} asked, ${percent(known.asked, known.rows - known.nameless)}${left}. Changes go first meanwhile.`];
  },
};

// `last` is the last status that could be read, null if none could.
export function showSituation(seen, last, silent) {
  const name = situation(seen, silent), now = Date.now() / 1000;
  document.documentElement.dataset.situation = name;
  document.documentElement.dataset.known = last ? "yes" : "no";
  const facts = WORDS[name]?.(seen, last, last && name === "filling" ? seconds(last.at) : now) ?? null;
  document.getElementById("notice").hidden = !facts;
  if (!facts) return;
  const [title, words, advice] = facts;
  show("notice-title", title, title);
  show("notice-words", words, words);
  show("notice-advice", advice ?? "", () => (advice ? [make("code", {}, advice)] : []));
}

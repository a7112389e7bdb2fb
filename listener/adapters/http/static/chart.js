// Small SVG charts: drawn anew from plain values, read by pointer or by arrow keys.

import { clock, make, number, span, sum } from "/words.js";

const SVG = "http://www.w3.org/2000/svg";
const EDGE = { top: 24, right: 8, bottom: 38, left: 52 };
const STEPS = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1, PageDown: -10, PageUp: 10 };
const readers = new WeakMap();

function mark(name, attributes = {}, text) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  if (text !== undefined) element.textContent = text;
  return element;
}

// Lets a person walk over the values of a chart. It outlives what is drawn beneath, and so does
// its focus. Stops: {x, words}, from left to right.
class Reader {
  constructor(place) {
    this.place = place;
    this.stops = [];
    this.chosen = null;
    this.line = make("div", { class: "guide", hidden: "" });
    this.tip = make("p", { class: "tip", hidden: "" });
    this.slider = make("div", { class: "cursor", role: "slider", tabindex: "0", "aria-valuemin": "0" });
    place.replaceChildren(this.line, this.slider, this.tip);
    this.slider.addEventListener("pointermove", (event) => this.choose(this.nearest(event.offsetX)));
    this.slider.addEventListener("pointerdown", (event) => this.choose(this.nearest(event.offsetX)));
    this.slider.addEventListener("pointerleave", () => this.leave());
    this.slider.addEventListener("focus", () => this.choose(this.chosen ?? this.stops.length - 1));
    this.slider.addEventListener("blur", () => this.choose(null));
    this.slider.addEventListener("keydown", (event) => this.press(event));
  }

  nearest(x) {
    const gaps = this.stops.map((stop) => Math.abs(stop.x - x));
    return gaps.indexOf(Math.min(...gaps));
  }

  leave() {
    if (document.activeElement !== this.slider) this.choose(null);
  }

  press(event) {
    const last = this.stops.length - 1;
    const to = { Home: 0, End: last }[event.key] ?? (this.chosen ?? last) + STEPS[event.key];
    if (event.key === "Escape") this.choose(null);
    else if (!Number.isNaN(to)) this.choose(Math.min(last, Math.max(0, to)));
    else return;
    event.preventDefault();
  }

  offer(stops, label) {
    this.stops = stops;
    this.slider.hidden = !stops.length;
    this.slider.setAttribute("aria-label", `${label}: values`);
    this.slider.setAttribute("aria-valuemax", Math.max(0, stops.length - 1));
    if (this.chosen !== null) this.choose(Math.min(this.chosen, stops.length - 1));
    else this.describe(stops.length - 1);
  }

  describe(index) {
    this.slider.setAttribute("aria-valuenow", Math.max(0, index));
    this.slider.setAttribute("aria-valuetext", this.stops[index]?.words ?? "no values");
  }

  choose(index) {
    this.chosen = index === -1 ? null : index;
    const stop = this.stops[this.chosen];
    this.line.hidden = this.tip.hidden = !stop;
    if (!stop) return;
    this.describe(this.chosen);
    this.tip.textContent = stop.words;
    this.line.style.left = `${stop.x}px`;
    const room = this.place.clientWidth - this.tip.offsetWidth;
    this.tip.style.left = `${Math.max(0, Math.min(room, stop.x - this.tip.offsetWidth / 2))}px`;
  }
}

// Paints nothing if there is a note, which says why.
function draw(place, label, note, paint) {
  place.classList.toggle("bare", Boolean(note));
  // A card that is not shown has no size.
  const width = Math.max(200, place.clientWidth), height = Math.max(84, place.clientHeight);
  const svg = mark("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label });
  const box = { x: EDGE.left, y: EDGE.top, width: width - EDGE.left - EDGE.right, height: height - EDGE.top - EDGE.bottom };
  const stops = note ? [] : paint(svg, box);
  if (!readers.has(place)) readers.set(place, new Reader(place));
  for (const old of place.querySelectorAll("svg, .none")) old.remove();
  place.prepend(svg);
  if (note) place.append(make("p", { class: "none" }, note));
  readers.get(place).offer(stops, label);
}

function gridLine(svg, box, y, text) {
  svg.append(mark("line", { class: "grid", x1: box.x, x2: box.x + box.width, y1: y, y2: y }));
  svg.append(mark("text", { x: box.x - 8, y: y + 4, "text-anchor": "end" }, text));
}

function axes(svg, box, title) {
  const y = box.y + box.height;
  svg.append(mark("text", { class: "axis-title", x: 0, y: 11 }, title));
  svg.append(mark("line", { class: "axis", x1: box.x, x2: box.x + box.width, y1: y, y2: y }));
}

function timeAxis(svg, box, { now, seconds }) {
  const hours = seconds > 7200, whole = hours ? 24 : 60;
  const shares = box.width > 300 ? [1, 0.75, 0.5, 0.25, 0] : [1, 0.5, 0];
  shares.forEach((share, i) => {
    const x = box.x + box.width * (1 - share), y = box.y + box.height;
    const anchor = i === 0 ? "start" : share === 0 ? "end" : "middle";
    const relative = share === 0 ? "now, UTC" : `${share * whole} ${hours ? "h" : "min"} ago`;
    svg.append(mark("text", { x, y: y + 16, "text-anchor": anchor }, clock(now - share * seconds)));
    svg.append(mark("text", { x, y: y + 31, "text-anchor": anchor, class: "relative" }, relative));
  });
}

const across = (box, frame) => (at) =>
  box.x + box.width * Math.min(1, Math.max(0, 1 - (frame.now - at) / frame.seconds));

const stopsOf = (points, frame, x, words) =>
  points.map((p) => ({ x: x(p.at + frame.step / 2), words: `${clock(p.at, frame.step < 60 ? 3 : 2)}: ${words(p)}` }));

const LAG_TICKS = [
  [0.001, "1 ms"], [0.01, "10 ms"], [0.1, "0.1 s"], [1, "1 s"], [10, "10 s"],
  [60, "1 min"], [600, "10 min"], [3600, "1 h"], [36000, "10 h"], [360000, "100 h"],
];

// Points: {at, typical, slowest, silent}, in seconds; gaps wider than two steps break the lines.
export function lag(place, points, frame, label) {
  const telling = points.filter((p) => p.typical > 0 || p.slowest > 0 || p.silent > 0);
  draw(place, label, telling.length ? "" : `No changes in this ${frame.name}.`, (svg, box) => {
    const values = points.flatMap((p) => [p.typical, p.slowest]).filter((v) => v > 0);
    const least = Math.min(...values, 0.1), most = Math.max(...values, 1);
    const low = LAG_TICKS.findLast(([v]) => v <= least) ?? LAG_TICKS[0];
    const high = LAG_TICKS.find(([v]) => v >= most) ?? LAG_TICKS.at(-1);
    const scale = Math.log(high[0] / low[0]);
    const y = (v) => box.y + box.height * (1 - Math.log(Math.max(v, low[0]) / low[0]) / scale);
    const x = across(box, frame);
    for (const p of points.filter((each) => each.silent > 0)) {
      const left = x(p.at), right = x(p.at + frame.step);
      svg.append(mark("rect", { class: "silent", x: left, y: box.y, width: Math.max(2, right - left), height: box.height }));
    }
    for (const [value, text] of LAG_TICKS.filter(([v]) => v >= low[0] && v <= high[0])) gridLine(svg, box, y(value), text);
    axes(svg, box, "time to answer, logarithmic scale");
    timeAxis(svg, box, frame);
    const both = points.filter((p) => p.typical > 0 && p.slowest > 0);
    for (const run of runs(both, frame.step)) {
      const upper = run.map((p) => `${x(p.at)},${y(p.slowest)}`);
      const lower = run.map((p) => `${x(p.at)},${y(p.typical)}`).reverse();
      svg.append(mark("polygon", { class: "fill faint typical", points: [...upper, ...lower].join(" ") }));
    }
    for (const [name, kind] of [["slowest", "worst thin"], ["typical", "typical"]]) {
      for (const run of runs(points.filter((p) => p[name] > 0), frame.step)) {
        const [{ at, [name]: value }] = run;
        svg.append(run.length === 1
          ? mark("circle", { class: `point ${kind}`, cx: x(at), cy: y(value), r: 2.5 })
          : mark("polyline", { class: `line ${kind}`, points: run.map((p) => `${x(p.at)},${y(p[name])}`).join(" ") }));
      }
    }
    const words = (p) => `typical ${span(p.typical)}, slowest ${p.slowest ? span(p.slowest) : "–"}${p.silent ? `, LML silent for ${span(p.silent)}` : ""}`;
    return stopsOf(telling, frame, x, words);
  });
}

const PER = { 30: "30 s", 600: "10 min" };

// Points: {at, library, rotation}, changes in a step. Logarithmic, so that both an import of
// thousands and a single edit are visible.
export function rate(place, points, frame, label) {
  const busy = points.filter((p) => p.library || p.rotation);
  draw(place, label, busy.length ? "" : `No changes in this ${frame.name}.`, (svg, box) => {
    const most = Math.max(10, ...points.flatMap((p) => [p.library, p.rotation]));
    const top = 10 ** Math.ceil(Math.log10(most)), least = 0.5;
    const high = (v) => (box.height * Math.log(v / least)) / Math.log(top / least);
    const x = across(box, frame), bottom = box.y + box.height;
    for (let tick = 1; tick <= top; tick *= 10) gridLine(svg, box, bottom - high(tick), short(tick));
    axes(svg, box, `changes in ${PER[frame.step] ?? span(frame.step)}, logarithmic scale`);
    timeAxis(svg, box, frame);
    const wide = Math.max(1.2, ((box.width * frame.step) / frame.seconds - 0.75) / 2);
    for (const p of busy) {
      ["library", "rotation"].forEach((name, i) => {
        if (p[name]) svg.append(mark("rect", { class: name, x: x(p.at) + i * wide, y: bottom - high(p[name]), width: wide, height: high(p[name]) }));
      });
    }
    const words = (p) => `library ${number(p.library)}, rotation ${number(p.rotation)}`;
    return stopsOf(busy, frame, x, words);
  });
}

// Points: {at, values: one number per layer}; layers: {class: name}.
export function stack(place, points, layers, frame, label) {
  const most = Math.max(0, ...points.map((p) => sum(p.values)));
  const long = points.length > 1 && points.at(-1).at - points[0].at > frame.step && most > 0;
  draw(place, label, long ? "" : "Growth is shown after twenty minutes.", (svg, box) => {
    const x = across(box, frame), y = (v) => box.y + box.height * (1 - v / most);
    const base = points.map(() => 0), names = Object.entries(layers);
    names.forEach(([name], i) => {
      if (!points.some((p) => p.values[i])) return;
      const lower = points.map((p, n) => `${x(p.at)},${y(base[n])}`).reverse();
      points.forEach((p, n) => { base[n] += p.values[i]; });
      const upper = points.map((p, n) => `${x(p.at)},${y(base[n])}`);
      svg.append(mark("polygon", { class: `fill ${name}`, points: [...upper, ...lower].join(" ") }));
    });
    for (const share of [0, 0.5, 1]) gridLine(svg, box, y(most * share), short(most * share));
    axes(svg, box, "rows of the library");
    timeAxis(svg, box, frame);
    const words = (p) => names.map(([, name], i) => [name, p.values[i]]).filter(([, count]) => count).map(([name, count]) => `${name} ${number(count)}`).join(", ");
    return points.map((p) => ({ x: x(p.at), words: `${clock(p.at)}: ${words(p)}` }));
  });
}

// Bars: [name, count, kind].
export function bars(place, entries, label, titles) {
  const note = entries.some(([, count]) => count) ? "" : "Nothing was answered yet.";
  draw(place, label, note, (svg, box) => {
    const most = Math.max(1, ...entries.map(([, count]) => count));
    const room = { x: 4, y: box.y + 14, width: box.width + EDGE.left - 4, height: box.height - 14 };
    const each = room.width / entries.length, wide = Math.min(64, each * 0.72), bottom = room.y + room.height;
    const middle = (i) => room.x + each * (i + 0.5);
    entries.forEach(([name, count, kind], i) => {
      const high = count ? Math.max(2, (room.height * count) / most) : 0, top = bottom - high;
      svg.append(mark("rect", { class: kind, x: middle(i) - wide / 2, y: top, width: wide, height: high, rx: Math.min(4, high / 2) }));
      svg.append(mark("text", { class: "value", x: middle(i), y: top - 5, "text-anchor": "middle" }, count ? short(count, each < 46) : ""));
      svg.append(mark("text", { x: middle(i), y: bottom + 16, "text-anchor": "middle" }, name));
    });
    axes(svg, room, titles.y);
    svg.append(mark("text", { x: room.x + room.width / 2, y: bottom + 32, "text-anchor": "middle" }, titles.x));
    return entries.map(([name, count], i) => ({ x: middle(i), words: `${name} ${titles.unit}: ${number(count)} ${titles.y}` }));
  });
}

function runs(points, step) {
  const found = [];
  for (const p of points) {
    const last = found.at(-1)?.at(-1);
    if (last && p.at - last.at <= 2.5 * step) found.at(-1).push(p);
    else found.push([p]);
  }
  return found;
}

function short(count, tight = false) {
  if (count > 0 && count < 1) return "½";
  if (count >= 1e6) return `${+(count / 1e6).toPrecision(3)}m`;
  if (count >= (tight ? 1e3 : 1e4)) return `${+(count / 1e3).toPrecision(tight ? 2 : 3)}k`;
  return number(Math.round(count));
}

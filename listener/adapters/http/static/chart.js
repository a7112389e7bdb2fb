// Small SVG charts, each redrawn in place from plain values.

const SVG = "http://www.w3.org/2000/svg";
const EDGE = { top: 10, right: 6, bottom: 22, left: 46 };

export function draw(place, label, paint) {
  const width = Math.max(200, place.clientWidth), height = place.clientHeight;
  const svg = mark("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label });
  const box = {
    x: EDGE.left, y: EDGE.top,
    width: width - EDGE.left - EDGE.right, height: height - EDGE.top - EDGE.bottom,
  };
  const note = paint(svg, box);
  place.replaceChildren(svg);
  if (note) {
    const none = document.createElement("p");
    none.className = "none";
    none.textContent = note;
    place.append(none);
  }
}

export function mark(name, attributes = {}, text) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  if (text !== undefined) element.textContent = text;
  return element;
}

function gridLine(svg, box, y, text) {
  svg.append(mark("line", { class: "grid", x1: box.x, x2: box.x + box.width, y1: y, y2: y }));
  svg.append(mark("text", { x: box.x - 8, y: y + 4, "text-anchor": "end" }, text));
}

function timeAxis(svg, box, seconds) {
  const hours = seconds > 7200;
  const fine = box.width > 300, whole = hours ? 24 : 60;
  const marks = (fine ? [1, 0.75, 0.5, 0.25, 0] : [1, 0.5, 0]).map((share) => share * whole);
  marks.forEach((ago, i) => {
    const x = box.x + (box.width * i) / (marks.length - 1);
    const anchor = i === 0 ? "start" : i === marks.length - 1 ? "end" : "middle";
    const text = ago === 0 ? "now" : `${ago} ${hours ? "h" : "min"}`;
    svg.append(mark("text", { x, y: box.y + box.height + 17, "text-anchor": anchor }, text));
  });
  const y = box.y + box.height;
  svg.append(mark("line", { class: "axis", x1: box.x, x2: box.x + box.width, y1: y, y2: y }));
}

const LAG_TICKS = [
  [0.001, "1 ms"], [0.01, "10 ms"], [0.1, "0.1 s"], [1, "1 s"], [10, "10 s"],
  [60, "1 min"], [600, "10 min"], [3600, "1 h"], [36000, "10 h"], [360000, "100 h"],
];

// Points: {at, typical, slowest, silent}, in seconds; gaps wider than two steps break the lines.
export function lag(place, points, frame, label) {
  draw(place, label, (svg, box) => {
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
    timeAxis(svg, box, frame.seconds);
    const both = points.filter((p) => p.typical > 0 && p.slowest > 0);
    for (const run of runs(both, frame.step)) {
      const upper = run.map((p) => `${x(p.at)},${y(p.slowest)}`);
      const lower = run.map((p) => `${x(p.at)},${y(p.typical)}`).reverse();
      svg.append(mark("polygon", { class: "fill faint typical", points: [...upper, ...lower].join(" ") }));
    }
    for (const [name, kind] of [["slowest", "thin worst"], ["typical", "typical"]]) {
      for (const run of runs(points.filter((p) => p[name] > 0), frame.step)) {
        const path = run.map((p) => `${x(p.at)},${y(p[name])}`);
        if (path.length === 1) path.push(`${x(run[0].at) + 1.5},${y(run[0][name])}`);
        svg.append(mark("polyline", { class: `line ${kind}`, points: path.join(" ") }));
      }
    }
    return values.length || points.some((p) => p.silent) ? "" : "nothing was asked for";
  });
}

// Points: {at, library, rotation}, counts per minute. Heights grow with the square root, so that
// both an import of thousands and a single edit are visible.
export function rate(place, points, frame, label) {
  draw(place, label, (svg, box) => {
    const most = Math.max(0, ...points.map((p) => p.library + p.rotation));
    const top = nice(most);
    const high = (v) => box.height * Math.sqrt(v / top);
    const x = across(box, frame);
    for (const share of [0.25, 1]) gridLine(svg, box, box.y + box.height - high(top * share), short(top * share));
    timeAxis(svg, box, frame.seconds);
    const wide = Math.max(1.5, (box.width * frame.step) / frame.seconds - 0.75);
    for (const p of points) {
      const all = p.library + p.rotation;
      if (!all) continue;
      const whole = Math.max(1.5, high(all));
      let base = box.y + box.height;
      for (const name of ["library", "rotation"]) {
        const part = (whole * p[name]) / all;
        base -= part;
        if (part) svg.append(mark("rect", { class: name, x: x(p.at), y: base, width: wide, height: part }));
      }
    }
    svg.append(mark("text", { x: box.x + 4, y: box.y + 4 }, most ? "a minute" : ""));
    return most ? "" : "no changes";
  });
}

// Layers: names; points: {at, values: one number per layer}.
export function stack(place, points, layers, frame, label) {
  draw(place, label, (svg, box) => {
    const most = Math.max(0, ...points.map((p) => sum(p.values)));
    const top = most || 1;
    const x = across(box, frame);
    const y = (v) => box.y + box.height * (1 - v / top);
    const base = points.map(() => 0);
    if (points.length > 1 && points.at(-1).at - points[0].at > frame.step) {
      layers.forEach((name, i) => {
        if (!points.some((p) => p.values[i])) return;
        const lower = points.map((p, n) => `${x(p.at)},${y(base[n])}`).reverse();
        points.forEach((p, n) => { base[n] += p.values[i]; });
        const upper = points.map((p, n) => `${x(p.at)},${y(base[n])}`);
        svg.append(mark("polygon", { class: `fill ${name}`, points: [...upper, ...lower].join(" ") }));
      });
    }
    for (const share of [0, 0.5, 1]) gridLine(svg, box, y(top * share), most ? short(top * share) : "");
    timeAxis(svg, box, frame.seconds);
    const long = points.length > 1 && points.at(-1).at - points[0].at > frame.step;
    return long && most ? "" : "nothing to compare yet";
  });
}

// Bars: [name, count, kind].
export function bars(place, entries, label) {
  draw(place, label, (svg, box) => {
    const most = Math.max(1, ...entries.map(([, count]) => count));
    const room = { ...box, x: 4, width: box.width + EDGE.left - 4, y: box.y + 12, height: box.height - 12 };
    const each = room.width / entries.length, wide = Math.min(64, each * 0.72);
    entries.forEach(([name, count, kind], i) => {
      const middle = room.x + each * (i + 0.5);
      const high = count ? Math.max(2, (room.height * count) / most) : 0;
      const top = room.y + room.height - high;
      svg.append(mark("rect", { class: kind, x: middle - wide / 2, y: top, width: wide, height: high, rx: Math.min(4, high / 2) }));
      svg.append(mark("text", { class: "value", x: middle, y: top - 5, "text-anchor": "middle" }, count ? short(count, each < 46) : ""));
      svg.append(mark("text", { x: middle, y: room.y + room.height + 17, "text-anchor": "middle" }, name));
    });
    const y = room.y + room.height;
    svg.append(mark("line", { class: "axis", x1: room.x, x2: room.x + room.width, y1: y, y2: y }));
    return entries.some(([, count]) => count) ? "" : "nothing was asked yet";
  });
}

const across = (box, frame) => (at) =>
  box.x + box.width * Math.min(1, Math.max(0, 1 - (frame.now - at) / frame.seconds));

function runs(points, step) {
  const found = [];
  for (const p of points) {
    const last = found.at(-1)?.at(-1);
    if (last && p.at - last.at <= 2.5 * step) found.at(-1).push(p);
    else found.push([p]);
  }
  return found;
}

function nice(most) {
  if (most <= 2) return 2;
  const size = 10 ** Math.floor(Math.log10(most));
  return [1, 2, 4, 6, 8, 10].map((n) => n * size).find((n) => n >= most);
}

export function short(count, tight = false) {
  if (count > 0 && count < 1) return "½";
  if (count >= 1e6) return `${+(count / 1e6).toPrecision(3)}m`;
  if (count >= (tight ? 1e3 : 1e4)) return `${+(count / 1e3).toPrecision(tight ? 2 : 3)}k`;
  return Math.round(count).toLocaleString("en-US");
}

export const sum = (values) => values.reduce((a, b) => a + b, 0);
